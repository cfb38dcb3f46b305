"""A suite as a benchmark of vla-eval: `benchmark: vgb_vla_eval:VgbBenchmark` in its configuration.

One task per scenario; episode i of a task is episode i of the suite, the one `vgb eval` runs.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from vla_eval.benchmarks.base import StepBenchmark, StepResult
from vla_eval.specs import GRIPPER_01, IMAGE_RGB, LANGUAGE, POSITION_DELTA, RAW, ROTATION_EULER, DimSpec

ACTION_DIMS = 7


class VgbBenchmark(StepBenchmark):
    """One arm in simulation.

    Args:
        suite, scenarios: Which rows; None = all of the suite.
        seed: Evaluation seed of the suite.
        world: World name.
        send_wrist_image, send_state: As a model server asks for them in its hello.
    """

    render_backends: ClassVar[frozenset[str]] = frozenset({"cpu", "gpu"})

    def __init__(
        self,
        suite: str = "all",
        scenarios: list[str] | None = None,
        seed: int = 0,
        world: str = "builtin",
        send_wrist_image: bool = False,
        send_state: bool = False,
    ) -> None:
        super().__init__()
        from vla_gen_bench.episodes.suite import load_suite

        self._suite, self._seed, self._world = load_suite(suite), seed, world
        self._scenarios = {scenario.id: scenario for scenario in self._suite.select(scenarios)}
        self._wrist, self._state, self._env, self._steps = send_wrist_image, send_state, None, 0

    @classmethod
    def configure_render(cls, mode: str) -> dict[str, str]:
        """SAPIEN finds its own device; nothing has to be set."""
        return {}

    def get_tasks(self) -> list[dict[str, Any]]:
        return [{"name": id, "suite": self._suite.id} for id in self._scenarios]

    def reset(self, task: dict[str, Any]) -> dict[str, Any]:
        """Begins the episode `task["episode_idx"]` of a scenario."""
        from vla_gen_bench.envs.pick_place import PickPlaceEnv
        from vla_gen_bench.episodes.suite import draw

        if self._env is None:
            cameras = ("external", "wrist") if self._wrist else ("external",)
            self._env = PickPlaceEnv(world=self._world, cameras=cameras)
        self._steps = 0
        index = int(task.get("episode_idx", 0))
        spec = draw(self._scenarios[task["name"]], self._world, self._seed, index)
        return self._env.reset(options={"spec": spec})[0]

    def step(self, action: dict[str, Any]) -> StepResult:
        """Carries out one action; the gripper is 0 closed .. 1 open, as the action spec says."""
        command = np.array(action["actions"], np.float32).reshape(-1, ACTION_DIMS)[0]
        command[6] = 2.0 * np.clip(command[6], 0.0, 1.0) - 1.0
        observation, reward, _, _, info = self._env.step(command[None])
        self._steps += 1
        success = {name: bool(info[name][0]) for name in ("success", "success_once")}
        return StepResult(observation, float(reward[0]), self._steps >= self._suite.protocol.horizon, success)

    def make_obs(self, raw_obs: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
        names = {"3rd_view_camera": "external", "wrist_camera": "wrist"}
        drawn = raw_obs["sensor_data"]
        images = {names[uid]: data["rgb"][0].cpu().numpy() for uid, data in drawn.items()}
        observation = {"images": images, "task_description": self._env.instructions[0]}
        if self._state:
            from vla_gen_bench.envs.proprioception import robot_states

            observation["states"] = robot_states(self._env)[0]
        return observation

    def get_step_result(self, step_result: StepResult) -> dict[str, Any]:
        return {"success": False, **step_result.info}

    def get_action_spec(self) -> dict[str, DimSpec]:
        return {"position": POSITION_DELTA, "rotation": ROTATION_EULER, "gripper": GRIPPER_01}

    def get_observation_spec(self) -> dict[str, DimSpec]:
        return {"image": IMAGE_RGB, "language": LANGUAGE, **({"state": RAW} if self._state else {})}

    def get_metric_keys(self) -> dict[str, str]:
        return {"success": "mean", "success_once": "mean"}

    def get_metadata(self) -> dict[str, Any]:
        return {"suite_digest": self._suite.digest(), "max_steps": self._suite.protocol.horizon}

    def cleanup(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None
