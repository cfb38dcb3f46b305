"""What fits on a cluster, the messages for one that is too small, and which nodes are refused; none of it needs Ray."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.cluster import Cluster, Node, fitting, too_busy, too_small
from vla_gen_bench.eval.workers import WorkerConfig

POLICY = """
import numpy as np
from vla_gen_bench.policies import ActionSpec

class Still:
    action_spec = ActionSpec()
    def reset(self, instructions, seeds): self.batch = len(instructions)
    def act(self, observation): return np.zeros((self.batch, 1, 7), np.float32)
"""
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


def test_a_study_s_parts_are_named_as_such() -> None:
    with pytest.raises(UserError, match="^--num-gpus-per-part 1.5: above 1 expected a whole number"):
        Cluster(gpus=1.5, unit="part")
    described = too_small(Cluster(cpus=8, unit="part"), 1, NODES)
    assert "1 part of 8 CPU each do not fit" in described and "no parts would" in described


def test_a_busy_cluster_is_described() -> None:
    assert too_busy(Cluster(), 2, {"CPU": 0.5, "memory": 1e9}, 30) == (
        "the cluster is busy: 2 workers of 1 CPU each would fit, but after 30 s only 0.5 CPU of all nodes are free; "
        "end other jobs, request fewer, or give --wait-for-nodes SECONDS"
    )


# ---- nodes that differ -----------------------------------------------------------------------------------------


@pytest.fixture
def actors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the actors, on a stand-in for Ray: they are plain classes then, in this process."""
    package, names = "vla_gen_bench.eval", ("ray_node", "ray_actors")
    stand_in, exceptions = ModuleType("ray"), ModuleType("ray.exceptions")
    stand_in.__version__ = "2.0"
    stand_in.method = lambda **options: lambda function: function
    stand_in.util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.7")
    exceptions.ActorUnavailableError = type("ActorUnavailableError", (Exception,), {})
    real = {f"{package}.{name}": sys.modules.pop(f"{package}.{name}", None) for name in names}
    (tmp_path / "pol.py").write_text(POLICY)
    (tmp_path / "weights.bin").write_bytes(b"new")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", stand_in)
        patch.setitem(sys.modules, "ray.exceptions", exceptions)
        yield importlib.import_module(f"{package}.ray_actors")
    for name, module in real.items():
        sys.modules.pop(name, None)
        vars(sys.modules[package]).pop(name.rpartition(".")[2], None)
        if module is not None:
            sys.modules[name] = module
            setattr(sys.modules[package], name.rpartition(".")[2], module)
    sys.modules.pop("pol", None)


def started(actors: Any, kind: str, ours: dict[str, Any], **options: Any) -> tuple[str, Any]:
    """What an actor of a node answers, "ready" or "refused"; it simulates nothing."""
    config = WorkerConfig(policy="pol:Still", options=options, world="builtin", horizon=3)
    if kind == "policy actor":
        return asyncio.run(actors.PolicyHost(config, ours, os.getcwd(), 4).describe())
    made = actors.Simulator(config, ours, os.getcwd())
    made._build = lambda: SimpleNamespace(describe=dict)
    return made.start()


@pytest.mark.parametrize("kind", ["policy actor", "simulator"])
def test_an_actor_on_a_node_with_other_code_or_another_policy_is_refused(actors: Any, kind: str) -> None:
    ours = actors.ray_node.identity_with_policy("builtin", "pol:Still", {})
    assert started(actors, kind, ours)[0] == "ready"
    answer = started(actors, kind, {**ours, "code": "0123"})
    assert answer[0] == "refused" and "this command 0123; install the same on all nodes (node 10.0.0.7)" in answer[1]
    Path("pol.py").write_text(POLICY + "# an older version, on this node\n")
    answer = started(actors, kind, ours)
    assert answer[0] == "refused" and "has another policy under this name: card and code" in answer[1]


def test_a_checkpoint_that_differs_between_nodes_is_named(actors: Any) -> None:
    """At the same path, on disks of their own."""
    node, given = actors.ray_node, {"checkpoint": "weights.bin"}
    ours = node.identity_with_policy("builtin", "pol:Still", given)
    assert node.difference(ours, dict(ours)) == ""
    Path("weights.bin").write_bytes(b"old")
    theirs = node.identity_with_policy("builtin", "pol:Still", given)
    assert "has another policy under this name: checkpoint" in node.difference(ours, theirs)
    Path("weights.bin").unlink()
    theirs = node.identity_with_policy("builtin", "pol:Still", given)
    assert "checkpoint None, this command" in node.difference(ours, theirs)
    assert node.difference(ours, node.identity("builtin")) == ""  # a simulator whose policy is elsewhere
