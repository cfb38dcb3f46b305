"""Watches a batch of episodes: reads poses and contact forces once per control step and applies the task's rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mani_skill.agents.robots.widowx.widowx import WidowX250S
from mani_skill.envs.scene import ManiSkillScene

from vla_gen_bench.envs import task
from vla_gen_bench.envs.contacts import Body, ContactForces
from vla_gen_bench.envs.scene import Thing, rotated_extent

FINGERS = ("left", "right")


class Judge:
    """The state of the task, made when the objects have settled and updated once per control step.

    Attributes:
        progress: Counters and flags kept over the episode.
        grasped, success: [B] bool, now.
        positions: Role, or "gripper" (middle of the finger links) -> [B, 3] metres, world frame, now; NaN where a
            sub-scene has no such thing: no rule holds for it then.
        forces: Name of a pair -> [B, 3] newtons; "left/target" is on the left finger by the target.
        extents: Role -> [B, 3] world-aligned size after settling, metres; fixed for the episode.
    """

    def __init__(self, scene: ManiSkillScene, agent: WidowX250S, things: Sequence[Thing]) -> None:
        self._agent = agent
        self._things = {thing.role: thing for thing in things}
        self._actors = {thing.role: thing.actor for thing in things}
        self._objects = [role for role in self._actors if role == "target" or role.startswith("distractor_object")]
        self._receptacles = [role for role in self._actors if role not in self._objects]
        self._contacts = ContactForces(scene, self._pairs())
        self._batch, self._device = scene.num_envs, scene.device
        self.extents = {role: thing.over(self._batch, self._extent(thing), 0.0) for role, thing in self._things.items()}
        self.progress = task.Progress.start(self._batch, self._device)
        self.update(torch.zeros(self._batch, dtype=torch.int32, device=self._device))

    def update(self, step: torch.Tensor) -> None:
        """Advances everything.

        Args:
            step: [B] control steps done so far, 0 at reset.
        """
        self.forces = self._contacts.read()
        left, right = self._agent.finger1_link.pose, self._agent.finger2_link.pose
        axes = [pose.to_transformation_matrix()[:, :3, 1] for pose in (left, right)]
        self._opening = {"left": axes[0], "right": -axes[1]}
        self.positions = {
            role: thing.over(self._batch, thing.actor.pose.p, torch.nan) for role, thing in self._things.items()
        }
        self.positions["gripper"] = (left.p + right.p) / 2
        self.grasped = self._grasped("target")
        self.success = self._placed("target", "receptacle")
        self.progress.update(step, self.grasped, self.success, self._wrong())

    def info(self) -> dict[str, torch.Tensor]:
        """Returns the flags and distances of the present step, [B] each."""
        progress = self.progress
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
            "gripper_target_distance": self._distance("gripper", "target"),
            "gripper_receptacle_distance": self._distance("gripper", "receptacle"),
            "target_receptacle_distance": self._distance("target", "receptacle"),
        }

    def _pairs(self) -> dict[str, tuple[Body, Body]]:
        """Every pair whose contact force some rule or flag reads."""
        links = dict(zip(FINGERS, (self._agent.finger1_link, self._agent.finger2_link), strict=True))
        pairs = {f"{side}/{role}": (link, self._actors[role]) for role in self._objects for side, link in links.items()}
        for object in self._objects:
            pairs |= {f"{object}/{r}": (self._actors[object], self._actors[r]) for r in self._receptacles}
        return pairs

    def _extent(self, thing: Thing) -> torch.Tensor:
        rotations = thing.actor.pose.to_transformation_matrix()[:, :3, :3].cpu().numpy().astype(np.float64)
        rows = [rotated_extent(body, turn) for body, turn in zip(thing.bodies, rotations, strict=True)]
        return torch.as_tensor(np.stack(rows), device=self._device)

    def _distance(self, a: str, b: str) -> torch.Tensor:
        return torch.linalg.norm(self.positions[a] - self.positions[b], dim=-1)

    def _grasped(self, role: str) -> torch.Tensor:
        left, right = (task.grasping(self.forces[f"{side}/{role}"], self._opening[side]) for side in FINGERS)
        return left & right

    def touched(self, role: str) -> torch.Tensor:
        """Returns [B] bool: a finger touches the object `role` now."""
        left, right = (torch.linalg.norm(self.forces[f"{side}/{role}"], dim=-1) > 0 for side in FINGERS)
        return left | right

    def _placed(self, role: str, receptacle: str) -> torch.Tensor:
        offset = self.positions[role] - self.positions[receptacle]
        contact = self.forces[f"{role}/{receptacle}"]
        return task.placed_on(offset, self.extents[role], self.extents[receptacle], contact)

    def _wrong(self) -> dict[str, torch.Tensor]:
        never = torch.zeros(self._batch, dtype=torch.bool, device=self._device)
        wrong = {"touched": never, "grasped": never, "placed": never}
        for role in self._objects[1:]:
            wrong["touched"] = wrong["touched"] | self.touched(role)
            wrong["grasped"] = wrong["grasped"] | self._grasped(role)
            wrong["placed"] = wrong["placed"] | self._placed(role, "receptacle")
        for receptacle in self._receptacles[1:]:
            wrong["placed"] = wrong["placed"] | self._placed("target", receptacle)
        return wrong
