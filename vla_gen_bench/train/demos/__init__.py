"""Demonstrations: collected, kept as a LeRobot data set, read for training."""
