"""What an evaluation leaves behind: its folder, rows, stages, coverage, provenance. Reports need nothing else."""
