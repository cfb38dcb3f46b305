"""What a policy is, how one is found, loaded and checked. Importing this package imports no torch and no simulator."""

from vla_gen_bench.protocol import ActionSpec, Needs, Observation, Policy

__all__ = ["ActionSpec", "Needs", "Observation", "Policy"]
