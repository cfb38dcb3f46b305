"""The simulated WidowX as an Inspect Robots embodiment, to the contract of `inspect-robots-widowx`.

Same arm, same 5 Hz, same image of 480 x 640, same seven numbers: a policy for that package's arm runs here unchanged.
What differs from the benchmark's own convention is converted here: the gripper is 0 closed .. 1 open.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from inspect_robots.embodiment import EmbodimentInfo
from inspect_robots.scene import Scene
from inspect_robots.spaces import ActionSemantics, Box, CameraSpec, ObservationSpace, StateField, StateSpec
from inspect_robots.types import Action, Observation, StepResult

from vla_gen_bench.envs.pick_place import PickPlaceEnv
from vla_gen_bench.envs.proprioception import robot_states
from vla_gen_bench.episodes.suite import draw, load_suite
from vla_gen_bench.protocol import STATE

LABELS = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
LOW = (-0.05, -0.05, -0.05, -0.25, -0.25, -0.25, 0.0)
HIGH = (0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 1.0)
CAMERA = "external_cam"
HEIGHT, WIDTH = 480, 640
DOCS = """A WidowX-250S in simulation, driven by end-effector displacements as in BridgeData V2.
The base-frame action has six relative pose slots and one absolute gripper target, 0 closed to 1 open."""


class VgbEmbodiment:
    """One arm and one scenario.

    Args:
        suite, scenario: Which episodes; the scene's seed (or its place in the run) is the episode's index.
        seed: Evaluation seed of the suite.
        world: World name.
    """

    def __init__(
        self, suite: str = "all", scenario: str = "ind", seed: int = 0, world: str = "builtin", **_: Any
    ) -> None:
        found = load_suite(suite)
        self._scenario, self._seed, self._world = found.select([scenario])[0], int(seed), world
        self._horizon = found.protocol.horizon
        self._env: PickPlaceEnv | None = None
        self._resets = self._steps = 0
        semantics = ActionSemantics(
            control_mode="eef_delta_pose",
            rotation_repr="none",
            gripper="continuous",
            frame="base",
            dim_labels=LABELS,
        )
        camera = CameraSpec(name=CAMERA, height=HEIGHT, width=WIDTH, channels=3)
        state = StateSpec(fields=(StateField(key="eef_pose", shape=(7,), unit="m+rad+normalized"),))
        self.info = EmbodimentInfo(
            name="vgb",
            action_space=Box(shape=(7,), low=np.array(LOW), high=np.array(HIGH), semantics=semantics),
            observation_space=ObservationSpace(cameras=(camera,), state=state),
            control_hz=5.0,
            is_simulated=True,
            capabilities=frozenset({"seedable", "resettable", "privileged_success"}),
            docs=DOCS,
        )

    def reset(self, scene: Scene, *, seed: int | None = None) -> Observation:
        """Begins episode `seed` of the scenario, the next one without a seed; the sentence is the episode's own."""
        index = self._resets if seed is None else int(seed)
        self._resets, self._steps = self._resets + 1, 0
        if self._env is None:
            self._env = PickPlaceEnv(world=self._world, image_size=(HEIGHT, WIDTH))
        spec = draw(self._scenario, self._world, self._seed, index)
        observation, _ = self._env.reset(options={"spec": spec})
        return self._observed(observation)

    def step(self, action: Action) -> StepResult:
        """Carries out one control step, limits kept as the real arm's server keeps them."""
        if self._env is None:
            raise RuntimeError("step() called before reset()")
        command = np.asarray(action.data, np.float64)
        if command.shape != (7,) or not np.isfinite(command).all():
            raise ValueError("an action is seven finite numbers")
        command = np.clip(command, LOW, HIGH)
        command[6] = 2.0 * command[6] - 1.0
        observation, _, _, _, info = self._env.step(command[None].astype(np.float32))
        self._steps += 1
        success = bool(info["success"][0])
        over = self._steps >= self._horizon  # success counts at the end of the episode, as in the benchmark
        reason = ("success" if success else "failure") if over else None
        return StepResult(
            observation=self._observed(observation),
            reward=float(success),
            terminated=over,
            termination_reason=reason,
            info={"success": success, "spec": self._env.specs[0].digest()},
        )

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _observed(self, observation: dict[str, Any]) -> Observation:
        image = observation["sensor_data"]["3rd_view_camera"]["rgb"][0].cpu().numpy()
        state = robot_states(self._env)[0]
        parts = [state[STATE[name].columns] for name in ("ee_position", "ee_euler", "gripper_opening")]
        return Observation(
            images={CAMERA: image},
            state={"eef_pose": np.concatenate(parts).astype(np.float64)},
            instruction=self._env.instructions[0],
        )
