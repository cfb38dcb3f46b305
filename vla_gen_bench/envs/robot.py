"""The WidowX-250S as the benchmark drives it: ManiSkill's bridge controllers on a pack's URDF and camera."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import sapien
import torch
from mani_skill.envs.tasks.digital_twins.bridge_dataset_eval.base_env import WidowX250SBridgeDatasetFlatTable
from mani_skill.sensors.camera import CameraConfig

from vla_gen_bench.assets.world import CAMERA
from vla_gen_bench.envs.controller import TargetDeltaPoseControllerConfig
from vla_gen_bench.envs.shaders import lean_shader_config, swift_shader_config

BASE_POSITION = (0.147, 0.028, 0.870)
BASE_QUATERNION = (0.0, 0.0, 0.0, 1.0)  # wxyz: the robot faces -x
INITIAL_QPOS = (-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398, 0.037, 0.037)
END_EFFECTOR = "ee_gripper_link"
CONTROL_MODE = "arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos"

CAMERA_POSITION = (0.00, -0.16, 0.36)  # on base_link
CAMERA_QUATERNION = (0.8992917, -0.09263245, 0.35892478, 0.23209205)
_FOCAL, _CENTRE, _REFERENCE_WIDTH = 623.588, (319.501, 239.545), 640


def camera_matrix(width: int) -> np.ndarray:
    """Returns the 3x3 intrinsic matrix, in pixels, of the benchmark camera scaled to `width` pixels."""
    scale = width / _REFERENCE_WIDTH
    centre = [(value + 0.5) * scale - 0.5 for value in _CENTRE]
    return np.array([[_FOCAL * scale, 0, centre[0]], [0, _FOCAL * scale, centre[1]], [0, 0, 1]])


def camera_config(width: int, height: int, shader: str, swift: bool = False) -> CameraConfig:
    """Returns the third-person camera of the bridge data set, mounted on the robot's base.

    Args:
        swift: Draw nothing but the colours and the segmentation of opaque bodies, in a quarter of the time.
    """
    return CameraConfig(
        uid=CAMERA,
        pose=sapien.Pose(CAMERA_POSITION, CAMERA_QUATERNION),
        width=width,
        height=height,
        entity_uid="base_link",
        intrinsic=camera_matrix(width),
        shader_config=(swift_shader_config if swift else lean_shader_config)(shader),
    )


@lru_cache(maxsize=None)
def agent_class(urdf: Path, width: int, height: int, shader: str) -> type[WidowX250SBridgeDatasetFlatTable]:
    """Returns the ManiSkill agent for a pack's URDF; controllers and gains are ManiSkill's, unchanged."""

    class WidowX(WidowX250SBridgeDatasetFlatTable):
        uid = "vgb_widowx250s"
        urdf_path = str(urdf)
        swift = False

        def set_action(self, action: torch.Tensor) -> None:
            if bool(torch.isnan(action).any()):
                raise ValueError("the action is NaN")
            self.controller.set_action(action)

        @property
        def _controller_configs(self) -> dict:
            configs = super()._controller_configs[CONTROL_MODE]
            arm = TargetDeltaPoseControllerConfig(**vars(configs["arm"]))
            left, right = self.gripper_joint_names
            gripper = replace(configs["gripper"], mimic={right: {"joint": left}})
            return {CONTROL_MODE: {"arm": arm, "gripper": gripper}}

        @property
        def _sensor_configs(self) -> list[CameraConfig]:
            return [camera_config(width, height, shader, self.swift)]

    return WidowX
