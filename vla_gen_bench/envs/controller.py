"""ManiSkill's arm and gripper controllers; the arm uses the reference's inverse kinematics.

ManiSkill now builds its kinematic model from the URDF; the version the reference used built it from the articulation.
The solutions differ by rounding, which contact amplifies to centimetres. With the articulation's model every recorded
trajectory of the reference is reproduced bit for bit.

On the CPU, with one robot, both controllers repeat ManiSkill's operations in numpy: a fifth of the time of one-element
tensors, with bit-identical results (tests/envs/test_controller.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sapien
import torch
from mani_skill.agents.controllers.pd_ee_pose import PDEEPoseController, PDEEPoseControllerConfig
from mani_skill.agents.controllers.pd_joint_pos import PDJointPosMimicController, PDJointPosMimicControllerConfig
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
        if self.scene.gpu_sim_enabled:
            self._target_pose = self.compute_target_pose(self._target_pose, action)
            self._target_qpos, self.ik_ok = self.solve_all(self._target_pose)
            self.set_drive_targets(self._target_qpos)
        else:
            target = moved_pose(self._target_pose.raw_pose[0].numpy(), action[0].numpy())
            self._target_pose = Pose(torch.from_numpy(target[None]))
            self._set_targets(self._solve(sapien.Pose(target[:3], target[3:])))

    def solve_all(self, target: Pose) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns joint angles [B, 6], radians, that reach `target` (base frame) or hold still, and success [B]."""
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


class GripperController(PDJointPosMimicController):
    """Drives both fingers to one opening: ManiSkill's controller for absolute targets, without tensors on the CPU."""

    def set_action(self, action: torch.Tensor) -> None:
        if self.scene.gpu_sim_enabled:
            super().set_action(action)
            return
        low, high = self.action_space_low.numpy(), self.action_space_high.numpy()
        opening = np.float32(0.5) * (high + low) + np.float32(0.5) * (high - low) * action[0].numpy().clip(-1, 1)
        targets = self._target_qpos[0].numpy()  # shares the tensor's memory
        targets[self._control] = opening
        targets[self._follow] = targets[self._lead] * self._factor + self._shift
        for joint, target in zip(self.joints, targets.tolist(), strict=True):
            joint._objs[0].set_drive_target(target)

    def _initialize_joints(self) -> None:
        super()._initialize_joints()
        self._control = self.control_joint_indices.cpu().numpy()
        self._follow = self.mimic_joint_indices.cpu().numpy()
        self._lead = self.mimic_control_joint_indices.cpu().numpy()
        self._factor, self._shift = self._multiplier.cpu().numpy(), self._offset.cpu().numpy()


@dataclass
class GripperControllerConfig(PDJointPosMimicControllerConfig):
    controller_cls = GripperController


def moved_pose(pose: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Returns float32 [7]: `pose` (position, quaternion wxyz) moved and turned by `delta`, about the frame's axes.

    Args:
        delta: float32 [6], translation, then angles of Rx Ry Rz.
    """
    return np.concatenate([pose[:3] + delta[:3], _product(_quaternion(_rotation(delta[3:])), pose[3:])])


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Returns float32 [3, 3]: Rx Ry Rz. Uses torch's sine and cosine because numpy's differ in the last bits."""
    tensor = torch.from_numpy(angles)
    (cx, cy, cz), (sx, sy, sz) = torch.cos(tensor).numpy(), torch.sin(tensor).numpy()
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]], np.float32)
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]], np.float32)
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]], np.float32)
    return _matmul(_matmul(x, y), z)


def _matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the product a b [3, 3], summed in torch's order."""
    return (a[:, :1] * b[:1] + a[:, 1:2] * b[1:2]) + a[:, 2:] * b[2:]


def _quaternion(matrix: np.ndarray) -> np.ndarray:
    """Returns float32 [4], wxyz, real part not negative: the best candidate of pytorch3d's `matrix_to_quaternion`.

    Uses torch's square root because numpy's rounds differently.
    """
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = matrix
    one = np.float32(1)
    squares = np.array([one + m00 + m11 + m22, one + m00 - m11 - m22, one - m00 + m11 - m22, one - m00 - m11 + m22])
    sizes = torch.sqrt(torch.from_numpy(squares.clip(min=0))).numpy()
    best = int(sizes.argmax())
    rows = (
        (None, m21 - m12, m02 - m20, m10 - m01),
        (m21 - m12, None, m10 + m01, m02 + m20),
        (m02 - m20, m10 + m01, None, m12 + m21),
        (m10 - m01, m20 + m02, m21 + m12, None),
    )
    square = sizes[best] * sizes[best]
    row = np.array([square if value is None else value for value in rows[best]], np.float32)
    return _standard(row / (np.float32(2) * sizes[best]))


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns float32 [4]: the quaternion product a b, real part not negative."""
    (aw, ax, ay, az), (bw, bx, by, bz) = a, b
    ow = aw * bw - ax * bx - ay * by - az * bz
    ox = aw * bx + ax * bw + ay * bz - az * by
    oy = aw * by - ax * bz + ay * bw + az * bx
    oz = aw * bz + ax * by - ay * bx + az * bw
    return _standard(np.array([ow, ox, oy, oz], np.float32))


def _standard(quaternion: np.ndarray) -> np.ndarray:
    return -quaternion if quaternion[0] < 0 else quaternion
