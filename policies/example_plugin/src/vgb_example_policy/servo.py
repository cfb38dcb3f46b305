"""`ServoPolicy`: look once, reach over the most colourful thing, go down, grasp, lift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vgb_example_policy.vision import find_blob
from vla_gen_bench.policies import ActionSpec, Observation

START = np.array([0.292, -0.006, 0.135])  # end effector at step 0 without a joint offset, base frame, metres
GRASP_Z_M = 0.02
STEP_M = 0.03
CLOSING_STEPS = 3
OPEN, CLOSED = 1.0, -1.0


class ServoPolicy:
    """Reaches for the most colourful thing on the table, whatever the instruction says.

    It uses the image of step 0 and nothing else; its actions do not depend on the seed.

    Args:
        step: Largest motion of one control step, metres.
    """

    def __init__(self, step: float = STEP_M) -> None:
        self.action_spec = ActionSpec()
        self._step = step
        self._plans: list[Iterator[np.ndarray] | None] = []

    def reset(self, instructions: Sequence[str], seeds: Sequence[int]) -> None:
        self._plans = [None] * len(instructions)

    def act(self, observation: Observation) -> np.ndarray:
        for row, plan in enumerate(self._plans):
            if plan is None:
                self._plans[row] = reach_and_lift(find_blob(observation.image[row]), self._step)
        actions = np.stack([next(plan) for plan in self._plans])  # [B, 7]
        return actions[:, None].astype(np.float32)  # [B, K=1, 7]


def reach_and_lift(goal: np.ndarray, step: float) -> Iterator[np.ndarray]:
    """Yields actions [7] without end: over `goal` (x, y in the base frame), down, close, up, hold.

    Actions move the target pose, so the position commanded so far is known exactly: `START` plus all deltas.
    """
    above, at = np.array([*goal, START[2]]), np.array([*goal, GRASP_Z_M])
    yield from _move(START, above, step, OPEN)
    yield from _move(above, at, step, OPEN)
    yield from _move(at, at, step, CLOSED, least=CLOSING_STEPS)
    yield from _move(at, above, step, CLOSED)
    while True:
        yield _action(np.zeros(3), CLOSED)


def _move(start: np.ndarray, end: np.ndarray, step: float, gripper: float, least: int = 1) -> Iterator[np.ndarray]:
    """Yields equal actions from `start` to `end`, none longer than `step`, at least `least` of them."""
    count = max(least, int(np.ceil(np.linalg.norm(end - start) / step)))
    for _ in range(count):
        yield _action((end - start) / count, gripper)


def _action(translation: np.ndarray, gripper: float) -> np.ndarray:
    return np.array([*translation, 0.0, 0.0, 0.0, gripper])
