"""Demonstrations and trainers: recipes in, checkpoints out."""
