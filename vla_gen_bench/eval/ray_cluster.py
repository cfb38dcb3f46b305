"""Joins a Ray cluster, or starts one on this machine, and checks that it has room for the workers."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # set before Ray is imported: send no usage statistics
os.environ.setdefault("RAY_worker_niceness", "0")  # a cluster started here gets the share of CPU that processes get
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray  # noqa: E402
from ray.exceptions import RayError, RayTaskError  # noqa: E402

from vla_gen_bench.errors import UserError, one_line  # noqa: E402
from vla_gen_bench.eval import cluster as plain  # noqa: E402
from vla_gen_bench.eval.cluster import Cluster, Node, Resources  # noqa: E402

REACH_S = 10.0
BUSY_S = 30.0  # resources of a job that has just ended take a moment to become free
STORE_BYTES = 256 << 20  # of a local cluster; only episode rows and small images pass through it
LOOPBACK = "127.0.0.1"


@contextmanager
def connected(
    cluster: Cluster, workers: int | None, say: Callable[[str], None], most: int = sys.maxsize,
    all_needed: bool = False, commands: int = 1,
) -> Iterator[int]:  # fmt: skip
    """Yields the number of workers to start; then leaves the cluster, or stops one that was started here.

    Args:
        workers: None = as many as fit.
        say: Receives a sentence if some workers have to wait for nodes.
        most: Maximum that have something to do.
        all_needed: Whether work can start only with all workers, not with one.
        commands: Number of commands that share the nodes, such as the processes of torchrun.

    Raises:
        UserError: The cluster cannot be reached, runs another Ray or Python version, or has too little room.
    """
    if ray.is_initialized():  # already started by the caller, such as a notebook or a test
        count = _count(cluster, workers, most, commands)
        yield _admitted(cluster, count, say, all_needed)
        return
    try:
        if cluster.address is None:
            workers = _start_here(cluster, workers, most, commands)
        else:
            _join(cluster)
        yield _admitted(cluster, _count(cluster, workers, most, commands), say, all_needed)
    finally:
        ray.shutdown()


# ---- joining -------------------------------------------------------------------------------------------------


def _join(cluster: Cluster) -> None:
    address = cluster.address
    _reach(address, cluster.wait_s)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, RayError, OSError) as error:
        raise UserError(f"--address {address}: {_mismatch(str(error)) or one_line(error)}") from None


def _mismatch(error: str) -> str:
    """Returns a sentence for Ray's message about differing versions, "" for any other message."""
    found = re.findall(r"Ray: (\S+)\s+Python: (\S+)", error)
    if len(found) != 2:
        return ""
    theirs, ours = (f"Ray {ray_version} and Python {python}" for ray_version, python in found)
    return f"the cluster runs {theirs}, this command {ours}; install the same on all nodes"


def _reach(address: str, wait_s: float) -> None:
    """Raises `UserError` if nothing listens at the address within `wait_s`; Ray itself retries for minutes."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise UserError(f"--address {address}: expected HOST:PORT of the cluster's head, or auto on one of its nodes")
    until = time.monotonic() + wait_s
    while problem := _closed(host, int(port)):
        if time.monotonic() >= until:
            raise UserError(f"--address {address}: cannot be reached ({problem}); is the head up?")
        time.sleep(1.0)


def _closed(host: str, port: int) -> str:
    """Returns why no connection can be made, "" if one can."""
    try:
        socket.create_connection((host, port), REACH_S).close()
    except OSError as error:
        return error.strerror or str(error) or "no answer"
    return ""


def _start_here(cluster: Cluster, workers: int | None, most: int, commands: int) -> int:
    from vla_gen_bench.runtime import usable_cores

    count = min(most, workers or max(1, int(usable_cores() // commands // max(cluster.cpus, 1.0))))
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
    return count


# ---- room ----------------------------------------------------------------------------------------------------


def _count(cluster: Cluster, workers: int | None, most: int, commands: int) -> int:
    return min(most, workers or max(1, plain.fitting(cluster, nodes()) // commands))


def _admitted(cluster: Cluster, count: int, say: Callable[[str], None], all_needed: bool) -> int:
    """Returns `count`, once the cluster has room for all of them, or for one."""
    if not cluster.bundles(count):
        return count  # they request nothing
    _await_room(cluster, count if all_needed else 1, say)
    fits = plain.fitting(cluster, nodes())
    if fits < count:
        say(f"the cluster has room for {fits} of {count} {cluster.unit}s; the others start when nodes join")
    return count


def _await_room(cluster: Cluster, workers: int, say: Callable[[str], None]) -> None:
    """Returns when so many workers can be placed; an autoscaling cluster grows meanwhile.

    Raises:
        UserError: They cannot be placed in time.
    """
    small = plain.fitting(cluster, nodes()) < workers
    if small and not cluster.wait_s:
        raise UserError(plain.too_small(cluster, workers, nodes()))
    if small:
        say(f"waiting up to {cluster.wait_s:g} s for nodes: {plain.too_small(cluster, workers, nodes())}")
    limit_s = cluster.wait_s if small else max(cluster.wait_s, BUSY_S)
    if has_room(cluster.bundles(workers), limit_s):
        return
    if plain.fitting(cluster, nodes()) < workers:
        raise UserError(plain.too_small(cluster, workers, nodes()))
    raise UserError(plain.too_busy(cluster, workers, ray.available_resources(), limit_s))


def has_room(bundles: Sequence[Resources], limit_s: float) -> bool:
    """Returns whether the cluster can place all bundles at once, within `limit_s` seconds."""
    group = ray.util.placement_group([dict(bundle) for bundle in bundles])
    try:
        return group.wait(limit_s)
    finally:
        ray.util.remove_placement_group(group)


def nodes() -> list[Node]:
    """Returns the nodes that are up."""
    return [Node(node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]]


def cause_of(error: RayError) -> str:
    """Returns one line: what an actor raised, or why the actor is lost, with the node's address if known."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))  # Ray colours it
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    raised = isinstance(error, RayTaskError) or getattr(error, "actor_init_failed", False)  # a traceback, then
    reason = one_line(lines[-1 if raised else 0].rstrip("."), 200)
    if f"No module named '{__package__.partition('.')[0]}" in reason:
        reason = f"this version of vla-gen-bench is not installed there: {reason}"
    place = re.search(r"\bip[=:]\s*([\w.:]+)", text)
    return f"{reason} (node {place[1]})" if place else reason


def worker_options(cluster: Cluster) -> dict[str, Any]:
    """Returns Ray's options of an actor that simulates; a lost one is replaced by the caller."""
    return {
        "num_cpus": cluster.cpus, "num_gpus": cluster.gpus, "max_restarts": 0, "scheduling_strategy": "SPREAD",
    }  # fmt: skip
