"""The evaluation's workers as Ray actors, on any number of nodes.

Scheduling is that of `WorkerPool`: one queue, from which free workers take episodes. If an actor or node is killed,
its running episodes run again; a node that joins is used as soon as Ray can place a waiting worker on it.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # set before Ray is imported: send no usage statistics
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray  # noqa: E402
from ray.exceptions import RayError  # noqa: E402

from vla_gen_bench.errors import UserError, one_line  # noqa: E402
from vla_gen_bench.eval import ray_actors  # noqa: E402
from vla_gen_bench.eval.cluster import Cluster  # noqa: E402
from vla_gen_bench.eval.workers import POLL_S, WorkerConfig, WorkerPool, _Worker  # noqa: E402

REACH_S = 10.0
STORE_BYTES = 256 << 20  # of a local cluster; only episode rows pass through it
LOOPBACK = "127.0.0.1"


@contextmanager
def connected(cluster: Cluster, workers: int | None) -> Iterator[int]:
    """Yields the number of workers to use; then leaves the cluster, or stops one that was started here.

    Raises:
        UserError: It cannot be reached, runs another Ray or Python version, or has no node of the requested size.
    """
    if ray.is_initialized():  # already started by the caller, such as a notebook or a test
        yield workers or _fitting(cluster)
        return
    try:
        yield _start_here(cluster, workers) if cluster.address is None else _join(cluster, workers)
    finally:
        ray.shutdown()


def _join(cluster: Cluster, workers: int | None) -> int:
    _reach(cluster.address)
    try:
        ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, RayError, OSError) as error:
        raise UserError(f"--address {cluster.address}: {one_line(error)}") from None
    return workers or _fitting(cluster)


def _reach(address: str) -> None:
    """Raises `UserError` at once if nothing listens at the address; Ray itself retries for minutes."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"--address {address}: expected HOST:PORT of the cluster's head, or auto on one of its nodes")
    try:
        socket.create_connection((host, int(port)), REACH_S).close()
    except OSError as error:
        raise UserError(
            f"--address {address}: cannot be reached ({error.strerror or error}); is the head up?"
        ) from None


def _start_here(cluster: Cluster, workers: int | None) -> int:
    from vla_gen_bench.runtime import usable_cores

    count = workers or max(1, int(usable_cores() // max(cluster.cpus, 1.0)))
    package = str(Path(__file__).resolve().parents[2])  # works for a checkout that is not installed, too
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    try:
        ray.init(
            address="local",  # not one that runs here by chance, or that $RAY_ADDRESS names
            num_cpus=max(1, math.ceil((count + cluster.hosts) * cluster.cpus)),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=STORE_BYTES,
            _node_ip_address=LOOPBACK,
            runtime_env={"env_vars": {"PYTHONPATH": path}},
        )
    except Exception as error:  # Ray raises many types if its processes fail to start
        raise UserError(f"Ray cannot start on this machine: {one_line(error)}") from None
    _check_gpus(cluster)
    return count


def _check_gpus(cluster: Cluster) -> None:
    wanted = cluster.gpus or cluster.host_gpus
    if wanted > ray.cluster_resources().get("GPU", 0):
        ray.shutdown()
        raise UserError(f"{wanted:g} GPUs are wanted, and Ray finds fewer on this machine; leave out the GPU options")


def _fitting(cluster: Cluster) -> int:
    """Returns how many workers fit on the cluster in its current state."""
    there = ray.cluster_resources()
    free = there.get("CPU", 1) - cluster.hosts * cluster.cpus
    fits = [free / cluster.cpus] if cluster.cpus else []
    fits += [there.get("GPU", 0) / cluster.gpus] if cluster.gpus else []
    return max(1, int(min(fits, default=1)))


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

    exitcode: str | None = None

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
            self.exitcode = one_line(str(error).partition("\n")[0], 200)
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
        self._ours = ray_actors.identity(config.world)
        self._simulator = ray.remote(concurrency_groups={"watch": 1})(ray_actors.Simulator)
        self.hosts = [self._start_host() for _ in range(cluster.hosts)]

    def _start_host(self) -> Any:
        cluster = self._cluster
        host = ray.remote(ray_actors.PolicyHost).options(
            num_cpus=cluster.cpus, num_gpus=cluster.host_gpus, max_restarts=-1, max_concurrency=10_000
        )
        return host.remote(self._config, self._folder, cluster.batch)

    def _start(self, index: int) -> _Worker:
        options = self._simulator.options(
            num_cpus=self._cluster.cpus, num_gpus=self._cluster.gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )
        served = self.hosts[index % len(self.hosts)] if self.hosts else None
        actor = _Actor(options.remote(self._config, self._ours, self._folder, served))
        return _Worker(index, actor, actor, actor)

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
