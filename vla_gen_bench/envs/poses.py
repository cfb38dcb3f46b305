"""Body poses in one tensor, because on the CPU a tensor of one element costs as much as one of a hundred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sapien
import torch
from mani_skill.utils.structs.link import Link

from vla_gen_bench.envs.scene import Thing

Body = Link | Thing


class BodyPoses:
    """Reads the poses of links and bodies, world frame: metres, wxyz.

    Args:
        bodies: In the order of the result.
        batch: B, the number of sub-scenes.
    """

    def __init__(self, bodies: Sequence[Body], batch: int, on_gpu: bool) -> None:
        self._bodies, self._batch = list(bodies), batch
        self._single = None if on_gpu else [_simulated(body) for body in bodies]

    def read(self) -> torch.Tensor:
        """Returns float32 [N, B, 7]; NaN where a sub-scene lacks a body."""
        if self._single is not None:
            return torch.from_numpy(np.stack([vector(body) for body in self._single])[:, None])
        return torch.stack([self._everywhere(body) for body in self._bodies])

    def _everywhere(self, body: Body) -> torch.Tensor:
        if isinstance(body, Thing):
            return body.over(self._batch, body.actor.pose.raw_pose, torch.nan)
        return body.pose.raw_pose


def _simulated(body: Body) -> sapien.Entity:
    """Returns a body's only entity in a CPU scene."""
    (found,) = (body.actor if isinstance(body, Thing) else body)._objs
    return found if isinstance(found, sapien.Entity) else found.entity


def vector(entity: sapien.Entity) -> np.ndarray:
    """Returns float32 [7], position and quaternion."""
    pose = entity.pose
    return np.concatenate([pose.p, pose.q])
