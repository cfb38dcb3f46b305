"""Disturbances of a demonstration, which put recoveries into the data.

The executed action is disturbed, the label remains the expert's. A disturbance appears only in the measured state,
which both expert and camera see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_gen_bench.protocol import ACTION_DIMS

STREAM = 0xD157  # separates these draws from others keyed by the episode's seed and index
JITTER = np.array([0.004, 0.004, 0.004, 0.0, 0.0, 0.04, 0.0])  # metres, radians: sigma of every step
KICK_M, KICK_RAD, KICK_PART = 0.020, 0.20, 0.05  # a push: its length, its turn, its share of the steps
SNAP_PART, SNAP_STEPS = 0.015, (2, 5)  # closing the open gripper without cause: share of the steps, how long
DROP_PART, DROP_STEPS = 0.010, (2, 4)  # opening the closed gripper: a drop
CLEAN_PART = 0.25  # episodes without any disturbance
OPEN, CLOSED = 1.0, -1.0


@dataclass
class Disturbance:
    """Disturbs the actions of one episode.

    Args:
        seed, index: Of the episode; its disturbances depend on nothing else.
        scale: Multiplies jitter, pushes and shares. 0 = none, 1 = the constants above.
    """

    seed: int
    index: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        self._random = np.random.default_rng((STREAM, self.seed, self.index))
        if self._random.random() < CLEAN_PART:
            self.scale = 0.0
        self._forced, self._left = OPEN, 0

    def apply(self, action: np.ndarray) -> np.ndarray:
        """Returns the disturbed copy of an action [7]; call it once per control step."""
        if self.scale == 0.0:
            return action.copy()
        disturbed = action + self.scale * JITTER * self._random.standard_normal(ACTION_DIMS) + self._kick()
        disturbed[6] = self._gripper(action[6])
        return disturbed

    def _kick(self) -> np.ndarray:
        happens, angle, slope, turn = self._random.random(4)
        push = np.zeros(ACTION_DIMS)
        if happens < self.scale * KICK_PART:
            flat, up = np.cos(np.pi * (slope - 0.5)), np.sin(np.pi * (slope - 0.5))
            push[:3] = KICK_M * np.array([flat * np.cos(2 * np.pi * angle), flat * np.sin(2 * np.pi * angle), up])
            push[5] = KICK_RAD * (2 * turn - 1)
        return self.scale * push

    def _gripper(self, command: float) -> float:
        """Returns the command, or its opposite while a fault lasts."""
        happens, steps = self._random.random(), self._random.random()
        part, (shortest, longest) = (SNAP_PART, SNAP_STEPS) if command > 0 else (DROP_PART, DROP_STEPS)
        if self._left == 0 and happens < self.scale * part:
            self._forced = CLOSED if command > 0 else OPEN
            self._left = shortest + int(steps * (longest - shortest + 1))
        if self._left == 0:
            return command
        self._left -= 1
        return self._forced
