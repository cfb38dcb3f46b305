"""An engine without worker processes, for a policy object in a script or a notebook."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.workers import TRIES, Job, Result, WorkerConfig, make_runner


class InProcess:
    """Runs jobs with an already loaded policy, one batch after another.

    Nothing here can stop a policy that hangs. As in workers, an exception is recorded after one retry alone.

    Args:
        policy, card: The policy and its card.
    """

    def __init__(self, policy: Any, card: Any) -> None:
        self._policy, self._card = policy, card

    def __call__(self, config: WorkerConfig, count: int, on_ready: Callable[[dict[str, Any]], None]) -> InProcess:
        """Makes the environments; has the signature of `WorkerPool` and ignores `count`."""
        self._size = config.num_envs
        nobody = SimpleNamespace(send=lambda message: None)  # no parent process waits for a heartbeat
        self._runner = make_runner(config, self._card, self._policy, nobody)
        self._runner.interruptible = True
        on_ready(self._runner.describe())
        return self

    def run(self, jobs: Iterable[Job], on_result: Callable[[Result], None]) -> None:
        """Runs all jobs, in order; raises `UserError` if the policy cannot be used any more."""
        queue = deque((job, 1) for job in jobs)
        while queue:
            size = 1 if queue[0][1] > 1 else min(self._size, len(queue))
            batch = [queue.popleft() for _ in range(size)]
            queue.extendleft(reversed(self._batch(batch, on_result)))

    def _batch(self, batch: list[tuple[Job, int]], on_result: Callable[[Result], None]) -> list[tuple[Job, int]]:
        """Runs jobs in parallel; returns those to retry, each alone."""
        jobs, started = [job for job, _ in batch], time.monotonic()
        kind, content = self._runner.run(jobs)
        share = round((time.monotonic() - started) / len(jobs), 3)
        if kind == "refused":
            raise UserError(content)
        if kind in ("done", "full"):
            done, trouble = (content, "") if kind == "done" else content
            for job, (row, actions) in zip(jobs, done, strict=True):
                on_result(Result(job, 0, share, row, actions))
            if trouble:
                raise UserError(trouble)
            return []
        if len(batch) == 1 and batch[0][1] == TRIES:
            on_result(Result(jobs[0], 0, share, error=content))
            return []
        return [(job, tries + 1) for job, tries in batch]
