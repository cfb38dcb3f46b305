"""Demonstrations and trainers, which turn recipes into checkpoints."""
