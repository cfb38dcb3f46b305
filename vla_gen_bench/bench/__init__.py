"""Measurements of this machine: `vgb bench`."""
