"""The simulator's state as a row of numbers: what a critic reads that sees more than its policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    from vla_gen_bench.envs.privileged import BodyState, PrivilegedState

NUMBERS = 48
STEPS = 40
MOST = 6.0
DECIMETRE, CENTIMETRE = 0.1, 0.01


def state_numbers(state: PrivilegedState) -> np.ndarray:
    """Returns float32 [NUMBERS], of the order of 1; limited to +-6, for an object may fall for ever.

    Lengths are in decimetres and in the base frame: the end effector, its commanded position from there, the target
    object from the end effector (also in the latter's frame), the corners of its bounding box, the receptacle from the
    target object, and its corners. Then two columns each of the rotations of end effector and target object, the
    fingers (cm), their forces (log(1 + newtons)), the target object's speed (dm/s), whether it is grasped and
    whether it is placed, the rewards so far, and the control steps so far / 40. Distractors are left out.
    """
    target, receptacle = state.target, state.receptacle
    away = target.position - state.position
    lengths = (
        state.position,
        state.commanded_position - state.position,
        away,
        state.rotation.T @ away,
        *_corners(target, state.position),
        receptacle.position - target.position,
        *_corners(receptacle, target.position),
    )
    turned = Rotation.from_quat(np.roll(target.quaternion, -1)).as_matrix()
    others = (
        state.rotation[:, :2].T.ravel(),
        turned[:, :2].T.ravel(),
        state.qpos[6:] / CENTIMETRE,
        np.log1p(state.finger_forces),
        [target.speed / DECIMETRE, state.grasped, state.success, state.earned, state.step / STEPS],
    )
    numbers = np.concatenate([np.concatenate(lengths) / DECIMETRE, *others])
    return np.clip(numbers, -MOST, MOST).astype(np.float32)


def _corners(body: BodyState, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lowest and highest corner of a body's bounding box, from `origin`."""
    return body.points.min(axis=0) - origin, body.points.max(axis=0) - origin
