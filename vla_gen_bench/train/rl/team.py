"""Steps lanes of episodes on several workers: processes of this machine, or actors of a cluster.

Each worker takes its share of every lane. A lost worker is replaced; the new one resets the lost running episodes and
repeats their actions, so no other episode is affected and the outcome is the same.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from vla_gen_bench.errors import UserError
from vla_gen_bench.train.rl.simulators import LostWorkerError, Seen, Stage, View
from vla_gen_bench.train.starts import Start

START_LIMIT_S, STEP_LIMIT_S = 600.0, 300.0
TRIES = 3

Order = tuple[str, Any]
"""A method of `Stage`, "reset" or "step", and its argument."""

Answer = tuple["np.ndarray | None", dict[str, np.ndarray], float]
"""Rewards [B, K] (None after a reset), infos, and the seconds it took."""


class Worker(Protocol):
    """Carries out orders on a `Stage` elsewhere."""

    def ask(self, lane: int, rows: slice, orders: Sequence[Order]) -> None:
        """Sends orders for these rows of a lane; returns at once. A lost worker is reported by `answer`."""

    def answer(self, lane: int) -> Answer:
        """Waits for the lane's last order, after which its images are in place.

        Raises:
            LostWorkerError: The worker died, hung or failed.
            UserError: What it is to simulate cannot be simulated.
        """
        ...

    def kill(self) -> None: ...

    def stop(self) -> None: ...


def carry_out(stage: Stage, lane: Any, orders: Sequence[Order], out: np.ndarray) -> tuple[str, Any]:
    """Carries out orders in a worker.

    Returns:
        ("done", the last order's `Answer`), or "refused" or "failed" and a reason.
    """
    from vla_gen_bench.policies.contract import describe_failure

    start = time.perf_counter()
    try:
        for verb, content in orders:
            rewards, infos = getattr(stage, verb)(lane, content, out)
    except UserError as error:
        return "refused", str(error)
    except Exception as error:
        return "failed", describe_failure(error)
    return "done", (rewards, infos, time.perf_counter() - start)


def opened(kind: str, content: Any) -> Any:
    """Returns the content of what `carry_out` returned if it is "done"; raises the error of a worker otherwise."""
    if kind == "refused":
        raise UserError(content)
    if kind == "failed":
        raise LostWorkerError(content)
    return content


@dataclass
class _Run:
    """The running episodes of a lane: their starts, each worker's rows, the actions so far, [B, K, 7] each."""

    starts: list[Start]
    rows: list[slice]
    actions: list[np.ndarray] = field(default_factory=list)
    losses: Counter = field(default_factory=Counter)

    @classmethod
    def dealt(cls, starts: Sequence[Start], workers: int) -> _Run:
        parts = np.array_split(np.arange(len(starts)), workers)
        return cls(list(starts), [slice(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)])

    def orders(self, place: int, running: bool) -> list[Order]:
        """Returns the next orders to a worker; one that does not hold the episodes yet repeats them."""
        rows = self.rows[place]
        orders = [("step", self.actions[-1][rows])] if self.actions else []
        return orders if running and orders else [("reset", self._restarts(rows)), *orders]

    def _restarts(self, rows: slice) -> list[Start]:
        """Returns starts after which the episodes are where all actions but the last one left them."""
        past = [actions[rows] for actions in self.actions[:-1]]
        return [
            start._replace(moves=np.concatenate([start.moves, *(actions[place] for actions in past)]))
            for place, start in enumerate(self.starts[rows])
        ]


class TeamSimulator:
    """Steps on several workers; see the module and `simulators.Simulator`.

    Args:
        images: uint8 [lanes, width, *view.shape]; workers put their images there.
        view: The form in which images are kept.
        workers: How many.
        say: Receives a sentence when a worker is lost.
    """

    def __init__(self, images: np.ndarray, view: View, workers: int, say: Callable[[str], None]) -> None:
        self.lanes, self.width, self.view = *images.shape[:2], view
        self._images, self._say = images, say
        self._runs: dict[int, _Run] = {}
        self._awaited: set[int] = set()
        self._held: list[set[int]] = [set() for _ in range(workers)]  # lanes whose running episodes a worker has
        self._workers: list[Worker] = []
        for place in range(workers):
            self._workers.append(self._hire(place))

    def _hire(self, place: int) -> Worker:
        """Starts the worker of a place."""
        raise NotImplementedError

    def reset(self, lane: int, starts: Sequence[Start]) -> None:
        self._runs[lane] = _Run.dealt(starts, len(self._workers))
        for held in self._held:
            held.discard(lane)
        self._ask_all(lane)

    def step(self, lane: int, actions: np.ndarray) -> None:
        self._runs[lane].actions.append(actions)
        self._ask_all(lane)

    def _ask_all(self, lane: int) -> None:
        self._awaited.add(lane)
        for place in range(len(self._runs[lane].rows)):
            self._ask(place, lane)

    def _ask(self, place: int, lane: int) -> None:
        run, held = self._runs[lane], self._held[place]
        self._workers[place].ask(lane, run.rows[place], run.orders(place, lane in held))
        held.add(lane)

    def result(self, lane: int) -> Seen:
        run = self._runs[lane]
        parts = [self._answer(place, lane) for place in range(len(run.rows))]
        self._awaited.discard(lane)
        rewards = None if parts[0][0] is None else np.concatenate([part[0] for part in parts])
        infos = {name: np.concatenate([part[1][name] for part in parts]) for name in parts[0][1]}
        return Seen(self._images[lane, : len(run.starts)], rewards, infos, sum(part[2] for part in parts))

    def _answer(self, place: int, lane: int) -> Answer:
        while True:
            try:
                return self._workers[place].answer(lane)
            except LostWorkerError as error:
                self._replace(place, error)

    def _replace(self, place: int, error: LostWorkerError) -> None:
        """Starts another worker at this place and gives it the running orders.

        Raises:
            UserError: The place has lost its worker too often while the same episodes ran.
        """
        lanes = [lane for lane in self._awaited if place < len(self._runs[lane].rows)]
        for lane in lanes:
            self._runs[lane].losses[place] += 1
        if any(self._runs[lane].losses[place] == TRIES for lane in lanes):
            raise UserError(f"rollout: {error}, {TRIES} times in a row; run 'vgb doctor'")
        self._say(f"{error}; its episodes are run again")
        self._workers[place].kill()
        self._workers[place] = self._hire(place)
        self._held[place] = set()
        for lane in lanes:
            self._ask(place, lane)

    def close(self) -> None:
        """Stops the workers."""
        for worker in self._workers:
            worker.stop()
