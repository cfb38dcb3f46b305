"""Ray clusters of several nodes on this machine, at 127.0.0.1, for measurements and tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vla_gen_bench.errors import UserError, one_line

STORE_BYTES = 100 << 20


@contextmanager
def local_nodes(count: int, cpus: int = 1, folders: tuple[Path, ...] = ()) -> Iterator[Any]:
    """Yields a `ray.cluster_utils.Cluster` that this process has joined; `added` lists its nodes without the head.

    Args:
        count: Number of nodes.
        cpus: Of each node.
        folders: Folders from which actors may import, in addition to this package's.

    Raises:
        UserError: Ray does not start here.
    """
    if "ray" not in sys.modules:  # read when Ray is imported; nodes then are at 127.0.0.1
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    from vla_gen_bench.eval.ray_cluster import ray

    before, package = os.environ.get("PYTHONPATH", ""), Path(__file__).resolve().parents[2]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (*map(str, (package, *folders)), before)))
    node = {"num_cpus": cpus, "object_store_memory": STORE_BYTES}
    head = {**node, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    nodes = None
    try:
        nodes = _started(head, [node] * (count - 1))
        yield nodes
    finally:
        ray.shutdown()
        if nodes:
            nodes.shutdown()
        os.environ["PYTHONPATH"] = before


def _started(head: dict[str, Any], others: list[dict[str, Any]]) -> Any:
    """Starts a cluster; tries twice, because Ray's own limit of 30 s is short for a loaded machine."""
    for last in (False, True):
        try:
            return _start(head, others)
        except Exception as error:  # Ray raises many types if its processes fail to start
            if last:
                raise UserError(f"Ray cannot start on this machine: {one_line(error)}") from None
    raise AssertionError


def _start(head: dict[str, Any], others: list[dict[str, Any]]) -> Any:
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster()
    try:
        nodes.add_node(**head)
        nodes.connect()
        nodes.added = [nodes.add_node(**other) for other in others]
        nodes.wait_for_nodes()
    except Exception:
        ray.shutdown()
        nodes.shutdown()
        raise
    return nodes
