"""The product of an evaluation: its folder, rows, stages, coverage, provenance. Reports stand on this alone."""
