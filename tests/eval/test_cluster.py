"""What fits on a cluster, and the messages for one that is too small; none of it needs Ray."""

from __future__ import annotations

import pytest

from vla_gen_bench.eval.cluster import Cluster, Node, fitting, too_busy, too_small

NODES = [Node("10.0.0.1", {"CPU": 4.0}), Node("10.0.0.2", {"CPU": 5.0, "GPU": 2.0})]


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        (Cluster(), 4 + 5),
        (Cluster(cpus=3), 1 + 1),  # 9 CPUs in all, but a worker runs on one node
        (Cluster(cpus=0.1), 40 + 50),  # not 39: 4 / 0.1 in floating point is checked with some slack
        (Cluster(gpus=0.5), 0 + 4),
        (Cluster(cpus=2, gpus=1), 0 + 2),
        (Cluster(hosts=2, host_gpus=1), 4 + 3),
        (Cluster(hosts=3, host_gpus=1), 0),
        (Cluster(cpus=0), 4 + 5),
    ],
)
def test_workers_that_fit_are_counted_node_by_node(cluster: Cluster, expected: int) -> None:
    assert fitting(cluster, NODES) == expected


def test_a_cluster_that_is_too_small_is_described() -> None:
    assert too_small(Cluster(cpus=2, gpus=1), 3, NODES) == (
        "the cluster is too small: 3 workers of 2 CPU and 1 GPU each do not fit on its nodes (10.0.0.1: 4 CPU; "
        "10.0.0.2: 5 CPU and 2 GPU), 2 workers would; request fewer or smaller ones, or give --wait-for-nodes SECONDS "
        "if nodes are to join"
    )
    many = too_small(Cluster(hosts=9, host_gpus=1), 1, NODES * 3)
    assert "1 worker of 1 CPU each and 9 policy actors of 1 CPU and 1 GPU each" in many
    assert "10.0.0.2: 5 CPU and 2 GPU; 2 more), no workers would" in many


def test_a_busy_cluster_is_described() -> None:
    assert too_busy(Cluster(), 2, {"CPU": 0.5, "memory": 1e9}, 30) == (
        "the cluster is busy: 2 workers of 1 CPU each would fit, but after 30 s only 0.5 CPU of all nodes are free; "
        "end other jobs, request fewer, or give --wait-for-nodes SECONDS"
    )
