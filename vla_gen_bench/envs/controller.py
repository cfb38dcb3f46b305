"""The arm controller: ManiSkill's target delta pose controller with the reference's inverse kinematics.

Since the version the reference used, ManiSkill builds its kinematic model from the URDF instead of from the
articulation. The solutions differ by rounding, and contact turns that into centimetres: with the articulation's model
every recorded trajectory of the reference is reproduced bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sapien
import torch
from mani_skill.agents.controllers.pd_ee_pose import PDEEPoseController, PDEEPoseControllerConfig
from mani_skill.utils.structs.pose import Pose

from vla_gen_bench.envs.kinematics import SerialChain

MAX_ITERATIONS = 100


class TargetDeltaPoseController(PDEEPoseController):
    """Adds a delta pose, base frame, to the previous target and drives the joints to its inverse kinematics.

    An unreachable target holds the joints where they are while the target pose still advances, as in the reference on
    a CPU (pd_ee_pose.py:103-111). On a GPU all arms are solved at once, to the same tolerance.

    Attributes:
        ik_ok: [B] bool: the last target was reached.
    """

    ik_ok: torch.Tensor

    def set_action(self, action: torch.Tensor) -> None:
        self._target_pose = self.compute_target_pose(self._target_pose, action)
        if self.scene.gpu_sim_enabled:
            self._target_qpos, self.ik_ok = self.solve_all(self._target_pose)
            self.set_drive_targets(self._target_qpos)
        else:
            self._set_targets(self._solve(self._target_pose.sp))

    def solve_all(self, target: Pose) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns joint angles [B, 6], radians, that reach `target` (base frame) or hold still, and which [B] reach."""
        qpos = self.qpos
        found, ok = self._chain.solve(qpos, target.to_transformation_matrix())
        return torch.where(ok[:, None], found.to(qpos.dtype), qpos), ok

    def _solve(self, target: sapien.Pose) -> np.ndarray:
        """Returns joint angles [6], radians, that reach `target` (base frame), or the current ones."""
        qpos = self.articulation._objs[0].qpos
        found, ok, _ = self._model.compute_inverse_kinematics(
            self._end_link, target, initial_qpos=qpos, active_qmask=self._mask, max_iterations=MAX_ITERATIONS
        )
        self.ik_ok = torch.tensor([ok])
        return (found if ok else qpos)[self._controlled].astype(np.float32)

    def _set_targets(self, qpos: np.ndarray) -> None:
        self._target_qpos = torch.from_numpy(qpos)[None]
        for joint, angle in zip(self.joints, qpos.tolist(), strict=True):
            joint._objs[0].set_drive_target(angle)

    def _initialize_joints(self) -> None:
        super()._initialize_joints()
        self.ik_ok = torch.ones(self.scene.num_envs, dtype=torch.bool, device=self.device)
        articulation, end_link = self.articulation._objs[0], self.ee_link._objs[0]
        if self.scene.gpu_sim_enabled:
            self._chain = SerialChain(end_link, self.device)
            return
        self._model = articulation.create_pinocchio_model()
        self._end_link = articulation.links.index(end_link)
        self._controlled = self.active_joint_indices.numpy()
        self._mask = np.zeros(articulation.dof, dtype=bool)
        self._mask[self._controlled] = True


@dataclass
class TargetDeltaPoseControllerConfig(PDEEPoseControllerConfig):
    controller_cls = TargetDeltaPoseController
