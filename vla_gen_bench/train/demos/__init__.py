"""Demonstrations: collecting them, storing them as a LeRobot data set, reading them for training."""
