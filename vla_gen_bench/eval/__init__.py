"""Running episodes and keeping what happened: rollout, worker processes, the log, provenance."""
