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

    Forces are those of the last physics substep. `pairs` maps a name to its two bodies; where a sub-scene lacks one of
    them the force is zero.
    """

    def __init__(self, scene: ManiSkillScene, pairs: Mapping[str, tuple[Body, Body]]) -> None:
        self._scene = scene
        self._names = list(pairs)
        if scene.gpu_sim_enabled:
            self._make_query(pairs)
        else:
            self._entities = {
                (first._bodies[0].entity, second._bodies[0].entity): name for name, (first, second) in pairs.items()
            }

    def read(self) -> dict[str, torch.Tensor]:
        return self._read_gpu() if self._scene.gpu_sim_enabled else self._read_cpu()

    def _make_query(self, pairs: Mapping[str, tuple[Body, Body]]) -> None:
        """One query for all pairs of all sub-scenes: to make one stops the GPU, and each costs a call when read."""
        places = [(index, *place) for index, pair in enumerate(pairs.values()) for place in _meetings(*pair)]
        self._query = self._scene.px.gpu_create_contact_pair_impulse_query([bodies for _, _, bodies in places])
        self._pair_index, self._row = (
            torch.tensor([place[i] for place in places], device=self._scene.device) for i in (0, 1)
        )

    def _read_gpu(self) -> dict[str, torch.Tensor]:
        self._scene.px.gpu_query_contact_pair_impulses(self._query)
        impulses = self._query.cuda_impulses.torch()  # [places, 3]
        forces = impulses.new_zeros(len(self._names), self._scene.num_envs, 3)
        forces[self._pair_index, self._row] = impulses / self._scene.px.timestep
        return dict(zip(self._names, forces, strict=True))

    def _read_cpu(self) -> dict[str, torch.Tensor]:
        impulses = {name: np.zeros(3) for name in self._names}
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


def _meetings(first: Body, second: Body) -> list[tuple[int, tuple]]:
    """Returns (sub-scene, (body, body)) for each sub-scene that holds both."""
    theirs = dict(zip(second._scene_idxs.tolist(), second._bodies, strict=True))
    ours = zip(first._scene_idxs.tolist(), first._bodies, strict=True)
    return [(row, (body, theirs[row])) for row, body in ours if row in theirs]
