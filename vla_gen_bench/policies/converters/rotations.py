"""Converters for rotation notations, for absolute poses, and for deltas from another starting pose.

Commands import this module for its names alone, so scipy.spatial, a third of their start, is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import PrivateAttr

from vla_gen_bench.policies.converters.base import Converter
from vla_gen_bench.protocol import STATE, Observation

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

Notation = Literal["euler_XYZ", "euler_xyz", "axis_angle", "quaternion_wxyz", "quaternion_xyzw", "rot6d"]
SIZES = {
    "euler_XYZ": 3, "euler_xyz": 3, "axis_angle": 3, "quaternion_wxyz": 4, "quaternion_xyzw": 4, "rot6d": 6,
}  # fmt: skip


def parse_rotation(values: np.ndarray, notation: Notation) -> Rotation:
    """Returns the rotations of values [..., r], flattened to one axis.

    `euler_XYZ`: Rx Ry Rz, the benchmark's; `euler_xyz`: Rz Ry Rx (static axes, ROS, transforms3d's default);
    `rot6d`: the matrix's first two columns (Zhou et al. 2019), made orthonormal by Gram-Schmidt.
    """
    from scipy.spatial.transform import Rotation

    flat = values.reshape(-1, values.shape[-1])
    if notation == "axis_angle":
        return Rotation.from_rotvec(flat)
    if notation == "quaternion_wxyz":
        return Rotation.from_quat(np.roll(flat, -1, axis=1))
    if notation == "quaternion_xyzw":
        return Rotation.from_quat(flat)
    if notation == "rot6d":
        return Rotation.from_matrix(_orthonormal(flat))
    return Rotation.from_euler(notation.removeprefix("euler_"), flat)


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """[N, 6], two columns, to rotation matrices [N, 3, 3]."""
    first = columns[:, :3] / np.linalg.norm(columns[:, :3], axis=1, keepdims=True)
    second = columns[:, 3:] - (first * columns[:, 3:]).sum(1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=2)


def split(actions: np.ndarray, notation: Notation, who: str) -> tuple[np.ndarray, Rotation, np.ndarray]:
    """Returns position [B, K, 3], rotations of B * K actions, gripper [B, K, 1] of actions [B, K, 3 + r + 1].

    Raises:
        ValueError: The actions have a wrong size.
    """
    expected = 4 + SIZES[notation]
    if actions.shape[-1] != expected:
        raise ValueError(f"{who}: actions have {actions.shape[-1]} numbers; {notation} makes it {expected}")
    return actions[..., :3], parse_rotation(actions[..., 3:-1], notation), actions[..., -1:]


def join(position: np.ndarray, rotation: Rotation, gripper: np.ndarray) -> np.ndarray:
    """The inverse, in the benchmark's notation: [B, K, 7]."""
    euler = rotation.as_euler("XYZ").reshape(*position.shape[:-1], 3)
    return np.concatenate([position, euler, gripper], axis=-1)


class RotationDelta(Converter):
    """Converts the rotation from another notation: `rotation: {given: axis_angle}`."""

    given: Notation

    def convert(self, actions: np.ndarray, observation: Observation) -> np.ndarray:
        return join(*split(actions, self.given, "rotation"))


class _FromPose(Converter):
    """Tracks the controller's target pose: every returned delta moves it.

    It starts from the measured pose, as the controller's does. A suite that disturbs actions after the policy moves the
    real target away from this one, as on a disturbed robot.
    """

    needs_state: ClassVar[bool] = True
    _target: list[tuple[np.ndarray, Rotation]] = PrivateAttr(default_factory=list)
    _execute: int = PrivateAttr(default=1)

    @property
    def stateful(self) -> bool:
        return True

    def reset(self, batch: int, execute: int) -> None:
        self._target, self._execute = [], execute

    def convert(self, actions: np.ndarray, observation: Observation) -> np.ndarray:
        measured = _measured(observation)
        self._target = self._target or measured
        chunks = []
        for row, action in enumerate(actions):
            goals = self._goals(action, measured[row])
            chunk, after = _deltas(goals, self._target[row], self._execute)
            self._target[row] = after
            chunks.append(np.concatenate([chunk, action[:, -1:]], axis=1))
        return np.stack(chunks)

    def _goals(self, action: np.ndarray, measured: tuple[np.ndarray, Rotation]) -> list[tuple[np.ndarray, Rotation]]:
        raise NotImplementedError


class AbsolutePose(_FromPose):
    """Converts absolute end-effector poses in the base frame: `absolute: {given: quaternion_wxyz}`.

    With `from_down` the rotation is relative to a gripper that points straight down, as in BridgeData V2's states.
    """

    given: Notation
    from_down: bool = False

    def _goals(self, action: np.ndarray, measured: tuple[np.ndarray, Rotation]) -> list[tuple[np.ndarray, Rotation]]:
        positions, rotations, _ = split(action[None], self.given, "absolute")
        turned = rotations * _down() if self.from_down else rotations
        return [(position, turned[k]) for k, position in enumerate(positions[0])]


class FromMeasured(_FromPose):
    """Converts deltas from the measured pose instead of the target: `deltas: {from_pose: measured}`.

    Args:
        chunk: "steps": within a chunk each action starts from the intended end of the previous one; "start": all
            start from the pose measured when the policy was queried.
    """

    from_pose: Literal["measured"] = "measured"
    given: Notation = "euler_XYZ"
    chunk: Literal["steps", "start"] = "steps"

    def _goals(self, action: np.ndarray, measured: tuple[np.ndarray, Rotation]) -> list[tuple[np.ndarray, Rotation]]:
        moves, turns, _ = split(action[None], self.given, "deltas")
        goals = []
        for k, move in enumerate(moves[0]):
            position, rotation = goals[-1] if goals and self.chunk == "steps" else measured
            goals.append((position + move, turns[k] * rotation))
        return goals


def _down() -> Rotation:
    """Returns the rotation of a gripper that points straight down."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])


def _measured(observation: Observation) -> list[tuple[np.ndarray, Rotation]]:
    position = observation.part("ee_position").astype(np.float64)
    quaternion = np.roll(observation.part("ee_quaternion").astype(np.float64), -1, axis=1)
    assert STATE["ee_quaternion"].names[0] == "qw"
    rotations = parse_rotation(quaternion, "quaternion_xyzw")
    return [(p, rotations[row]) for row, p in enumerate(position)]


def _deltas(
    goals: list[tuple[np.ndarray, Rotation]], target: tuple[np.ndarray, Rotation], execute: int
) -> tuple[np.ndarray, tuple[np.ndarray, Rotation]]:
    """Returns [K, 6], each action's delta from the previous goal, and the target after `execute` of them."""
    rows, before = [], target
    for position, rotation in goals:
        rows.append([*(position - before[0]), *(rotation * before[1].inv()).as_euler("XYZ")])
        before = position, rotation
    return np.array(rows), goals[min(execute, len(goals)) - 1]
