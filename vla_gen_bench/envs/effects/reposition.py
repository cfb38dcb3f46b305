"""Teleports the target in mid-episode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mani_skill.utils.structs.pose import Pose

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv


class Reposition:
    """Teleports the target once, then runs `settle_substeps` physics substeps while the robot stays driven.

    The next observation shows the object at its simulated position: in the reference, still in mid-air.
    """

    kind = "state"

    def __init__(self, env: PickPlaceEnv, rows: list[int], params: list[dict[str, Any]]) -> None:
        def tensor(values: list, dtype: torch.dtype) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype, device=env.device)

        self._env, self._substeps = env, params[0]["settle_substeps"]
        self._rows = tensor(rows, torch.int64)
        self._step = tensor([row["step"] for row in params], torch.int32)
        self._pose = tensor([[*row["position"], *row["quaternion"]] for row in params], torch.float32)
        self._keep_velocity = tensor([row["keep_velocity"] for row in params], torch.bool)

    def apply(self, steps: torch.Tensor) -> None:
        due = steps == self._step
        if due.any():
            self._move(self._rows[due], self._pose[due], self._keep_velocity[due])
            self._env.simulate(self._substeps)

    def _move(self, rows: torch.Tensor, poses: torch.Tensor, keep_velocity: torch.Tensor) -> None:
        """Moves the targets of sub-scenes `rows` [N] to `poses` [N, 7]; all others stay exactly as they are."""
        actor = next(thing for thing in self._env.things if thing.role == "target").actor
        values = {name: getattr(actor, name).clone() for name in ("linear_velocity", "angular_velocity")}
        moved = actor.pose.raw_pose.clone()
        moved[rows] = poses
        actor.set_pose(Pose.create(moved))
        stopped = rows[~keep_velocity]
        if len(stopped):
            for name, value in values.items():
                value[stopped] = 0
                setattr(actor, name, value)
        if self._env.gpu_sim_enabled:
            self._env.scene.px.gpu_apply_rigid_dynamic_data()
