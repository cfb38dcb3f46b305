"""A study's parts as Ray tasks, one each, on any nodes that share the study's disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from vla_gen_bench.eval import ray_node
from vla_gen_bench.eval.cluster import Cluster
from vla_gen_bench.eval.ray_cluster import RayError, cause_of, connected, ray
from vla_gen_bench.study.engines import PATIENCE_S, Ended, run_command, run_part
from vla_gen_bench.study.parts import Part

REFUSED = 2


@contextmanager
def ray_engine(cluster: Cluster, say: Callable[[str], None] = lambda line: None) -> Iterator[RayTasks]:
    """Yields an engine on a cluster; raises `UserError` as `connected`."""
    with connected(cluster, None, say):
        yield RayTasks(cluster)


class RayTasks:
    """Ray decides which parts run at once, and where.

    Args:
        cluster: `cpus` and `gpus` are what each part requests; its command uses no more cores than that.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._task = ray.remote(_run).options(num_cpus=cluster.cpus, num_gpus=cluster.gpus)
        self._cores = cluster.threads
        self._running: dict[Any, str] = {}
        self._ours: dict[str, dict[str, Any]] = {}

    def free(self) -> bool:
        return True

    def start(self, part: Part) -> None:
        ours = self._ours.setdefault(part.world, ray_node.identity(part.world))
        self._running[self._task.remote(part, ours, os.getcwd(), self._cores)] = part.name

    def wait(self) -> Ended:
        done, _ = ray.wait(list(self._running), num_returns=1)
        name = self._running.pop(done[0])
        try:
            return ray.get(done[0])
        except RayError as error:
            return Ended(name, -1, cause_of(error))

    def stop(self) -> None:
        for task in self._running:
            ray.cancel(task)  # raises KeyboardInterrupt in it, which `run_command` passes on
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=PATIENCE_S)


def _run(part: Part, ours: dict[str, Any], folder: str, cores: int) -> Ended:
    """Runs on a node; a node that cannot give the same results refuses."""
    if not os.path.isdir(folder):
        return Ended(part.name, REFUSED, f"no folder {folder} on node {ray_node.node()}; a study needs a shared disk")
    os.chdir(folder)
    differs = ray_node.difference(ours, ray_node.identity(part.world))
    if differs:
        return Ended(part.name, REFUSED, f"node {ray_node.node()} {differs}; install the same on all nodes")
    return run_part(part, partial(run_command, cores=cores))
