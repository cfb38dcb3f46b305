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

    Forces are those of the last physics substep. `pairs` maps a name to its two bodies; in a sub-scene that lacks one
    of them the force is zero.

    Attributes:
        names: Names of the pairs, in the order of the result.
    """

    def __init__(self, scene: ManiSkillScene, pairs: Mapping[str, tuple[Body, Body]]) -> None:
        self._scene = scene
        self.names = list(pairs)
        if scene.gpu_sim_enabled:
            self._make_query(pairs)
        else:
            self._places = {}
            for place, (first, second) in enumerate(pairs.values()):
                first, second = first._bodies[0].entity, second._bodies[0].entity
                self._places |= {(first, second): (place, 1.0), (second, first): (place, -1.0)}

    def read(self) -> torch.Tensor:
        """Returns [pairs, B, 3]: float64 on the CPU, float32 on a GPU."""
        return self._read_gpu() if self._scene.gpu_sim_enabled else self._read_cpu()

    def _make_query(self, pairs: Mapping[str, tuple[Body, Body]]) -> None:
        """Builds one query for all pairs and sub-scenes: building one stalls the GPU, and each costs a call to read."""
        places = [(index, *place) for index, pair in enumerate(pairs.values()) for place in _meetings(*pair)]
        self._query = self._scene.px.gpu_create_contact_pair_impulse_query([bodies for _, _, bodies in places])
        self._pair_index, self._row = (
            torch.tensor([place[i] for place in places], device=self._scene.device) for i in (0, 1)
        )

    def _read_gpu(self) -> torch.Tensor:
        self._scene.px.gpu_query_contact_pair_impulses(self._query)
        impulses = self._query.cuda_impulses.torch()  # [places, 3]
        forces = impulses.new_zeros(len(self.names), self._scene.num_envs, 3)
        forces[self._pair_index, self._row] = impulses / self._scene.px.timestep
        return forces

    def _read_cpu(self) -> torch.Tensor:
        impulses = np.zeros((len(self.names), 1, 3))
        for contact in self._scene.px.get_contacts():
            first, second = contact.bodies
            found = self._places.get((first.entity, second.entity))
            if found is not None:
                place, sign = found
                for point in contact.points:
                    impulses[place, 0] += sign * point.impulse
        return torch.from_numpy(impulses / self._scene.px.timestep)


def _meetings(first: Body, second: Body) -> list[tuple[int, tuple]]:
    """Returns (sub-scene, (body, body)) for each sub-scene that holds both."""
    theirs = dict(zip(second._scene_idxs.tolist(), second._bodies, strict=True))
    ours = zip(first._scene_idxs.tolist(), first._bodies, strict=True)
    return [(row, (body, theirs[row])) for row, body in ours if row in theirs]
