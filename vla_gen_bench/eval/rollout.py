"""Runs episodes in parallel from specs and a policy; used by `vgb eval`, `replay` and `gallery`."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vla_gen_bench.episodes.spec import EpisodeSpec
from vla_gen_bench.eval.observer import Observer
from vla_gen_bench.protocol import ACTION_DIMS, USUAL, Needs, Observation

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv
    from vla_gen_bench.envs.vector import EnvBatch

FLAGS = ("grasped_ever", "held_ever", "wrong_touched", "wrong_grasped", "wrong_placed")
DISTANCES = ("gripper_target_distance", "gripper_receptacle_distance", "target_receptacle_distance")


class ActionSource(Protocol):
    """The source of actions for `run_episodes`: a `ChunkRunner`, or a recording."""

    needs_observation: bool

    def reset(self, instructions: list[str], seeds: list[int]) -> None: ...  # one of each per episode

    def next_actions(self, observation: Observation | None) -> np.ndarray: ...  # float32 [B, 7], for one control step


class Recording:
    """Plays back recorded actions [T, 7].

    Args:
        every: The policy observed once per this many steps.
    """

    def __init__(self, actions: np.ndarray, every: int = 1) -> None:
        self._actions, self._every, self._step = actions, every, 0

    @property
    def needs_observation(self) -> bool:
        """Matches the policy: traces cover the images it saw."""
        return self._step % self._every == 0

    def reset(self, instructions: list[str], seeds: list[int]) -> None:
        """Does nothing: a recording is made for one episode."""

    def next_actions(self, observation: Observation | None) -> np.ndarray:
        self._step += 1
        return self._actions[self._step - 1][None]


@dataclass
class Episode:
    """The outcome of one episode.

    Attributes:
        row: The fields of its line in the log.
        actions: float32 [T, 7].
        frames: uint8 [H, W, 3] each, T + 1 of them, if requested.
    """

    row: dict[str, Any]
    actions: np.ndarray
    frames: list[np.ndarray] = field(default_factory=list)


def episode_seed(spec: EpisodeSpec) -> int:
    """Returns the seed for the policy's random numbers, below 2**31; it depends on the spec alone."""
    return int(hashlib.sha256(f"policy/{spec.digest()}".encode()).hexdigest(), 16) % 2**31


def run_episodes(
    batch: EnvBatch,
    source: ActionSource,
    specs: Sequence[EpisodeSpec],
    horizon: int,
    *,
    privileged: bool = False,
    record: bool = False,
    needs: Needs = USUAL,
    on_step: Callable[[int], None] | None = None,
) -> list[Episode]:
    """Sets up B = len(specs) episodes in parallel, runs `horizon` control steps and scores them.

    Images that neither the policy nor a recording needs are not rendered; this halves the time of a step. On the CPU
    each outcome equals that of the episode run alone, if the policy's actions do too.

    Args:
        batch: With at least B rows.
        source: The source of actions; it is reset here.
        privileged: Give the policy the simulator's state.
        record: Keep the frames.
        needs: The policy's sensors; the batch must have those cameras.
        on_step: Called with the number of completed steps, after the reset and after each step.

    Raises:
        Exception: Whatever the policy or the simulator raises; this ends all B episodes.
    """
    images = batch.reset(specs)
    kept, observer = _Kept(batch, images, record), Observer(batch, needs, privileged)
    observer.note(images)
    source.reset(list(batch.instructions), [episode_seed(spec) for spec in specs])
    for step in range(horizon):
        if on_step:
            on_step(step)
        seen = observer.observe(images, step) if source.needs_observation else None
        actions = source.next_actions(seen)
        seen_next = source.needs_observation or needs.every_step or step == horizon - 1
        images, _, infos = batch.step(actions, draw=record or seen_next)
        if seen_next:
            observer.note(images)
        kept.add(actions, images, seen_next)
    if on_step:
        on_step(horizon)
    return kept.episodes(infos, horizon)


def run_episode(env: PickPlaceEnv, source: ActionSource, spec: EpisodeSpec, horizon: int, **options: Any) -> Episode:
    """Runs one episode in an environment with one sub-scene; `options` are those of `run_episodes`."""
    from vla_gen_bench.envs.vector import EnvBatch

    return run_episodes(EnvBatch([env]), source, [spec], horizon, **options)[0]


class _Kept:
    """Records the running episodes of a batch.

    An episode's trace is a running hash over the joint angles and body poses of every step, the images the policy
    saw, and the last image: equal digests mean equal episodes.
    """

    def __init__(self, batch: EnvBatch, images: np.ndarray | None, record: bool) -> None:
        from vla_gen_bench.eval.state_trace import StateTrace

        self._batch, self._record = batch, record
        self._states = [StateTrace(env) for env in batch.active]
        self._traces = [hashlib.sha256() for _ in range(len(batch))]
        self._actions: list[np.ndarray] = []
        self._frames: list[list[np.ndarray]] = [[] for _ in range(len(batch))]
        self._look(images, True)

    def add(self, actions: np.ndarray, images: np.ndarray | None, seen: bool) -> None:
        """Records a control step: its actions [B, 7], and the state and images [B, H, W, 3] after it.

        Args:
            seen: Whether the trace covers the images of all cameras at this step.
        """
        self._actions.append(np.array(actions, np.float32))
        for states in self._states:
            states.record()
        self._look(images, seen)

    def _look(self, images: np.ndarray | None, seen: bool) -> None:
        drawn = [*([] if images is None else [images]), *self._batch.views.values()]
        for row, state in enumerate(self._batch.states()):
            self._traces[row].update(state.tobytes())
            if drawn and seen:
                for view in drawn:
                    self._traces[row].update(np.ascontiguousarray(view[row]))
            if drawn and self._record:
                self._frames[row].append(drawn[0][row])

    def episodes(self, infos: dict[str, np.ndarray], horizon: int) -> list[Episode]:
        """Returns the outcomes, in the batch's order; `infos` are those of the last step."""
        actions = np.stack(self._actions, axis=1)  # [B, T, 7]
        return [
            Episode(self._row(place, infos, horizon), actions[place], self._frames[place])
            for place in range(len(self._batch))
        ]

    def _row(self, place: int, infos: dict[str, np.ndarray], horizon: int) -> dict[str, Any]:
        env, row = self._batch.locate(place)
        states = self._states[self._batch.active.index(env)]
        info = {name: values[place] for name, values in infos.items()}
        info["return"] = env.judge.progress.potential[row]
        trace = {"trace": self._traces[place].hexdigest()[:16]}
        return _outcome(info, horizon) | _content(self._batch.specs[place]) | trace | states.fields(row)


def _outcome(info: dict[str, Any], horizon: int) -> dict[str, Any]:
    first = int(info["first_success_step"])
    return {
        "status": "ok",
        "success_at_end": bool(info["success"]),
        "success_once": bool(info["success_once"]),
        "first_success_step": None if first < 0 else first,
        "steps": horizon,
        **{name: bool(info[name]) for name in FLAGS},
        **{name: round(float(info[name]), 6) for name in ("return", *DISTANCES)},
    }


def _content(spec: EpisodeSpec) -> dict[str, Any]:
    return {
        "instruction": spec.instruction,
        "target": spec.target.id,
        "receptacle": spec.receptacle.id,
        "distractors": [item.id for item in (*spec.distractor_objects, *spec.distractor_receptacles)],
        "table": spec.table,
    }


def pack_actions(actions: np.ndarray) -> str:
    """Returns float32 [T, 7] as base64 of zlib."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(actions, "<f4").tobytes(), 6)).decode()


def unpack_actions(text: str) -> np.ndarray:
    """Returns float32 [T, 7]; the inverse of `pack_actions`."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f4").reshape(-1, ACTION_DIMS).copy()
