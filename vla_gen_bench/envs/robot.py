"""The benchmark's WidowX-250S: ManiSkill's bridge controllers on a pack's URDF and camera."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from mani_skill.envs.tasks.digital_twins.bridge_dataset_eval.base_env import WidowX250SBridgeDatasetFlatTable
from mani_skill.sensors.camera import CameraConfig

from vla_gen_bench.assets.world import CAMERA
from vla_gen_bench.envs.cameras import (
    BASE_POSITION,
    BASE_QUATERNION,
    CAMERA_POSITION,
    CAMERA_QUATERNION,
    camera_configs,
    camera_matrix,
)
from vla_gen_bench.envs.controller import GripperControllerConfig, TargetDeltaPoseControllerConfig
from vla_gen_bench.protocol import EXTERNAL

__all__ = [
    "BASE_POSITION", "BASE_QUATERNION", "CAMERA", "CAMERA_POSITION", "CAMERA_QUATERNION", "agent_class",
    "camera_matrix",
]  # fmt: skip

INITIAL_QPOS = (-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398, 0.037, 0.037)
END_EFFECTOR = "ee_gripper_link"
CONTROL_MODE = "arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos"


@lru_cache(maxsize=None)
def agent_class(
    urdf: Path, width: int, height: int, shader: str, cameras: tuple[str, ...] = (EXTERNAL,)
) -> type[WidowX250SBridgeDatasetFlatTable]:
    """Returns the ManiSkill agent for a pack's URDF; controllers and gains are ManiSkill's, unchanged."""

    class WidowX(WidowX250SBridgeDatasetFlatTable):
        uid = "vgb_widowx250s"
        urdf_path = str(urdf)
        swift = False

        def set_action(self, action: torch.Tensor) -> None:
            """As ManiSkill's, without its check for NaN: `PickPlaceEnv` has checked all of it."""
            self.controller.set_action(action)

        @property
        def _controller_configs(self) -> dict:
            configs = super()._controller_configs[CONTROL_MODE]
            arm = TargetDeltaPoseControllerConfig(**vars(configs["arm"]))
            left, right = self.gripper_joint_names
            gripper = GripperControllerConfig(**vars(configs["gripper"]) | {"mimic": {right: {"joint": left}}})
            return {CONTROL_MODE: {"arm": arm, "gripper": gripper}}

        @property
        def _sensor_configs(self) -> list[CameraConfig]:
            return camera_configs(cameras, width, height, shader, self.swift)

    return WidowX
