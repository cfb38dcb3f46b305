"""LeRobot's EnvHub entry point: `make_env("user/repo", n_envs=2, trust_remote_code=True)`, or from a checkout.

Each scenario is a task of its own: {suite: {0: vector env of the first scenario, ...}}. Set $VGB_SUITE and
$VGB_SCENARIOS (separated by commas) to choose; needs `pip install vla-gen-bench` beside lerobot.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np


class VgbEnv(gymnasium.Env):
    """One scenario as LeRobot wants an environment: pixels, agent_pos, and success in the info.

    Args:
        suite, scenario, seed, world: Which episodes; every reset takes the next one, `seed` of reset the one it names.
        size: Side of the images; both cameras.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}

    def __init__(
        self,
        suite: str,
        scenario: str,
        seed: int = 0,
        world: str = "builtin",
        size: int = 256,
        render_mode: str = "rgb_array",
    ) -> None:
        from vla_gen_bench.envs.pick_place import PickPlaceEnv
        from vla_gen_bench.episodes.suite import load_suite
        from vla_gen_bench.protocol import HIGHEST, LOWEST, STATE_DIMS

        found = load_suite(suite)
        self._scenario, self._seed, self._world = found.select([scenario])[0], seed, world
        self._env = PickPlaceEnv(world=world, cameras=("external", "wrist"), image_size=(size, size))
        self._index, self._steps = 0, 0
        self._max_episode_steps, self.task, self.render_mode = found.protocol.horizon, scenario, render_mode
        self.task_description = ""
        camera = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Dict(
            {
                "pixels": gymnasium.spaces.Dict({"external": camera, "wrist": camera}),
                "agent_pos": gymnasium.spaces.Box(-np.inf, np.inf, (STATE_DIMS,), np.float32),
            }
        )
        self.action_space = gymnasium.spaces.Box(np.float32(LOWEST), np.float32(HIGHEST), (7,), np.float32)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None):
        from vla_gen_bench.episodes.suite import draw

        super().reset(seed=seed)
        index = self._index if seed is None else seed
        self._index, self._steps = index + 1, 0
        spec = draw(self._scenario, self._world, self._seed, index)
        self._last, _ = self._env.reset(options={"spec": spec})
        self.task_description = spec.instruction
        return self._observed(), {"is_success": False}

    def step(self, action: np.ndarray):
        action = np.clip(np.asarray(action, np.float32), self.action_space.low, self.action_space.high)
        self._last, reward, _, _, info = self._env.step(action[None])
        self._steps += 1
        success, over = bool(info["success"][0]), self._steps >= self._max_episode_steps
        return self._observed(), float(reward[0]), False, over, {"is_success": success}

    def _observed(self) -> dict[str, Any]:
        from vla_gen_bench.envs.proprioception import robot_states

        data = self._last["sensor_data"]
        names = {"external": "3rd_view_camera", "wrist": "wrist_camera"}
        pixels = {name: data[uid]["rgb"][0].cpu().numpy() for name, uid in names.items()}
        return {"pixels": pixels, "agent_pos": robot_states(self._env)[0]}

    def render(self) -> np.ndarray:
        return self._observed()["pixels"]["external"]

    def close(self) -> None:
        self._env.close()


def make_env(n_envs: int = 1, use_async_envs: bool = False, cfg: Any = None) -> dict[str, dict[int, Any]]:
    """Returns {suite: {task: vector env}}, what `lerobot-eval` runs."""
    from vla_gen_bench.episodes.suite import load_suite

    suite = os.environ.get("VGB_SUITE", "execution")
    chosen = os.environ.get("VGB_SCENARIOS")
    scenarios = load_suite(suite).select(chosen.split(",") if chosen else None)
    # Simulators do not survive a fork; LeRobot's asynchronous environments start processes of their own.
    vector = (
        partial(gymnasium.vector.AsyncVectorEnv, context="spawn") if use_async_envs else gymnasium.vector.SyncVectorEnv
    )
    makers: list[list[Callable[[], VgbEnv]]] = [
        [partial(VgbEnv, suite, scenario.id) for _ in range(n_envs)] for scenario in scenarios
    ]
    return {suite: {task: vector(makers[task]) for task in range(len(makers))}}
