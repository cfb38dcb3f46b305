"""One environment on the CPU in gymnasium's own terms: numpy arrays, no batch, plain spaces."""

from __future__ import annotations

import math
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from vla_gen_bench.envs.cameras import UIDS
from vla_gen_bench.envs.pick_place import CONTROL_FREQUENCY, PickPlaceEnv
from vla_gen_bench.envs.proprioception import robot_states
from vla_gen_bench.episodes.suite import load_suite
from vla_gen_bench.protocol import ACTION_DIMS, EXTERNAL, STATE

ID = "VGB/PickPlace-v1"
# The motion of an action of 1, metres and radians; the gripper is +1 open, -1 closed.
ACTION_SCALE = np.float32([0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 1.0])
Seen = Literal["image", "state", "both"]
# Far beyond the robot's range: keeps spaces finite and every state inside them.
STATE_LIMITS = {"ee_position": 3.0, "ee_quaternion": 1.01, "ee_euler": 3.2, "joint_angles": 4 * math.pi}
STATE_LIMITS["gripper_opening"] = 5.0


class SinglePickPlace(gym.Env):
    """`PickPlaceEnv` for libraries of reinforcement learning.

    Observation space: "image" is a Box, uint8 [H, W, 3], what the camera sees; "state" a Box, float32 [17], the robot's
    own state laid out as `protocol.STATE`; "both" a Dict of the two. The sentence is `info["instruction"]`.
    Action space: Box, float32 [7] in [-1, 1]: `PickPlaceEnv`'s actions divided by `ACTION_SCALE`. An episode is
    truncated after the suite's horizon, 80 steps by default; success, which may be lost again, is `info["success"]`.
    The reward is `PickPlaceEnv`'s, a float.

    Args:
        scenario, suite, world: Source of the episodes that a reset draws.
        observation: See above.
        image_size: Height and width in pixels; None = the world's.
        render_mode: "rgb_array" or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_FREQUENCY}

    def __init__(
        self,
        scenario: str = "ind",
        suite: str = "all",
        world: str = "builtin",
        observation: Seen = "both",
        image_size: tuple[int, int] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode, self._wanted = render_mode, observation
        options = {"world": world, "suite": suite, "scenario": scenario, "image_size": image_size}
        self.inner = PickPlaceEnv(num_envs=1, obs_mode="rgb", sim_backend="physx_cpu", **options)
        self.inner.draws = observation != "state"
        self.observation_space = _space(observation, self.inner.image_size)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (ACTION_DIMS,), np.float32)
        self._steps, self._horizon = 0, load_suite(suite).protocol.horizon

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; `seed` and `options` as in `PickPlaceEnv.reset`."""
        super().reset(seed=seed)
        seen, info = self.inner.reset(seed=seed, options=options)
        self._steps = 0
        return self._observation(seen), self._info(self.inner.evaluate())

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, _, _, info = self.inner.step((np.asarray(action, np.float32) * ACTION_SCALE)[None])
        self._steps += 1
        return self._observation(seen), float(reward), False, self._steps >= self._horizon, self._info(info)

    def render(self) -> np.ndarray | None:
        """Returns what the camera sees, uint8 [H, W, 3]; None without a render mode."""
        return self.inner.render_rgb_array()[0].numpy().copy() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.inner.close()

    def _observation(self, seen: dict[str, Any]) -> Any:
        if self._wanted == "state":
            return robot_states(self.inner)[0]
        image = seen["sensor_data"][UIDS[EXTERNAL]]["rgb"][0].numpy().copy()
        return image if self._wanted == "image" else {"image": image, "state": robot_states(self.inner)[0]}

    def _info(self, info: dict[str, Any]) -> dict[str, Any]:
        values = {name: value[0].item() for name, value in info.items() if hasattr(value, "shape") and len(value) == 1}
        return {**values, "elapsed_steps": self._steps, "instruction": self.inner.instructions[0]}


def make_cpu_env(**options: Any) -> SinglePickPlace:
    """Returns one environment on the CPU with numpy arrays and plain spaces; arguments are `SinglePickPlace`'s.

    It passes gymnasium's `check_env`, and works with its wrappers, stable-baselines3 and vector environments (with
    `context="spawn"`: the simulator does not survive a fork).
    """
    return gym.make(ID, disable_env_checker=True, **options).unwrapped


def _space(observation: Seen, size: tuple[int, int]) -> gym.Space:
    limits = np.concatenate([np.full(len(part.names), STATE_LIMITS[name]) for name, part in STATE.items()])
    spaces: dict[str, gym.Space] = {
        "image": gym.spaces.Box(0, 255, (*size, 3), np.uint8),
        "state": gym.spaces.Box(np.float32(-limits), np.float32(limits), dtype=np.float32),
    }
    if observation not in ("both", *spaces):
        raise ValueError(f"observation: {observation!r}; expected image, state or both")
    return gym.spaces.Dict(spaces) if observation == "both" else spaces[observation]


if ID not in gym.registry:
    gym.register(ID, entry_point="vla_gen_bench.envs.single:SinglePickPlace")
