"""One demonstration: an episode of the training pools, driven by a policy and labelled by the expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_gen_bench.assets.world import CAMERA, WRIST_CAMERA
from vla_gen_bench.envs.proprioception import robot_states
from vla_gen_bench.episodes.draw import draw_training, with_roles_swapped
from vla_gen_bench.episodes.shift import Shift
from vla_gen_bench.episodes.spec import EpisodeSpec
from vla_gen_bench.policies.contract import check_actions, guarded
from vla_gen_bench.policies.expert import Expert
from vla_gen_bench.policies.expert.motion import euler_xyz
from vla_gen_bench.protocol import EXTERNAL, WRIST, Observation, Policy
from vla_gen_bench.train.demos.disturbance import Disturbance
from vla_gen_bench.train.resize import squashed
from vla_gen_bench.train.starts import Wander

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv
    from vla_gen_bench.envs.privileged import PrivilegedState

SETTLED_STEPS = 6  # an episode ends after this many successful steps, as in the reference's data
TURN_PART = 0.1  # share of the steps at which driver and expert swap in a relabelling round
TURN_STREAM = 0x7124


@dataclass(frozen=True)
class Demo:
    """T frames of one episode, each taken before its action.

    Attributes:
        images: uint8 [T, S, S, 3], RGB.
        foreground: uint8 [T, S, S], 255 on robot and objects, 0 where the table image shows.
        actions: float32 [T, 7], the expert's label: metres, radians, gripper +1 open or -1 closed.
        executed: float32 [T, 7], the action that moved the robot: the disturbed label, or another driver's action.
        states: float32 [T, 7], measured: end effector [3] metres and Euler XYZ [3] radians in the base frame, mean
            finger joint position in metres.
        observed: float32 [T, 17], the state that a policy sees, `protocol.STATE`; None for synthetic ones.
        wrist: uint8 [T, S, S, 3], from the wrist camera if there is one.
    """

    spec: EpisodeSpec
    success: bool
    images: np.ndarray
    foreground: np.ndarray
    actions: np.ndarray
    executed: np.ndarray
    states: np.ndarray
    observed: np.ndarray | None = None
    wrist: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.actions)


@dataclass
class Demonstrator:
    """Runs episodes in an environment built with `obs_mode="rgb+segmentation"`.

    Attributes:
        side: S, pixels; the image is resized to S x S like the processor does (Pillow, bicubic).
        noise: Scale of the disturbances, see `Disturbance`.
        wander: Random moves before the expert takes over; not recorded.
        driver: Another policy to take turns with the expert (DAgger, Ross et al. 2011); the labels stay the expert's.
        label: The driver's name in errors, `Card.label`.
        horizon: Longest episode, control steps.
        shift: The shift from in-distribution episodes.
        swap: Two episodes per scene: every second one exchanges the roles of target and first distractor object.
    """

    env: PickPlaceEnv
    side: int
    noise: float = 1.0
    wander: Wander = Wander()
    driver: Policy | None = None
    horizon: int = 80
    shift: Shift | None = None
    swap: bool = False
    label: str = "policy"

    def run(self, seed: int, index: int) -> Demo:
        """Returns training episode `index` of `seed`, successful or not; equal arguments give equal demos.

        Raises:
            PolicyError: The driver raised, or returned something other than valid float32 [1, K, 7].
        """
        spec = self._spec(seed, index)
        observation, _ = self.env.reset(options={"spec": spec})
        moves = self.wander.moves(seed, 0, index)
        for place, move in enumerate(moves):
            self.env.draws = place == len(moves) - 1
            observation, *_ = self.env.step(move)
        expert = Expert(close_steps=1)
        expert.reset([spec.instruction], [0])
        act = self._driver(spec) if self.driver else Disturbance(seed, index, self.noise).apply
        frames: list[tuple] = []
        placed = 0
        for step in range(self.horizon):
            state = self.env.privileged_state(0)
            placed = placed + 1 if state.success else 0
            if placed > SETTLED_STEPS:
                break
            observed = robot_states(self.env)
            seen = Observation(
                image_of(observation), (spec.instruction,), np.array([step], np.int64), [state], observed,
                {WRIST: image_of(observation, WRIST)} if WRIST in self.env.cameras else {},
            )  # fmt: skip
            label = expert.act(seen)[0, 0]
            executed = act(label, seen) if self.driver else act(label)
            wrist = squashed(seen.images[WRIST][0], self.side) if WRIST in self.env.cameras else np.zeros(0, np.uint8)
            frames.append((*self._pictures(observation), wrist, label, executed, measured(state), observed[0]))
            observation, *_ = self.env.step(executed.astype(np.float32))
        success = bool(self.env.privileged_state(0).success)
        images, foreground, wrist, *numbers = (np.stack(column) for column in zip(*frames, strict=True))
        numbers = (column.astype(np.float32) for column in numbers)
        return Demo(spec, success, images, foreground, *numbers, wrist if WRIST in self.env.cameras else None)

    def _spec(self, seed: int, index: int) -> EpisodeSpec:
        if not self.swap:
            return draw_training(self.env.world.name, seed, index, self.shift)
        spec = draw_training(self.env.world.name, seed, index // 2, self.shift)
        return with_roles_swapped(spec) if index % 2 else spec

    def _driver(self, spec: EpisodeSpec) -> Any:
        """Returns a function of label and observation: the driver's action, or the label during the expert's turns."""
        random = np.random.default_rng((TURN_STREAM, spec.seed, spec.index))
        guarded(self.label, "reset", self.driver.reset, [spec.instruction], [int(random.integers(2**31))])
        drives = random.random() < 0.7

        def act(label: np.ndarray, seen: Observation) -> np.ndarray:
            nonlocal drives
            drives = drives != (random.random() < TURN_PART)
            return self._driven(seen) if drives else label

        return act

    def _driven(self, seen: Observation) -> np.ndarray:
        actions = guarded(self.label, "act", self.driver.act, seen)
        check_actions(self.label, actions, 1, self.driver.action_spec)
        return actions[0, 0].copy()  # a policy may reuse its output array

    def _pictures(self, observation: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        data = observation["sensor_data"][CAMERA]
        foreground = self.env.foreground(data["segmentation"])[0].cpu().numpy()
        return squashed(image_of(observation)[0], self.side), squashed(foreground.astype(np.uint8) * 255, self.side)


def image_of(observation: dict[str, Any], camera: str = EXTERNAL) -> np.ndarray:
    """Returns the image of a camera, uint8 [1, H, W, 3]."""
    uid = {EXTERNAL: CAMERA, WRIST: WRIST_CAMERA}[camera]
    return observation["sensor_data"][uid]["rgb"].cpu().numpy()


def measured(state: PrivilegedState) -> np.ndarray:
    """Returns the `Demo.states` row of a simulator state."""
    return np.concatenate([state.position, euler_xyz(state.rotation), [state.qpos[6:].mean()]])
