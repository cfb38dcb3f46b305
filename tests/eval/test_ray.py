"""`vgb eval --engine ray`: actors on several nodes leave the log that local processes leave."""

from __future__ import annotations

import builtins
import json
import platform
import threading
from pathlib import Path

import pytest
from ray_nodes import need_ray, two_nodes

from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.cluster import Cluster
from vla_gen_bench.eval.evaluate import Request, evaluate, make_plan

SUITE = """
id: short
version: "1"
protocol: {episodes_per_seed: 2, seeds: [0, 1], horizon: 5}
scenarios:
  ind: {label: IND, dimension: ind}
  tables: {label: Tables, dimension: vision, shift: {table: unseen}}
"""
POLICIES = """
import os
from contextlib import suppress
import numpy as np
from vla_gen_bench.policies import ActionSpec

class Looks:
    # What it does depends on what it sees, and on nothing else.
    action_spec = ActionSpec(chunk=2)
    memoryless = True
    def reset(self, instructions, seeds):
        self.seeds = np.array(seeds)
    def act(self, observation):
        mean = observation.image.reshape(len(self.seeds), -1).mean(axis=1) / 255 + self.seeds % 7
        return np.broadcast_to(np.float32(-0.001) * mean.astype(np.float32)[:, None, None], (len(mean), 2, 7)).copy()

class Turned(Looks):
    decoding = "greedy"

class Dies(Looks):
    # Kills its process in the middle of the first episode ever.
    memoryless = False
    def reset(self, instructions, seeds):
        super().reset(instructions, seeds)
        self.calls = 0
    def act(self, observation):
        self.calls += 1
        if self.calls == 2:
            with suppress(FileExistsError):  # two workers may come here at once: one of them ends
                open("died", "x").close()
                os._exit(7)
        return super().act(observation)
"""


def _stable(folder: str) -> list[dict]:
    rows = map(json.loads, (Path(folder) / "episodes.jsonl").read_text().splitlines())
    return [{key: row[key] for key in row if not key.endswith("_s") and key != "worker"} for row in rows]


def _evaluate(policy: str, out: str, on_result=lambda result: None, **options):
    request = Request(policy=policy, suites=["short.yaml"], out=Path(out), workers=2, **options)
    return evaluate(make_plan(request), on_result=on_result)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    (tmp_path / "short.yaml").write_text(SUITE)
    (tmp_path / "pol.py").write_text(POLICIES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as nodes:
        yield nodes


def test_a_killed_actor_and_a_node_that_leaves_cost_their_running_episodes_only(cluster, folder: Path) -> None:
    left = threading.Event()

    def leave(result) -> None:
        if not left.is_set():
            left.set()
            cluster.remove_node(cluster.added[0])

    done = _evaluate("pol:Dies", "ray", leave, cluster=Cluster())
    assert done.finished and not done.errors and Path("died").exists() and left.is_set()
    _evaluate("pol:Dies", "local")
    assert _stable("ray") == _stable("local")
    session = json.loads(Path("ray/run.json").read_text())["sessions"][0]
    assert session["engine"] == "ray" and session["workers"] == 2


def test_policy_actors_act_for_all_simulators_to_the_same_end(cluster, folder: Path) -> None:
    done = _evaluate("pol:Looks", "ray", cluster=Cluster(cpus=0.3, hosts=1))
    assert done.finished and not done.errors
    _evaluate("pol:Looks", "local")
    assert _stable("ray") == _stable("local")


def test_the_log_records_what_a_policy_actor_converts(cluster, folder: Path) -> None:
    """The policy's only copy is not where its simulators are; its converters and its decoding are still recorded."""
    card = folder / "turned"
    card.mkdir()
    card.joinpath("card.yaml").write_text(
        "name: turned\ntitle: Turned\nsummary: Looks\nfactory: pol:Turned\nadapter: [{gripper: {closed: 0, open: 1}}]\n"
    )
    headers = {}
    for out, options in (("ray", {"cluster": Cluster(cpus=0.3, hosts=1)}), ("local", {})):
        assert not _evaluate("turned/", out, **options).errors
        headers[out] = json.loads((folder / out / "run.json").read_text())
    found = [{key: headers[out][key] for key in ("adapter", "decoding")} for out in ("ray", "local")]
    assert found[0] == found[1] and found[0]["decoding"] == "greedy" and "gripper" in str(found[0]["adapter"])


def test_an_evaluation_on_a_cluster_that_is_too_small_is_refused_at_once(cluster, folder: Path) -> None:
    """Also where workers fit, and the policy actors do not."""
    with pytest.raises(UserError, match="1 worker of 1 CPU and 1 GPU each do not fit on its nodes"):
        _evaluate("pol:Looks", "ray", cluster=Cluster(gpus=1))
    with pytest.raises(UserError, match="and 3 policy actors of 1 CPU each do not fit"):
        _evaluate("pol:Looks", "ray", cluster=Cluster(hosts=3))
    assert not (folder / "ray").exists()


def test_a_cluster_of_another_ray_or_python_is_named(monkeypatch) -> None:
    """With the message of Ray's own check."""
    ray = need_ray()
    from ray._private.utils import check_version_info

    from vla_gen_bench.eval import ray_cluster

    def init(**options) -> None:
        check_version_info({"ray_version": "2.9.0", "python_version": "3.10.4"}, "node 10.0.0.1")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray_cluster, "_reach", lambda address, wait_s: None)
    ours = f"Ray {ray.__version__} and Python {platform.python_version()}"
    expected = f"--address a:1: the cluster runs Ray 2.9.0 and Python 3.10.4, this command {ours}; install the same"
    with pytest.raises(UserError, match=expected):
        ray_cluster._join(Cluster(address="a:1"))


def test_a_policy_that_cannot_be_loaded_is_refused_with_its_node(cluster, folder: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)nothing.*\(node 127.0.0.1\)"):
        _evaluate("random", "ray", cluster=Cluster(cpus=0.3, hosts=1), options={"nothing": 1})
    assert not (folder / "ray").exists()


def test_nodes_with_other_versions_are_named(monkeypatch) -> None:
    need_ray()
    from vla_gen_bench.eval import ray_actors, ray_node

    ours = ray_node.identity("builtin")
    assert ray_node.difference(ours, dict(ours)) == ""
    theirs = {**ours, "sapien": "3.0.2"}
    assert ray_node.difference(ours, theirs) == f"has sapien 3.0.2, this command {ours['sapien']}"
    monkeypatch.setattr(ray_node, "node", lambda: "10.0.0.7")
    config = type("Config", (), {"world": "builtin", "threads": 1})
    kind, why = ray_actors.Simulator(config, theirs, "/nonexistent").start()
    assert kind == "refused" and "install the same on all nodes (node 10.0.0.7)" in why


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", "cannot be reached (Connection refused)"),
        ("ray://127.0.0.1:1", "expected HOST:PORT"),
        ("127.0.0.1", "expected HOST:PORT"),
        ("127.0.0.1:99999", "expected HOST:PORT"),
    ],
)
def test_an_address_that_cannot_be_reached_is_refused_at_once(address: str, expected: str) -> None:
    need_ray()
    from vla_gen_bench.eval import ray_cluster

    with pytest.raises(UserError, match="--address") as caught:
        ray_cluster._join(Cluster(address=address))
    assert expected in str(caught.value)


def test_an_option_that_cannot_be_sent_is_named() -> None:
    need_ray()
    from vla_gen_bench.eval.ray_pool import check_options

    check_options({"temperature": 0.5})
    with pytest.raises(UserError, match="policy option 'lock' is a lock, which cannot be sent to another process"):
        check_options({"temperature": 0.5, "lock": threading.Lock()})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"gpus": 1.5}, "--num-gpus-per-worker 1.5: above 1 expected a whole number"),
        ({"cpus": 2.5}, "--num-cpus-per-worker 2.5: above 1"),
        ({"host_gpus": 1.0}, "--num-gpus-per-policy is for policy actors; give --policy-actors too"),
    ],
)
def test_what_no_node_can_give_is_refused_before_the_cluster_starts(options: dict, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        Cluster(**options)
    Cluster(cpus=0.5, gpus=2, hosts=1, host_gpus=0.25)


def test_options_of_a_cluster_want_the_engine(cli) -> None:
    ran = cli("eval", "--policy", "hold", "--address", "auto")
    assert ran.exit_code == 2 and "are for --engine ray; give it too" in ran.stderr


def test_a_privileged_policy_cannot_act_from_an_actor_of_its_own(cli, folder: Path) -> None:
    need_ray()
    ran = cli("eval", "--policy", "expert", "--suite", "short.yaml", "--engine", "ray", "--policy-actors", 1)
    assert ran.exit_code == 2 and "sees the simulator's state" in ran.stderr


def test_without_ray_the_fix_is_named(monkeypatch, cli, folder: Path) -> None:
    load = builtins.__import__

    def absent(name, *rest, **more):
        if name == "ray":
            raise ImportError(name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    ran = cli("eval", "--policy", "hold", "--suite", "short.yaml", "--engine", "ray")
    assert ran.exit_code == 2 and "pip install 'vla-gen-bench[ray]'" in ran.stderr
