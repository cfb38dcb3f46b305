"""Logs in, comparisons out: statistics, tables, pictures, pages. Neither the simulator nor torch is touched."""
