"""Inverse kinematics for many arms at once, on the device of their joint angles."""

from __future__ import annotations

import sapien
import torch
from mani_skill.utils.geometry.rotation_conversions import matrix_to_quaternion, quaternion_to_axis_angle
from sapien.physx import PhysxArticulationLinkComponent

TOLERANCE = 1e-4  # metres and radians, norm of both: the CPU solver's stopping criterion
ITERATIONS = 25  # each halves the error: 2**-25 of 1 m is far below the tolerance
STEP, DAMPING = 0.5, 1e-6


class SerialChain:
    """The revolute joints between an articulation's root and one of its links.

    Built from the articulation like the CPU's model, not from the URDF, because the two round differently.

    Args:
        link: The last link; only revolute and fixed joints may connect it to the root.
        device: Where `solve` computes, in float64.
    """

    def __init__(self, link: PhysxArticulationLinkComponent, device: torch.device) -> None:
        constants = [torch.eye(4, dtype=torch.float64)]
        for joint in _joints_to(link):
            if joint.dof:
                if not joint.type.startswith("revolute"):
                    raise ValueError(f"{joint.name} is {joint.type}; a chain has revolute and fixed joints only")
                constants[-1] = constants[-1] @ _matrix(joint.pose_in_parent)
                constants.append(_matrix(joint.pose_in_child.inv()))
            else:
                constants[-1] = constants[-1] @ _matrix(joint.pose_in_parent * joint.pose_in_child.inv())
        self._constants = torch.stack(constants).to(device)

    def forward(self, qpos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the link's pose [B, 4, 4] in the root's frame and its Jacobian [B, 6, N], translations first.

        Args:
            qpos: float64 [B, N], radians, root to link.
        """
        frames, pose = [], self._constants[0].expand(len(qpos), 4, 4)
        for joint in range(qpos.shape[1]):
            frames.append(pose)
            pose = pose @ _turn_x(qpos[:, joint]) @ self._constants[joint + 1]
        joints = torch.stack(frames, dim=1)  # [B, N, 4, 4]; each turns about its own x axis
        axes, origins = joints[..., :3, 0], joints[..., :3, 3]
        sweep = torch.linalg.cross(axes, pose[:, None, :3, 3] - origins)
        return pose, torch.cat([sweep, axes], dim=-1).transpose(1, 2)

    def solve(self, qpos: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Finds joint angles that bring the link to `target`, starting from `qpos`.

        Damped least squares (Buss 2004), a fixed number of half steps for all: no row waits for another.

        Args:
            qpos: [B, N] radians, root to link.
            target: [B, 4, 4] in the root's frame.

        Returns:
            float64 [B, N] joint angles, limits ignored as on the CPU, and bool [B]: the target is reached within
            `TOLERANCE`.
        """
        qpos, target = qpos.double(), target.double()
        damping = DAMPING * torch.eye(6, dtype=qpos.dtype, device=qpos.device)
        for _ in range(ITERATIONS):
            pose, jacobian = self.forward(qpos)
            square = jacobian @ jacobian.transpose(1, 2) + damping
            weights = torch.linalg.solve(square, _twist(pose, target)[..., None])
            qpos = qpos + STEP * (jacobian.transpose(1, 2) @ weights)[..., 0]
        error = torch.linalg.norm(_twist(self.forward(qpos)[0], target), dim=-1)
        return qpos, error < TOLERANCE


def _joints_to(link: PhysxArticulationLinkComponent) -> list:
    joints = []
    while link.parent is not None:
        joints.append(link.joint)
        link = link.parent
    return joints[::-1]


def _matrix(pose: sapien.Pose) -> torch.Tensor:
    return torch.from_numpy(pose.to_transformation_matrix()).double()


def _turn_x(angle: torch.Tensor) -> torch.Tensor:
    """Returns [B, 4, 4] rotations about x by [B] radians."""
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    rows = [one, zero, zero, zero, zero, cosine, -sine, zero, zero, sine, cosine, zero, zero, zero, zero, one]
    return torch.stack(rows, dim=-1).view(-1, 4, 4)


def _twist(pose: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Returns [B, 6]: the displacement from `pose` to `target`, metres and radians about the root's axes."""
    turn = target[:, :3, :3] @ pose[:, :3, :3].transpose(1, 2)
    return torch.cat([target[:, :3, 3] - pose[:, :3, 3], quaternion_to_axis_angle(matrix_to_quaternion(turn))], dim=-1)
