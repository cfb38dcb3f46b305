"""The arm controller: ManiSkill's target delta pose controller, with a CPU path that costs a tenth.

ManiSkill's own code does the same arithmetic in a few dozen small torch calls (about 2 ms a step on a CPU);
a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sapien
import torch
from mani_skill.agents.controllers.pd_ee_pose import PDEEPoseController, PDEEPoseControllerConfig
from mani_skill.utils.structs.pose import Pose


def quaternion_from_euler_xyz(angles: np.ndarray) -> np.ndarray:
    """Returns the quaternion (wxyz) of Rx(a) Ry(b) Rz(c) for `angles` (a, b, c) in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles / 2), np.sin(angles / 2)
    return np.array(
        [
            cx * cy * cz - sx * sy * sz,
            sx * cy * cz + cx * sy * sz,
            cx * sy * cz - sx * cy * sz,
            cx * cy * sz + sx * sy * cz,
        ]
    )


class TargetDeltaPoseController(PDEEPoseController):
    """Adds a delta pose, base frame, to the previous target and drives the joints to its inverse kinematics.

    On a CPU an unreachable target holds the joints where they are while the target pose still advances, as in the
    reference (pd_ee_pose.py:103-111). `ik_ok` tells whether the last target was reached.
    """

    ik_ok = True

    def set_action(self, action: torch.Tensor) -> None:
        if self.scene.gpu_sim_enabled:
            super().set_action(action)
            return
        delta = action[0].numpy().astype(np.float64)
        previous = self._target_pose.raw_pose[0].numpy().astype(np.float64)
        turn = sapien.Pose(q=quaternion_from_euler_xyz(delta[3:6]))
        target = sapien.Pose(previous[:3] + delta[:3], (turn * sapien.Pose(q=previous[3:])).q)
        self._target_pose = Pose.create(torch.from_numpy(np.concatenate([target.p, target.q]))[None])
        self._set_targets(self._solve(target))

    def _solve(self, target: sapien.Pose) -> np.ndarray:
        """Returns joint angles [6], radians, that reach `target` (base frame), or the current ones."""
        qpos = self.articulation._objs[0].qpos
        solver = self.kinematics
        found, self.ik_ok, _ = solver.pmodel.compute_inverse_kinematics(
            solver.end_link_idx, target, initial_qpos=qpos, active_qmask=self._mask, max_iterations=100
        )
        return (found if self.ik_ok else qpos)[self._controlled].astype(np.float32)

    def _set_targets(self, qpos: np.ndarray) -> None:
        self._target_qpos = torch.from_numpy(qpos)[None]
        for joint, angle in zip(self.joints, qpos.tolist(), strict=True):
            joint._objs[0].set_drive_target(angle)

    def _initialize_joints(self) -> None:
        super()._initialize_joints()
        if not self.kinematics.use_gpu_ik:
            self._mask = self.kinematics.qmask.numpy()
            self._controlled = self.kinematics.pmodel_controlled_joint_indices.numpy()


@dataclass
class TargetDeltaPoseControllerConfig(PDEEPoseControllerConfig):
    controller_cls = TargetDeltaPoseController
