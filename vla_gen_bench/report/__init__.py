"""Logs in, comparisons out: statistics, tables, images, pages. Neither the simulator nor torch is touched."""
