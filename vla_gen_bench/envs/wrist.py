"""Completes the wrist camera's images: adds the table behind the bodies and the episode's image effects."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from vla_gen_bench.envs.cameras import table_seen_from_wrist
from vla_gen_bench.envs.effects import RunningEffects
from vla_gen_bench.envs.effects.camera import table_image
from vla_gen_bench.envs.effects.setup import STANDARD

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv


class WristView:
    """The wrist view of one episode. It has its own effects, because an effect may store this camera's images."""

    def __init__(self, env: PickPlaceEnv) -> None:
        self._link = env.agent.robot.links_map["gripper_link"]
        setups = [replace(setup, camera=STANDARD.camera) for setup in env.setups]
        views = zip(env.specs, setups, strict=True)
        self._tables = [table_image(env.pack, spec.table, setup, env.image_size) for spec, setup in views]
        self.effects = RunningEffects(env, env.specs, ("image",))

    def tables(self) -> torch.Tensor:
        """Returns uint8 [B, H, W, 3], the table in each wrist camera's current view."""
        poses = self._link.pose.raw_pose
        links = poses.double().cpu().numpy()
        seen = [table_seen_from_wrist(*pair) for pair in zip(links, (t.numpy() for t in self._tables), strict=True)]
        return torch.stack([torch.from_numpy(image) for image in seen]).to(poses.device)
