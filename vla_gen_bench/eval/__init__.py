"""Runs episodes and records them: rollout, worker processes, log, provenance."""
