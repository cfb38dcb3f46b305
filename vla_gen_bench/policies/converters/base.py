"""What a converter is. Letters in shapes: B episodes, K actions per call, n numbers per action on the way."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.protocol import Observation


class Converter(Frozen):
    """One step of an adapter; its fields are its arguments in YAML.

    A converter may keep something of the running episodes, in private attributes that `reset` clears.

    Attributes:
        needs_state: Whether it reads the robot's state.
        queries_every_step: Whether the policy has to be asked at every control step: then one action goes out per call.
    """

    needs_state: ClassVar[bool] = False

    @property
    def queries_every_step(self) -> bool:
        return False

    def reset(self, batch: int, execute: int) -> None:
        """Begins `batch` new episodes; `execute` actions of each chunk will be carried out."""

    def observe(self, observation: Observation) -> Observation:
        """Returns what the policy is to see."""
        return observation

    def convert(self, actions: np.ndarray, observation: Observation) -> np.ndarray:
        """Maps float64 [B, K, n] to [B, K, m].

        Args:
            observation: What the benchmark showed, before any converter.
        """
        return actions
