"""Records the states of running episodes, from which their stage and coverage follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from vla_gen_bench.envs import robot
from vla_gen_bench.envs.poses import BodyPoses
from vla_gen_bench.log.coverage import coverage
from vla_gen_bench.log.stages import States, stage

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv

_BASE = Rotation.from_quat(np.roll(robot.BASE_QUATERNION, -1))  # half a turn, so axis-aligned extents do not change


class StateTrace:
    """Create it right after a reset, whose state is the first; call `record` after each step.

    All environments of the batch are recorded. Each step adds one small tensor, on the device of the simulation.
    """

    def __init__(self, env: PickPlaceEnv) -> None:
        self._env = env
        link = env.agent.controller.controllers["arm"].ee_link
        self._end_effector = BodyPoses([link], env.num_envs, env.gpu_sim_enabled)
        self._extents = env.judge.extents["target"].cpu().numpy()
        self._states: list[torch.Tensor] = []  # [B, 17] each
        self._table = np.zeros((0, 0, 0))  # [T+1, B, 17], read from the device once for all rows
        self.record()

    def record(self) -> None:
        """Records the present state without changing it."""
        judge, progress = self._env.judge, self._env.judge.progress
        flags = (judge.touched("target"), judge.grasped, judge.success, progress.wrong_touched, progress.wrong_grasped)
        fingers = self._env.agent.robot.get_qpos()[:, -2:]
        parts = (self._end_effector.read()[0], judge.positions["target"], fingers, torch.stack(flags, dim=1))
        self._states.append(torch.cat(parts, dim=1))

    def states(self, row: int = 0) -> States:
        """Returns the states of environment `row` so far."""
        if len(self._table) < len(self._states):
            self._table = torch.stack(self._states).cpu().numpy().astype(np.float64)
        table = self._table[:, row]
        flags = table[:, 12:].astype(bool)
        return States(
            position=_to_base(table[:, 0:3]),
            rotation=(_BASE.inv() * Rotation.from_quat(np.roll(table[:, 3:7], -1, axis=1))).as_matrix(),
            opening=table[:, 10:12].mean(axis=1),
            target=_to_base(table[:, 7:10]),
            target_extent=self._extents[row],
            **dict(zip(("touched", "grasped", "placed", "wrong_touched", "wrong_grasped"), flags.T, strict=True)),
        )

    def fields(self, row: int = 0) -> dict[str, Any]:
        """Returns `stage` and `coverage` of environment `row`, as the log keeps them."""
        states = self.states(row)
        return {"stage": stage(states), "coverage": coverage(states.position, states.rotation)}


def _to_base(position: np.ndarray) -> np.ndarray:
    return _BASE.inv().apply(position - robot.BASE_POSITION)
