"""Converts a goal pose to a 7-D action: measured feedback, step limits, and a limit on the command's lead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vla_gen_bench.envs.privileged import PrivilegedState

DOWN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # columns x, y, z: approach down, closing axis y
NO_TURN = 1e-5  # radians, the error of a rotation matrix from float32 poses
OPEN, CLOSED = 1.0, -1.0


@dataclass(frozen=True)
class Limits:
    """Limits on the motion of one control step.

    Attributes:
        gain: Fraction of the remaining measured distance to the goal that one step commands.
        step_m: Largest horizontal and largest vertical translation of one step.
        step_rad: Largest rotation of one step.
        lead_m, lead_rad: Largest distance between commanded and measured pose. On the CPU an unreachable command holds
            the joints while the command still advances, and it would take as long to return.
    """

    gain: float = 0.45
    step_m: float = 0.025
    step_rad: float = 0.30
    lead_m: float = 0.040
    lead_rad: float = 0.60


def down_rotation(yaw: float) -> np.ndarray:
    """Returns the rotation [3, 3], base frame, of a gripper pointing down, turned by `yaw` radians about z."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ DOWN


def yaw_of(rotation: np.ndarray) -> float:
    """Returns the yaw, radians in (-pi, pi], of the closing axis (column y) seen from above."""
    return float(np.arctan2(-rotation[0, 1], rotation[1, 1]))


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Returns axis times angle [3], radians, the angle below pi."""
    twice_sin = np.array(  # twice the sine of the angle, along the axis
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    sin, cos = 0.5 * np.linalg.norm(twice_sin), 0.5 * (np.trace(rotation) - 1.0)
    if sin < NO_TURN:
        return np.zeros(3) if cos > 0 else Rotation.from_matrix(rotation).as_rotvec()
    return twice_sin * (0.5 / sin) * np.arctan2(sin, cos)


def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """Returns the rotation [3, 3] of axis times angle [3], radians (the formula of Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = axis = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    cos = np.cos(angle)
    return cos * np.eye(3) + (1.0 - cos) * np.outer(axis, axis) + np.sin(angle) * cross


def euler_xyz(rotation: np.ndarray) -> np.ndarray:
    """Returns (a, b, c), radians, with Rx(a) Ry(b) Rz(c) = `rotation`."""
    a = np.arctan2(-rotation[1, 2], rotation[2, 2])
    c = np.arctan2(-rotation[0, 1], rotation[0, 0])
    return np.array([a, np.arcsin(np.clip(rotation[0, 2], -1.0, 1.0)), c])


def shortened(vector: np.ndarray, length: float) -> np.ndarray:
    """Returns `vector`, scaled down to `length` if it is longer."""
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-12))


def action_towards(
    state: PrivilegedState, position: np.ndarray, rotation: np.ndarray, gripper: float, limits: Limits
) -> np.ndarray:
    """Returns the action, float64 [7], of one step from the measured pose towards a goal pose (base frame)."""
    if state.ik_ok:
        move = _capped(limits.gain * (position - state.position), limits.step_m)
        turn = shortened(limits.gain * rotation_vector(rotation @ state.rotation.T), limits.step_rad)
    else:  # nothing moves until the command is reachable again
        move = state.position - state.commanded_position
        turn = np.zeros(3)
    move = _capped(_leashed(move, state.commanded_position - state.position, limits.lead_m), limits.step_m)
    lead = rotation_vector(state.commanded_rotation @ state.rotation.T)
    turn = shortened(_leashed(turn, lead, limits.lead_rad), limits.step_rad)
    return np.concatenate([move, euler_xyz(rotation_matrix(turn)), [gripper]])


def _capped(move: np.ndarray, cap: float) -> np.ndarray:
    """Returns `move` with its horizontal and vertical parts limited to length `cap`."""
    return np.append(shortened(move[:2], cap), np.clip(move[2], -cap, cap))


def _leashed(step: np.ndarray, lead: np.ndarray, leash: float) -> np.ndarray:
    """Limits `step` to keep lead + step within `leash`."""
    return shortened(lead + step, leash) - lead
