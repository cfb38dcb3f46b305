"""Two baseline policies for every table: `hold` does not move, `random` moves at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_gen_bench.protocol import ACTION_DIMS, ActionSpec, Observation

RANDOM_STREAM = 0x5EED  # separates this policy's draws from others keyed by the episode's seed


class HoldPolicy:
    """Holds the end effector still, gripper open. Any success it scores comes from the scene, not the policy."""

    memoryless = True

    def __init__(self, chunk: int = 1) -> None:
        self.action_spec = ActionSpec(chunk=chunk)

    def reset(self, instructions: Sequence[str], seeds: Sequence[int]) -> None:
        """Does nothing: the policy keeps no state."""

    def act(self, observation: Observation) -> np.ndarray:
        actions = np.zeros((len(observation), self.action_spec.chunk, ACTION_DIMS), np.float32)
        actions[..., 6] = 1.0
        return actions


class RandomPolicy:
    """Independent uniform actions; the same seed gives the same actions in any batch.

    Args:
        translation: Half width of the range of dx, dy, dz, metres.
        rotation: Half width of the range of droll, dpitch, dyaw, radians.
        chunk: K.
    The gripper is uniform in [-1, 1].
    """

    def __init__(self, translation: float = 0.02, rotation: float = 0.05, chunk: int = 1) -> None:
        high = (translation,) * 3 + (rotation,) * 3 + (1.0,)
        self.action_spec = ActionSpec(chunk=chunk, high=high, low=tuple(-limit for limit in high))
        self._high = np.array(high, np.float32)
        self._streams: list[np.random.Generator] = []

    def reset(self, instructions: Sequence[str], seeds: Sequence[int]) -> None:
        self._streams = [np.random.default_rng((RANDOM_STREAM, seed)) for seed in seeds]

    def act(self, observation: Observation) -> np.ndarray:
        shape = (self.action_spec.chunk, ACTION_DIMS)
        unit = np.stack([2 * stream.random(shape, np.float32) - 1 for stream in self._streams])  # [B, K, 7] in [-1, 1)
        return unit * self._high
