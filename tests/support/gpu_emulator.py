"""PhysX's GPU interface over several CPU scenes: runs the environment's GPU code where there is no GPU.

ManiSkill and this project use `PhysxGpuSystem` through buffers: values written into them reach the simulation by
`gpu_apply_*`, results come back by `gpu_fetch_*`, contacts by queries. `EmulatedGpuSystem` gives each sub-scene a CPU
system of its own behind that interface. What is written and not applied is lost at the next fetch, and what was
simulated and not fetched stays unseen, as on the device; the physics is PhysX's own. So a batch must equal its episodes
run alone bit by bit, and a forgotten apply or fetch shows. Left out: the substep that `gpu_init` takes, and speed.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import numpy as np
import sapien
import torch
from mani_skill.envs import sapien_env
from mani_skill.envs.scene import ManiSkillScene

from vla_gen_bench.envs.pick_place import PickPlaceEnv

physx = sapien.physx
DYNAMIC, LINK = physx.PhysxRigidDynamicComponent, physx.PhysxArticulationLinkComponent


class Buffer:
    """A `CudaArray`: `.torch()` is the memory itself."""

    def __init__(self, *shape: int) -> None:
        self.data = torch.zeros(*shape)
        self.applied = self.data.clone()

    def torch(self) -> torch.Tensor:
        return self.data

    def changed(self) -> list[int]:
        """Returns the rows written since they were last applied or fetched, and takes note of them."""
        rows = (self.data != self.applied).any(1).nonzero()[:, 0].tolist()
        self.applied[rows] = self.data[rows]
        return rows

    def fetch(self, row: int, values: np.ndarray, columns: slice = slice(None)) -> None:
        self.data[row, columns] = torch.as_tensor(np.asarray(values, np.float32))
        self.applied[row, columns] = self.data[row, columns]


class EmulatedGpuSystem:
    """See the module's docstring; the methods are those of `PhysxGpuSystem` that ManiSkill and this project call."""

    def __init__(self, scenes: list[sapien.Scene]) -> None:
        self.scenes = scenes
        self.systems = [scene.physx_system for scene in scenes]
        self._stale = False  # joint angles were applied, link poses not updated

    @property
    def timestep(self) -> float:
        return self.systems[0].timestep

    @timestep.setter
    def timestep(self, value: float) -> None:
        for system in self.systems:
            system.timestep = value

    def step(self) -> None:
        for system in self.systems:
            system.step()
        self._stale = False

    def gpu_init(self) -> None:
        self.links = [link for system in self.systems for link in system.articulation_link_components]
        self.bodies = [body for system in self.systems for body in system.rigid_dynamic_components]
        self.arms = [link.articulation for link in self.links if link.is_root]
        self.pose_index = {body: index for index, body in enumerate([*self.links, *self.bodies])}
        self.arm_index = {arm: index for index, arm in enumerate(self.arms)}
        self.cuda_rigid_body_data = Buffer(len(self.pose_index), 13)
        for name in ("qpos", "qvel", "qf", "qacc", "target_qpos", "target_qvel"):
            setattr(self, f"cuda_articulation_{name}", Buffer(len(self.arms), self.arms[0].dof))

    # ---- from the buffers into the simulation

    def gpu_apply_rigid_dynamic_data(self) -> None:
        self._apply_bodies(self.bodies)

    def gpu_apply_articulation_root_pose(self) -> None:
        self._stale |= self._apply_bodies([link for link in self.links if link.is_root])

    def gpu_apply_articulation_root_velocity(self) -> None:
        """Roots are fixed."""

    def gpu_apply_articulation_qpos(self) -> None:
        for row in self.cuda_articulation_qpos.changed():
            self.arms[row].qpos = self.cuda_articulation_qpos.data[row].numpy()
            self._stale = True

    def gpu_apply_articulation_qvel(self) -> None:
        for row in self.cuda_articulation_qvel.changed():
            self.arms[row].qvel = self.cuda_articulation_qvel.data[row].numpy()

    def gpu_apply_articulation_qf(self) -> None:
        for row in self.cuda_articulation_qf.changed():
            self.arms[row].qf = self.cuda_articulation_qf.data[row].numpy()

    def gpu_apply_articulation_target_position(self) -> None:
        for row in self.cuda_articulation_target_qpos.changed():
            for joint, angle in zip(
                self.arms[row].active_joints, self.cuda_articulation_target_qpos.data[row].tolist(), strict=True
            ):
                joint.set_drive_target(angle)

    def gpu_apply_articulation_target_velocity(self) -> None:
        assert not self.cuda_articulation_target_qvel.changed(), "nothing here drives velocities"

    def _apply_bodies(self, bodies: list) -> bool:
        """Applies the rows of `bodies`; those of others that were written stay unapplied."""
        buffer, any_changed = self.cuda_rigid_body_data, False
        for body in bodies:
            row = self.pose_index[body]
            values, before = buffer.data[row].numpy(), buffer.applied[row].numpy()
            if (values[:7] != before[:7]).any():
                (body.articulation if isinstance(body, LINK) else body.entity).pose = sapien.Pose(
                    values[:3], values[3:7]
                )
                any_changed = True
            if isinstance(body, DYNAMIC):
                if (values[7:10] != before[7:10]).any():
                    body.linear_velocity = values[7:10]
                if (values[10:] != before[10:]).any():
                    body.angular_velocity = values[10:]
            buffer.applied[row] = buffer.data[row]
        return any_changed

    def gpu_update_articulation_kinematics(self) -> None:
        self._stale = False

    # ---- from the simulation into the buffers

    def gpu_fetch_rigid_dynamic_data(self) -> None:
        self._fetch_bodies(self.bodies, slice(0, 13))

    def gpu_fetch_articulation_link_pose(self) -> None:
        assert not self._stale, "link poses fetched before gpu_update_articulation_kinematics"
        self._fetch_bodies(self.links, slice(0, 7))

    def gpu_fetch_articulation_link_velocity(self) -> None:
        self._fetch_bodies(self.links, slice(7, 13))

    def _fetch_bodies(self, bodies: list, columns: slice) -> None:
        for body in bodies:
            pose = body.entity_pose if isinstance(body, LINK) else body.entity.pose
            row = np.concatenate([pose.p, pose.q, body.linear_velocity, body.angular_velocity])
            self.cuda_rigid_body_data.fetch(self.pose_index[body], row[columns], columns)

    def _fetch_joints(self, name: str, read) -> None:
        for row, arm in enumerate(self.arms):
            getattr(self, f"cuda_articulation_{name}").fetch(row, read(arm))

    def gpu_fetch_articulation_qpos(self) -> None:
        self._fetch_joints("qpos", lambda arm: arm.qpos)

    def gpu_fetch_articulation_qvel(self) -> None:
        self._fetch_joints("qvel", lambda arm: arm.qvel)

    def gpu_fetch_articulation_qacc(self) -> None:
        self._fetch_joints("qacc", lambda arm: arm.qacc)

    def gpu_fetch_articulation_target_qpos(self) -> None:
        self._fetch_joints("target_qpos", lambda arm: [joint.drive_target[0] for joint in arm.active_joints])

    def gpu_fetch_articulation_target_qvel(self) -> None:
        """Always zero."""

    # ---- contacts

    def gpu_create_contact_pair_impulse_query(self, body_pairs: list[tuple]) -> SimpleNamespace:
        return SimpleNamespace(pairs=body_pairs, cuda_impulses=Buffer(len(body_pairs), 3))

    def gpu_query_contact_pair_impulses(self, query: SimpleNamespace) -> None:
        totals = {pair: np.zeros(3) for pair in query.pairs}
        for contact in (contact for system in self.systems for contact in system.get_contacts()):
            first, second = contact.bodies
            for pair, sign in (((first, second), 1), ((second, first), -1)):
                if pair in totals:
                    for point in contact.points:
                        totals[pair] += sign * point.impulse
        query.cuda_impulses.data[:] = torch.as_tensor(np.array(list(totals.values()), np.float32))


class EmulatedRenderGroup:
    """`sapien.render.RenderSystemGroup`: all cameras at once."""

    def __init__(self, systems: list) -> None:
        self._scenes = EmulatedEnv.system.scenes

    def set_cuda_poses(self, poses: Buffer) -> None:
        """The scenes know their poses."""

    def update_render(self) -> None:
        for scene in self._scenes:
            scene.update_render()

    def create_camera_group(self, cameras: list, names: list[str]) -> SimpleNamespace:
        def take_picture() -> None:
            for camera in cameras:
                camera.take_picture()

        def get_picture_cuda(name: str) -> SimpleNamespace:
            pictures = torch.from_numpy(np.stack([camera.get_picture(name) for camera in cameras]))
            return SimpleNamespace(torch=lambda: pictures)

        return SimpleNamespace(take_picture=take_picture, get_picture_cuda=get_picture_cuda)


class EmulatedEnv(PickPlaceEnv):
    """The environment with `num_envs` sub-scenes on the emulated system; use it inside `emulated_gpu`."""

    system: EmulatedGpuSystem

    def _setup_scene(self) -> None:
        self._set_scene_config()
        draws = [[sapien.render.RenderSystem()] if self._render_device else [] for _ in range(self.num_envs)]
        scenes = [sapien.Scene([physx.PhysxCpuSystem(), *systems]) for systems in draws]
        EmulatedEnv.system = EmulatedGpuSystem(scenes)
        self.scene = ManiSkillScene(scenes, sim_config=self.sim_config, device=self.device, backend=self.backend)
        self.scene.px, self.scene.gpu_sim_enabled = self.system, True
        self.scene.px.timestep = 1.0 / self._sim_freq


@contextmanager
def emulated_gpu():
    """Lets SAPIEN's and ManiSkill's names for the GPU mean the emulation."""
    index = property(lambda body: EmulatedEnv.system.pose_index.get(body, -1))
    number = property(lambda arm: EmulatedEnv.system.arm_index.get(arm, -1))
    with (
        mock.patch.object(physx, "PhysxGpuSystem", EmulatedGpuSystem),
        mock.patch.object(DYNAMIC, "gpu_pose_index", index),
        mock.patch.object(LINK, "gpu_pose_index", index),
        mock.patch.object(physx.PhysxArticulation, "gpu_index", number),
        mock.patch.object(sapien.render, "RenderSystemGroup", EmulatedRenderGroup),
        mock.patch.object(sapien_env, "CPU_SIM_BACKENDS", set()),
    ):
        yield
