"""`Adapted`: a policy wrapped in its converters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vla_gen_bench.policies.converters.base import Converter
from vla_gen_bench.protocol import ActionSpec, Needs, Observation


def needs_with(needs: Needs, converters: Sequence[Converter]) -> Needs:
    """Returns `needs`, with the robot's state added if a converter reads it."""
    return replace(needs, state=True) if any(converter.needs_state for converter in converters) else needs


class Adapted:
    """Wraps a policy with another convention to act in the benchmark's convention.

    Only `chunk` and `execute` of the inner policy's action spec are used; the converters define the convention.
    """

    def __init__(self, policy: Any, converters: Sequence[Converter]) -> None:
        self.policy, self.converters = policy, list(converters)
        spec = policy.action_spec
        every_step = any(converter.queries_every_step for converter in converters)
        self.action_spec = ActionSpec(chunk=1) if every_step else ActionSpec(chunk=spec.chunk, execute=spec.execute)

    @property
    def memoryless(self) -> bool:
        """Whether actions depend only on the current call, see `Policy`: of the inner policy and every converter."""
        inner = bool(getattr(self.policy, "memoryless", False))
        return inner and not any(converter.stateful for converter in self.converters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["policy"], name)  # optional members such as decoding and close

    def reset(self, instructions: Sequence[str], seeds: Sequence[int]) -> None:
        for converter in self.converters:
            converter.reset(len(instructions), self.action_spec.execution_horizon)
        self.policy.reset(instructions, seeds)

    def act(self, observation: Observation) -> np.ndarray:
        seen = observation
        for converter in self.converters:
            seen = converter.observe(seen)
        actions = as_array(self.policy.act(seen)).astype(np.float64)
        if actions.ndim != 3 or len(actions) != len(observation):
            raise ValueError(f"the policy returned {list(actions.shape)}; expected [{len(observation)}, K, n]")
        for converter in self.converters:
            actions = converter.convert(actions, observation)
        return np.ascontiguousarray(actions, np.float32)


def as_array(value: Any) -> np.ndarray:
    """Returns numbers as a numpy array: an array, a torch or JAX tensor on any device, or nested lists of one shape."""
    if hasattr(value, "detach"):  # torch, on any device, with or without a gradient
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    return np.asarray(value)
