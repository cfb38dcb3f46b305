"""Collectors: Ray actors that step lanes of episodes for a learner, on any nodes of a cluster; see `team`.

A lost collector is replaced. If no node has room for another one, which happens when a node has left, a collector that
is up takes over its episodes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from vla_gen_bench.errors import UserError
from vla_gen_bench.eval import ray_node
from vla_gen_bench.eval.cluster import Cluster, fitting
from vla_gen_bench.eval.ray_cluster import BUSY_S, RayError, cause_of, has_room, nodes, ray, worker_options
from vla_gen_bench.train.rl.simulators import Build, LostWorkerError, Stage, View
from vla_gen_bench.train.rl.team import START_LIMIT_S, STEP_LIMIT_S, Answer, Order, TeamSimulator, carry_out, opened

PING_S = 2.0  # a dead actor answers at once, with an error; a busy one later


class EpisodeActor:
    """Runs on a node: the episodes of one place of a `TeamSimulator`, or of several.

    Args:
        build, view, size: As for `Stage`.
    """

    def __init__(self, build: Build, view: View, size: int) -> None:
        self._view, self._stage = view, Stage(build, view, size)

    def admit(self, ours: dict[str, Any], world: str, folder: str, threads: int) -> tuple[str, str]:
        """Returns ("done", this node's address) or ("refused", a reason); see `ray_node.admit`."""
        try:
            ray_node.admit(ours, world, folder, threads)
        except UserError as error:
            return "refused", f"{error} (node {ray_node.node()})"
        return "done", ray_node.node()

    def answers(self) -> bool:
        return True

    def work(self, lane: tuple[int, int], count: int, orders: Sequence[Order]) -> tuple[str, Any, np.ndarray]:
        """Carries out orders for `count` episodes; returns what `carry_out` returns, and the images.

        Args:
            lane: The place that the episodes belong to, and their lane.
        """
        images = np.empty((count, *self._view.shape), np.uint8)
        kind, content = carry_out(self._stage, lane, orders, images)
        return kind, content if kind == "done" else f"{content} (node {ray_node.node()})", images


class _Remote:
    """See `team.Worker`. Several may use one actor.

    Args:
        admitted: Result of the actor's `admit`.
        images: Where the images of all lanes are kept.
    """

    def __init__(self, actor: Any, admitted: Any, place: int, images: np.ndarray) -> None:
        self.actor, self.admitted = actor, admitted
        self._place, self._images = place, images
        self._asked: dict[int, tuple[slice, Any]] = {}
        self._started = False

    def ask(self, lane: int, rows: slice, orders: Sequence[Order]) -> None:
        answer = self.actor.work.remote((self._place, lane), rows.stop - rows.start, orders)
        self._asked[lane] = rows, answer

    def answer(self, lane: int) -> Answer:
        rows, answer = self._asked[lane]
        opened(*self._get(self.admitted, START_LIMIT_S))
        kind, content, images = self._get(answer, STEP_LIMIT_S if self._started else START_LIMIT_S)
        self._started = True
        self._images[lane, rows] = images
        return opened(kind, content)

    def _get(self, answer: Any, limit_s: float) -> Any:
        try:
            return ray.get(answer, timeout=limit_s)
        except ray.exceptions.GetTimeoutError:
            raise LostWorkerError(f"a collector did not answer within {limit_s:g} s") from None
        except RayError as error:
            raise LostWorkerError(f"a collector was lost ({cause_of(error)})") from None

    def kill(self) -> None:
        with suppress(RayError):
            ray.kill(self.actor)

    stop = kill


class RaySimulator(TeamSimulator):
    """Steps on `workers` actors of a connected cluster.

    Args:
        build, view, width, lanes, workers, say: As for `WorkerSimulator`.
        cluster: The resources each actor requests.
        world: The world whose files must be equal on all nodes.
    """

    def __init__(
        self, build: Build, view: View, width: int, lanes: int, workers: int, say: Callable[[str], None],
        cluster: Cluster, world: str,
    ) -> None:  # fmt: skip
        self._cluster, self._size = cluster, -(-width // workers)
        self._build, self._node = build, (ray_node.identity(world), world, os.getcwd(), cluster.threads)
        self._kind = ray.remote(EpisodeActor).options(**worker_options(cluster))
        super().__init__(np.empty((lanes, width, *view.shape), np.uint8), view, workers, say)

    def _hire(self, place: int) -> _Remote:
        others = self._living(place)
        if others and not self._has_room(len({id(worker.actor) for worker in others})):
            self._say("no node has room for another collector; one that is up takes over")
            chosen = others[place % len(others)]
            return _Remote(chosen.actor, chosen.admitted, place, self._images)
        actor = self._kind.remote(self._build, self.view, self._size)
        return _Remote(actor, actor.admit.remote(*self._node), place, self._images)

    def _living(self, place: int) -> list[_Remote]:
        """Returns the other workers if that of `place` is to be replaced; those known to be dead are left out."""
        if place == len(self._workers):
            return []
        others = [worker for other, worker in enumerate(self._workers) if other != place]
        answers = [worker.actor.answers.remote() for worker in others]
        answered, _ = ray.wait(answers, num_returns=max(1, len(answers)), timeout=PING_S) if answers else ([], [])
        return [worker for worker, answer in zip(others, answers) if answer not in answered or _well(answer)]

    def _has_room(self, collectors: int) -> bool:
        """Returns whether there is room for one more than so many; waits a little if others use it."""
        if not self._cluster.worker:
            return True
        large = fitting(self._cluster, nodes()) > collectors
        return large and has_room([self._cluster.worker], BUSY_S)


def _well(answer: Any) -> bool:
    try:
        return ray.get(answer)
    except RayError:
        return False
