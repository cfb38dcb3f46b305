"""The evaluation's workers as Ray actors, on any number of nodes.

Scheduling is that of `WorkerPool`: one queue, from which free workers take episodes. If an actor or node is killed,
its running episodes run again; a node that joins is used as soon as Ray can place a waiting worker on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from vla_gen_bench.errors import UserError, one_line
from vla_gen_bench.eval import ray_actors, ray_node
from vla_gen_bench.eval.cluster import Cluster
from vla_gen_bench.eval.ray_cluster import RayError, cause_of, ray, worker_options
from vla_gen_bench.eval.workers import POLL_S, WorkerConfig, WorkerPool, _Worker


def check_options(options: dict[str, Any]) -> None:
    """Raises `UserError` naming the policy option that cannot be pickled for another process."""
    for name, value in options.items():
        try:
            ray.cloudpickle.dumps(value)
        except Exception as error:  # pickling raises whatever the object raises
            kind = type(value).__name__
            raise UserError(
                f"policy option '{name}' is a {kind}, which cannot be sent to another process: {one_line(error)}"
            ) from None


class _Actor:
    """Acts as both the pipe and the process of a worker for `WorkerPool`."""

    end = ""

    def __init__(self, handle: Any) -> None:
        self.handle, self.value = handle, 0.0
        self.ref: Any = handle.start.remote()
        self.asked: Any = None

    def send(self, jobs: Any) -> None:
        if jobs is None:
            return self.kill()
        self.ref = self.handle.run.remote(jobs)

    def recv(self) -> Any:
        try:
            return ray.get(self.ref)
        except RayError as error:
            self.end = cause_of(error)
            raise EOFError from None
        finally:
            self.ref = None

    def watch(self) -> None:
        """Asks when the worker last did a step; uses the answers received so far."""
        if self.asked is None:
            self.asked = self.handle.idle_s.remote()
        done, _ = ray.wait([self.asked], timeout=0)
        if done:
            try:
                self.value = time.monotonic() - ray.get(self.asked)
            except RayError:
                pass  # the result of its running call reports the failure
            self.asked = None

    def kill(self) -> None:
        ray.kill(self.handle)

    def close(self) -> None: ...

    def join(self, timeout: float) -> None: ...

    def is_alive(self) -> bool:
        return False


class RayPool(WorkerPool):
    """Runs jobs on `count` actors of a connected cluster.

    Args:
        config, count, on_ready: As for `WorkerPool`.
        cluster: The resources each actor requests.
    """

    def __init__(
        self, config: WorkerConfig, count: int, on_ready: Callable[[dict[str, Any]], None], cluster: Cluster
    ) -> None:
        super().__init__(config, count, on_ready)
        self._cluster, self._folder = cluster, os.getcwd()
        self._ours = ray_node.identity_with_policy(config.world, config.policy, config.options)
        self._simulator = ray.remote(concurrency_groups={"watch": 1})(ray_actors.Simulator)
        self.hosts = [self._start_host() for _ in range(cluster.hosts)]

    def _start_host(self) -> Any:
        cluster = self._cluster
        host = ray.remote(ray_actors.PolicyHost).options(
            num_cpus=cluster.cpus, num_gpus=cluster.host_gpus, max_restarts=-1, max_concurrency=10_000
        )
        return host.remote(self._config, self._ours, self._folder, cluster.batch)

    def _start(self, index: int) -> _Worker:
        options = self._simulator.options(**worker_options(self._cluster))
        served = self.hosts[index % len(self.hosts)] if self.hosts else None
        actor = _Actor(options.remote(self._config, self._ours, self._folder, served))
        return _Worker(index, actor, actor, actor)

    def _end_of(self, worker: _Worker) -> str:
        return worker.process.end

    def _turn(self) -> None:
        """Waits for an answer and handles it; assigns work to idle workers."""
        by_ref = {worker.pipe.ref: worker for worker in self._workers if worker.pipe.ref is not None}
        done, _ = ray.wait(list(by_ref), num_returns=1, timeout=POLL_S)
        for ref in done:
            self._hear(by_ref[ref])
        for worker in list(self._workers):
            if worker.ready and not worker.jobs:
                self._feed(worker)
            self._check_pace(worker)

    def _check_pace(self, worker: _Worker) -> None:
        """A worker that is not placed yet waits for a node, as long as other workers are running."""
        limit = self._config.time_limit_s if worker.ready else self._config.start_limit_s
        waits = not worker.ready and any(other.ready for other in self._workers)
        if waits or not (worker.jobs or not worker.ready) or worker.idle_s <= min(limit, max(POLL_S, limit / 4)):
            return
        if worker.ready:
            worker.pipe.watch()
        if worker.idle_s > limit:
            self._lose(worker, f"no control step finished within {limit:g} s")

    def _stop(self) -> None:
        for actor in [*(worker.pipe.handle for worker in self._workers), *self.hosts]:
            ray.kill(actor)
