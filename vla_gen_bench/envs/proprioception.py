"""The robot's measured state: the rows of `Observation.state`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

from vla_gen_bench.envs.cameras import BASE_POSITION, BASE_QUATERNION

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv

CLOSED_M, OPEN_M = 0.015, 0.037  # finger joint positions
DOWN = Rotation.from_matrix([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # gripper pointing down
_BASE = Rotation.from_quat(np.roll(BASE_QUATERNION, -1))


def robot_states(env: PickPlaceEnv) -> np.ndarray:
    """Returns float32 [B, 17], one row per sub-scene, laid out as `protocol.STATE`; reading changes nothing."""
    link = env.agent.controller.controllers["arm"].ee_link.pose.raw_pose.double().cpu().numpy()  # [B, 7], world
    qpos = env.agent.robot.get_qpos().double().cpu().numpy()  # [B, 8]
    return env.measured(state_rows(link, qpos))


def state_rows(link: np.ndarray, qpos: np.ndarray) -> np.ndarray:
    """Returns float32 [B, 17].

    Args:
        link: [B, 7], pose of the end effector in the world frame, position and quaternion wxyz.
        qpos: [B, 8], six joint angles in radians, two finger positions in metres.
    """
    rotation = _BASE.inv() * Rotation.from_quat(np.roll(link[:, 3:], -1, axis=1))
    quaternion = np.roll(rotation.as_quat(canonical=True), 1, axis=1)
    opening = (qpos[:, 6:].mean(axis=1, keepdims=True) - CLOSED_M) / (OPEN_M - CLOSED_M)
    position = _BASE.inv().apply(link[:, :3] - BASE_POSITION)
    parts = (position, quaternion, (rotation * DOWN.inv()).as_euler("xyz"), qpos[:, :6], opening)
    return np.concatenate(parts, axis=1).astype(np.float32)
