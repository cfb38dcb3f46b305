"""The converter interface. Letters in shapes: B episodes, K actions per call, n numbers per unconverted action."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.protocol import Observation


class Converter(Frozen):
    """One step of an adapter; its fields are its arguments in YAML.

    A converter may keep state of the running episodes in private attributes that `reset` clears.

    Attributes:
        needs_state: Whether it reads the robot's state.
        queries_every_step: Whether the policy must be queried at every control step; each call then returns one action.
        stateful: Whether an action depends on earlier calls of the episode, not only on the current one.
    """

    needs_state: ClassVar[bool] = False

    @property
    def queries_every_step(self) -> bool:
        return False

    @property
    def stateful(self) -> bool:
        return False

    def reset(self, batch: int, execute: int) -> None:
        """Starts `batch` new episodes; `execute` actions of each chunk will be executed."""

    def observe(self, observation: Observation) -> Observation:
        """Returns the observation for the policy."""
        return observation

    def convert(self, actions: np.ndarray, observation: Observation) -> np.ndarray:
        """Maps float64 [B, K, n] to [B, K, m].

        Args:
            observation: The benchmark's observation, before any converter.
        """
        return actions
