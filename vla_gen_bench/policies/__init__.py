"""Finds, loads and checks policies. Importing this package imports no torch and no simulator."""

from vla_gen_bench.protocol import ActionSpec, Needs, Observation, Policy

__all__ = ["ActionSpec", "Needs", "Observation", "Policy"]
