"""Watches a batch of episodes: reads poses and contact forces once per control step and applies the task's rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mani_skill.agents.robots.widowx.widowx import WidowX250S
from mani_skill.envs.scene import ManiSkillScene
from mani_skill.utils.structs.link import Link

from vla_gen_bench.envs import task
from vla_gen_bench.envs.contacts import Body, ContactForces
from vla_gen_bench.envs.poses import BodyPoses
from vla_gen_bench.envs.scene import Thing, rotated_extent

FINGERS = ("left", "right")


class Judge:
    """The state of the task, created after the objects settle and updated once per control step.

    Attributes:
        progress: Counters and flags kept over the episode.
        grasped, success: [B] bool, current values.
        positions: Role, or "gripper" (middle of the finger links) -> [B, 3] metres, world frame, current; NaN in a
            sub-scene without that body, so no rule holds for it.
        forces: Name of a pair -> [B, 3] newtons; "left/target" is on the left finger by the target.
        extents: Role -> [B, 3] world-aligned size after settling, metres; fixed for the episode.
    """

    def __init__(self, scene: ManiSkillScene, agent: WidowX250S, things: Sequence[Thing]) -> None:
        self._things = {thing.role: thing for thing in things}
        self._objects = [role for role in self._things if role == "target" or role.startswith("distractor_object")]
        self._receptacles = [role for role in self._things if role not in self._objects]
        links = dict(zip(FINGERS, (agent.finger1_link, agent.finger2_link), strict=True))
        self._contacts = ContactForces(scene, self._pairs(links))
        self._batch, self._device = scene.num_envs, scene.device
        self._poses = BodyPoses([*links.values(), *things], self._batch, scene.gpu_sim_enabled)
        self.extents = {role: thing.over(self._batch, self._extent(thing), 0.0) for role, thing in self._things.items()}
        self._placements = self._meetings()
        self._placed_extents = [torch.stack([self.extents[pair[side]] for pair in self._placements]) for side in (0, 1)]
        self._on_cpu = not scene.gpu_sim_enabled  # there, looking at a value does not wait for a device
        self.progress = task.Progress.start(self._batch, self._device)
        self.update(torch.zeros(self._batch, dtype=torch.int32, device=self._device))

    def update(self, step: torch.Tensor) -> None:
        """Advances the task's state by one control step.

        Args:
            step: [B] control steps done so far, 0 at reset.
        """
        forces, poses = self._contacts.read(), self._poses.read()
        self.forces = dict(zip(self._contacts.names, forces, strict=True))
        self.positions = dict(zip(self._things, poses[2:, :, :3], strict=True))
        self.positions["gripper"] = (poses[0, :, :3] + poses[1, :, :3]) / 2
        self._fingers = forces[: 2 * len(self._objects)].view(len(self._objects), 2, self._batch, 3)
        if self._on_cpu and not forces.any():  # every rule needs a force: half of an episode's steps have none
            self.grasped, self.success = torch.zeros(2, self._batch, dtype=torch.bool)
            self.progress.update(step, self.grasped, self.success, {})
            return
        grasped = task.grasping(self._fingers, _openings(poses[:2, :, 3:])).all(1)  # [objects, B]
        placed = self._placed(forces)  # [placements, B]
        self.grasped, self.success = grasped[0], placed[0]
        self.progress.update(step, self.grasped, self.success, self._wrong(grasped, placed))

    def info(self) -> dict[str, torch.Tensor]:
        """Returns the flags and distances of the present step, [B] each."""
        progress, at = self.progress, self.positions
        pairs = (at["gripper"], at["target"]), (at["gripper"], at["receptacle"]), (at["target"], at["receptacle"])
        first, second = (torch.stack(ends) for ends in zip(*pairs, strict=True))
        distances = torch.linalg.norm(first - second, dim=-1)
        return {
            "success": self.success.clone(),
            "success_once": progress.success_ever,
            "first_success_step": progress.first_success_step,
            "grasped": self.grasped,
            "grasped_ever": progress.grasped_ever,
            "consecutive_grasp": progress.hold_steps,
            "held_ever": progress.held_ever,
            "wrong_touched": progress.wrong_touched,
            "wrong_grasped": progress.wrong_grasped,
            "wrong_placed": progress.wrong_placed,
            "gripper_target_distance": distances[0],
            "gripper_receptacle_distance": distances[1],
            "target_receptacle_distance": distances[2],
        }

    def touched(self, role: str) -> torch.Tensor:
        """Returns [B] bool: a finger touches the object `role` now."""
        return self._touched(self._fingers[self._objects.index(role)])

    def _touched(self, fingers: torch.Tensor) -> torch.Tensor:
        return (torch.linalg.norm(fingers, dim=-1) > 0).any(-2)

    def _pairs(self, links: dict[str, Link]) -> dict[str, tuple[Body, Body]]:
        """All pairs whose contact force a rule or flag reads; first, per object, its left and right finger."""
        actors = {role: thing.actor for role, thing in self._things.items()}
        pairs = {f"{side}/{role}": (link, actors[role]) for role in self._objects for side, link in links.items()}
        for object in self._objects:
            pairs |= {f"{object}/{r}": (actors[object], actors[r]) for r in self._receptacles}
        return pairs

    def _meetings(self) -> list[tuple[str, str]]:
        """The object and receptacle of each placement that is checked: the correct one first, then the wrong ones."""
        wrong = [(role, "receptacle") for role in self._objects[1:]]
        return [("target", "receptacle"), *wrong, *(("target", role) for role in self._receptacles[1:])]

    def _extent(self, thing: Thing) -> torch.Tensor:
        rotations = thing.actor.pose.to_transformation_matrix()[:, :3, :3].cpu().numpy().astype(np.float64)
        rows = [rotated_extent(body, turn) for body, turn in zip(thing.bodies, rotations, strict=True)]
        return torch.as_tensor(np.stack(rows), device=self._device)

    def _placed(self, forces: torch.Tensor) -> torch.Tensor:
        """Returns [placements, B] bool."""
        objects, receptacles = (
            torch.stack([self.positions[pair[side]] for pair in self._placements]) for side in (0, 1)
        )
        contacts = torch.stack([self.forces["/".join(pair)] for pair in self._placements])
        return task.placed_on(objects - receptacles, *self._placed_extents, contacts)

    def _wrong(self, grasped: torch.Tensor, placed: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the current wrong contacts and placements that are possible with this episode's bodies."""
        wrong = {}
        if len(grasped) > 1:
            wrong = {"touched": self._touched(self._fingers[1:]).any(0), "grasped": grasped[1:].any(0)}
        if len(placed) > 1:
            wrong["placed"] = placed[1:].any(0)
        return wrong


def _openings(quaternions: torch.Tensor) -> torch.Tensor:
    """Returns [2, B, 3]: the left finger's y axis and the right finger's negated y axis, from wxyz [2, B, 4].

    Repeats the operations of ManiSkill's `quaternion_to_matrix` one by one, to keep the flags bit-identical.
    """
    r, i, j, k = quaternions.unbind(-1)
    two_s = 2.0 / (quaternions * quaternions).sum(-1)
    axes = torch.stack((two_s * (i * j - k * r), 1 - two_s * (i * i + k * k), two_s * (j * k + i * r)), -1)
    return torch.stack((axes[0], -axes[1]))
