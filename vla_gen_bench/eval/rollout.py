"""One episode from a spec and a policy: what `vgb eval`, `replay` and `gallery` all run."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vla_gen_bench.policies.protocol import ACTION_DIMS, Observation
from vla_gen_bench.spec import EpisodeSpec
from vla_gen_bench.world import CAMERA

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv

FLAGS = ("grasped_ever", "held_ever", "wrong_touched", "wrong_grasped", "wrong_placed")
DISTANCES = ("gripper_target_distance", "gripper_receptacle_distance", "target_receptacle_distance")


class ActionSource(Protocol):
    """What `run_episode` asks for actions: a `ChunkRunner`, or a recording."""

    needs_observation: bool

    def reset(self, instructions: list[str], seeds: list[int]) -> None: ...

    def next_actions(self, observation: Observation | None) -> np.ndarray: ...


class Recording:
    """Plays back recorded actions [T, 7]."""

    needs_observation = False

    def __init__(self, actions: np.ndarray) -> None:
        self._actions = iter(actions)

    def reset(self, instructions: list[str], seeds: list[int]) -> None:
        """Nothing to do: a recording is made for one episode."""

    def next_actions(self, observation: Observation | None) -> np.ndarray:
        return next(self._actions)[None]


@dataclass
class Episode:
    """The outcome of one episode.

    Attributes:
        row: The fields of its line in the log.
        actions: float32 [T, 7].
        frames: uint8 [H, W, 3] each, T + 1 of them, if they were asked for.
    """

    row: dict[str, Any]
    actions: np.ndarray
    frames: list[np.ndarray] = field(default_factory=list)


def episode_seed(spec: EpisodeSpec) -> int:
    """Returns the seed a policy draws its own random numbers from: a function of the spec alone, below 2**31."""
    return int(hashlib.sha256(f"policy/{spec.digest()}".encode()).hexdigest(), 16) % 2**31


def run_episode(
    env: PickPlaceEnv,
    source: ActionSource,
    spec: EpisodeSpec,
    horizon: int,
    *,
    privileged: bool = False,
    record: bool = False,
    on_step: Callable[[int], None] | None = None,
) -> Episode:
    """Realises `spec`, runs `horizon` control steps and judges them.

    Args:
        env: With one environment.
        source: Where actions come from; it is reset here.
        privileged: Hand the simulator's state to the policy.
        record: Keep the frames.
        on_step: Called with the number of steps done, after the reset and after each step.
    """
    from vla_gen_bench.eval.state_trace import StateTrace

    observation, _ = env.reset(options={"spec": spec})
    states = StateTrace(env)
    source.reset([spec.instruction], [episode_seed(spec)])
    actions, frames, trace = [], [], hashlib.sha256()
    _trace(trace, env, observation)
    for step in range(horizon):
        if on_step:
            on_step(step)
        if record:
            frames.append(_image(observation)[0])
        seen = _observe(env, observation, spec, step, privileged) if source.needs_observation else None
        action = source.next_actions(seen)
        actions.append(action[0].copy())
        observation, _, _, _, info = env.step(action)
        states.record()
        _trace(trace, env, observation)
    if on_step:
        on_step(horizon)
    if record:
        frames.append(_image(observation)[0])
    row = _judge(info, spec, horizon, trace.hexdigest()[:16], env) | states.fields()
    return Episode(row, np.asarray(actions, np.float32).reshape(-1, ACTION_DIMS), frames)


def _image(observation: dict[str, Any]) -> np.ndarray:
    return observation["sensor_data"][CAMERA]["rgb"].cpu().numpy()


def _observe(env: PickPlaceEnv, observation: dict, spec: EpisodeSpec, step: int, privileged: bool) -> Observation:
    views = [env.privileged_state(0)] if privileged else None
    blind = "sensor_data" not in observation  # an environment without rendering, for privileged policies
    image = np.zeros((1, *env.image_size, 3), np.uint8) if blind else _image(observation)
    return Observation(image, (spec.instruction,), np.array([step], np.int64), views)


def _trace(trace: Any, env: PickPlaceEnv, observation: dict[str, Any]) -> None:
    """Feeds joint angles, body poses and the image into a running hash: equal digests mean equal episodes."""
    trace.update(env.agent.robot.get_qpos().cpu().numpy().tobytes())
    for thing in env.things:
        trace.update(thing.actor.pose.raw_pose.cpu().numpy().tobytes())
    if "sensor_data" in observation:
        trace.update(_image(observation).tobytes())


def _judge(info: dict[str, Any], spec: EpisodeSpec, horizon: int, trace: str, env: PickPlaceEnv) -> dict[str, Any]:
    first = int(info["first_success_step"][0])
    return {
        "status": "ok",
        "success_at_end": bool(info["success"][0]),
        "success_once": bool(info["success_once"][0]),
        "first_success_step": None if first < 0 else first,
        "steps": horizon,
        **{name: bool(info[name][0]) for name in FLAGS},
        "return": round(float(env.judge.progress.potential[0]), 6),
        **{name: round(float(info[name][0]), 6) for name in DISTANCES},
        "instruction": spec.instruction,
        "target": spec.target.id,
        "receptacle": spec.receptacle.id,
        "distractors": [item.id for item in (*spec.distractor_objects, *spec.distractor_receptacles)],
        "table": spec.table,
        "trace": trace,
    }


def pack_actions(actions: np.ndarray) -> str:
    """Returns float32 [T, 7] as base64 of zlib."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(actions, "<f4").tobytes(), 6)).decode()


def unpack_actions(text: str) -> np.ndarray:
    """Returns float32 [T, 7]; the inverse of `pack_actions`."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f4").reshape(-1, ACTION_DIMS).copy()
