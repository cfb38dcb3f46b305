"""Turns logs into comparisons: statistics, tables, figures, pages. Imports neither the simulator nor torch."""
