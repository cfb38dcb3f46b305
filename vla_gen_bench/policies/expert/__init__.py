"""The privileged expert: reads the simulator's true state, acts through the same seven numbers as every policy."""

from vla_gen_bench.policies.expert.expert import Expert

__all__ = ["Expert"]
