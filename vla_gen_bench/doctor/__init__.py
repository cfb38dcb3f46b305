"""What this machine can run: `vgb doctor`."""
