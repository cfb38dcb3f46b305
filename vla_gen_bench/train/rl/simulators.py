"""Simulators for rollouts: episodes in lanes, stepped in this process or by worker processes.

A lane is a batch of episodes in lock-step. While the policy computes for one lane, the others are stepped:

    simulator.reset(lane, starts)               # returns at once
    seen = simulator.result(lane)               # waits; images as the model takes them
    simulator.step(lane, actions)               # float32 [B, K, 7], returns at once
    seen = simulator.result(lane)               # and so on

`sim_workers` does this in worker processes, `ray_workers` in actors of a cluster. The process that steps an episode
does not affect it (`envs.vector`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from vla_gen_bench.train.resize import squashed
from vla_gen_bench.train.rl.state_numbers import state_numbers
from vla_gen_bench.train.starts import Start

if TYPE_CHECKING:
    from vla_gen_bench.envs.vector import EnvBatch, Step

KEPT_INFOS = ("success", "success_once", "held_ever")

Build = Callable[[int], "EnvBatch"]
"""Makes a batch of so many scenes, for example `partial(scenes, "builtin", "cpu")`; travels to worker processes."""


def scenes(world: str, simulation: str, count: int) -> EnvBatch:
    """Returns `count` scenes of `world`, simulated on "cpu" or "gpu"."""
    from vla_gen_bench.envs.factory import build_batch

    return build_batch(world, count, simulation)


class LostWorkerError(Exception):
    """A worker died, hung or raised; its running episodes are lost."""


class Seen(NamedTuple):
    """The state of a lane.

    Attributes:
        images: uint8 [B, H, W, 3], as `View` keeps them; valid until the lane is stepped.
        rewards: float32 [B, K] of the K control steps just done; None after a reset.
        infos: Name -> [B], those of `KEPT_INFOS`; empty after a reset. If `View.states`, also "states", float32
            [B, K, NUMBERS], the simulator's state after each control step ([B, 1, NUMBERS] after a reset).
        busy_s: Total seconds of all workers for it.
    """

    images: np.ndarray
    rewards: np.ndarray | None
    infos: dict[str, np.ndarray]
    busy_s: float


@dataclass(frozen=True)
class View:
    """The form in which a camera image is kept, and whether the simulator's state is kept too.

    Attributes:
        height, width: Size of the camera image, pixels.
        side: The image is resized to side x side with Pillow's bicubic filter; None = kept as it is.
        states: Whether to keep what a critic of the simulator's state reads, see `state_numbers`.
    """

    height: int
    width: int
    side: int | None = None
    states: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, 3) if self.side is None else (self.side, self.side, 3)

    def keep(self, images: np.ndarray, out: np.ndarray) -> None:
        """Writes camera images, uint8 [B, height, width, 3], into `out`, uint8 [B, *shape]."""
        for place, image in enumerate(images):
            out[place] = image if self.side is None else squashed(image, self.side)


class Simulator(Protocol):
    """The interface that a collector needs; see the module."""

    lanes: int
    width: int
    view: View

    def reset(self, lane: int, starts: Sequence[Start]) -> None: ...  # returns at once

    def step(self, lane: int, actions: np.ndarray) -> None: ...  # float32 [B, K, 7]; returns at once

    def result(self, lane: int) -> Seen: ...  # waits for the last reset or step of the lane

    def close(self) -> None: ...


class Stage:
    """The episodes one process steps: one batch per lane, created on first use."""

    def __init__(self, build: Build, view: View, size: int) -> None:
        self._build, self._view, self._size = build, view, size
        self._batches: dict[int, EnvBatch] = {}

    def reset(self, lane: int, starts: Sequence[Start], out: np.ndarray) -> tuple[None, dict]:
        if lane not in self._batches:
            self._batches[lane] = self._build(self._size)
        images = self._batches[lane].reset([start.spec for start in starts])
        moves = np.stack([start.moves for start in starts], axis=1)
        if len(moves):
            images = list(self._carry_out(lane, moves))[-1].images
        self._view.keep(images, out)
        return None, self._kept(self._state(lane))

    def step(self, lane: int, actions: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, dict]:
        steps, states = [], []
        for step in self._carry_out(lane, actions.swapaxes(0, 1)):
            steps.append(step)
            states += self._state(lane)
        self._view.keep(steps[-1].images, out)
        rewards = np.stack([step.rewards for step in steps], axis=1)
        return rewards, {name: np.array(steps[-1].infos[name]) for name in KEPT_INFOS} | self._kept(states)

    def _carry_out(self, lane: int, actions: np.ndarray) -> Iterator[Step]:
        """Carries out actions, [K, B, 7]; only the result of the last one is rendered."""
        last = len(actions) - 1
        for k, rows in enumerate(actions):
            yield self._batches[lane].step(rows, draw=k == last)

    def _state(self, lane: int) -> list[np.ndarray]:
        """Returns the present states of the lane, [B, NUMBERS], in a list; an empty one if the view keeps none."""
        if not self._view.states:
            return []
        return [np.stack([state_numbers(state) for state in self._batches[lane].privileged()])]

    @staticmethod
    def _kept(states: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {"states": np.stack(states, axis=1)} if states else {}

    def close(self) -> None:
        for batch in self._batches.values():
            batch.close()


class LocalSimulator:
    """Steps in this process: for GPU simulation, where one process holds all scenes, and for tests."""

    def __init__(self, build: Build, view: View, width: int, lanes: int = 1) -> None:
        self.lanes, self.width, self.view = lanes, width, view
        self._stage = Stage(build, view, width)
        self._pictures = np.empty((lanes, width, *view.shape), np.uint8)
        self._seen: dict[int, Seen] = {}

    def reset(self, lane: int, starts: Sequence[Start]) -> None:
        self._do(self._stage.reset, lane, starts)

    def step(self, lane: int, actions: np.ndarray) -> None:
        self._do(self._stage.step, lane, actions)

    def _do(self, work: Callable, lane: int, content: Any) -> None:
        start, images = time.perf_counter(), self._pictures[lane, : len(content)]
        rewards, infos = work(lane, content, images)
        self._seen[lane] = Seen(images, rewards, infos, time.perf_counter() - start)

    def result(self, lane: int) -> Seen:
        return self._seen.pop(lane)

    def close(self) -> None:
        self._stage.close()
