"""Contact forces between named pairs of bodies, read once per control step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from mani_skill.envs.scene import ManiSkillScene
from mani_skill.utils.structs.actor import Actor
from mani_skill.utils.structs.link import Link

Body = Actor | Link


class ContactForces:
    """Reads the force [B, 3], newtons in the world frame, on the first body of each pair by the second.

    Forces are those of the last physics substep. `pairs` maps a name to its two bodies.
    """

    def __init__(self, scene: ManiSkillScene, pairs: Mapping[str, tuple[Body, Body]]) -> None:
        self._scene = scene
        self._pairs = dict(pairs)
        if not scene.gpu_sim_enabled:
            self._entities = {
                (first._bodies[0].entity, second._bodies[0].entity): name
                for name, (first, second) in self._pairs.items()
            }

    def read(self) -> dict[str, torch.Tensor]:
        if self._scene.gpu_sim_enabled:
            return {name: self._scene.get_pairwise_contact_forces(*pair) for name, pair in self._pairs.items()}
        impulses = {name: np.zeros(3) for name in self._pairs}
        for contact in self._scene.px.get_contacts():
            self._add(impulses, contact)
        step = self._scene.px.timestep
        return {name: torch.from_numpy(total / step)[None] for name, total in impulses.items()}

    def _add(self, impulses: dict[str, np.ndarray], contact) -> None:
        first, second = (body.entity for body in contact.bodies)
        name, sign = self._entities.get((first, second)), 1.0
        if name is None:
            name, sign = self._entities.get((second, first)), -1.0
        if name is not None:
            for point in contact.points:
                impulses[name] += sign * point.impulse
