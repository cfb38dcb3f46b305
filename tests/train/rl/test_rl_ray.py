"""RL on Ray: collectors on two nodes give the numbers that collecting on one machine gives, also if one is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from bandit import BanditBatch, unknown_world
from ray_nodes import two_nodes
from rl_runs import assert_same, collected, recipe_of, run

from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.cluster import Cluster
from vla_gen_bench.policies.digests import file_digests
from vla_gen_bench.train.rl.actor_critic import ActorCritic
from vla_gen_bench.train.rl.simulators import LocalSimulator

HALF = ("--num-cpus-per-worker", "0.5")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as nodes:
        yield nodes


def learnt(recipe: Any, out: Path, **options: Any) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Returns digests of the checkpoint's files, and the curve without its times."""
    rows = run(recipe, out, **options)
    timed = ("wall_s", "steps_per_s", "sim_share", "policy_share", "update_share")
    return file_digests(out / "checkpoint"), [{k: row[k] for k in row if k not in timed} for row in rows]


def test_learning_on_two_nodes_gives_the_same_weights_bit_for_bit(
    cluster: Any, checkpoint: Path, tmp_path: Path
) -> None:
    """Two iterations of PPO in world builtin: by this process alone, and by a collector on each node."""
    changes = {"horizon": 3, "episodes": 4, "together": 4, "env_steps": 24, "wander": {"steps": 2}, "batch": 4}
    recipe = recipe_of("ppo", checkpoint, **changes, check_every=2, check_episodes=2)
    recipe = recipe.model_copy(update={"env_steps": 2 * recipe.steps_per_iteration})
    found = learnt(recipe, tmp_path / "ray", build=None, workers=2, cluster=Cluster())
    expected = learnt(recipe, tmp_path / "local", build=None, workers=0)
    assert found == expected and len(found[1]) == 2
    assert not set(found[0].values()) & {file_digests(file)[file.name] for file in checkpoint.glob("*.safetensors")}
    states = [torch.load(tmp_path / where / "state.pt", weights_only=True) for where in ("ray", "local")]
    assert all(torch.equal(states[0]["weights"][name], value) for name, value in states[1]["weights"].items())


def test_learners_of_torchrun_collect_on_one_cluster_and_learn_the_same(
    cluster: Any, checkpoint: Path, tmp_path: Path
) -> None:
    """Two learners with a worker each: processes of their own, or collectors on the cluster."""
    recipe = {"name": "two", "trainer": "ppo", "model": {"checkpoint": str(checkpoint)}, "env_steps": 8, "episodes": 4}
    recipe |= {"optimiser": {"lr": 1e-3}, "horizon": 2, "batch": 4, "together": 2, "lanes": 1}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(recipe))
    for name, *options in (("local",), ("ray", "--engine", "ray", "--address", cluster.address, *HALF)):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "vla_gen_bench", "train", "ppo", "--recipe", str(tmp_path / "two.yaml"), "--workers", "1"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # `cluster` has put this package on the path
        done = subprocess.run(
            [*command, "--out", str(tmp_path / name), *options], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert file_digests(tmp_path / "ray" / "checkpoint") == file_digests(tmp_path / "local" / "checkpoint")


def simulator(actor: ActorCritic, build: Any, workers: int, notes: list[str], **options: Any) -> Any:
    from vla_gen_bench.train.rl.ray_workers import RaySimulator

    cluster = Cluster(**{"cpus": 0.5, **options})
    return RaySimulator(build, actor.view(240, 320), 2, 2, workers, notes.append, cluster, "builtin")


def test_episodes_of_a_killed_collector_are_collected_again(cluster: Any, actor: ActorCritic, tmp_path: Path) -> None:
    """As for processes: one collector has the episodes 0, 2 and 4, the other 1 and 3; 4 has not started."""
    poison, diary, notes = tmp_path / "poison", tmp_path / "diary", []
    poison.touch()
    build = partial(BanditBatch, die_once=str(poison), diary=str(diary))
    found = collected(actor, simulator(actor, build, 2, notes))
    assert not poison.exists() and len(notes) == 1
    assert notes[0].startswith("a collector was lost (") and notes[0].endswith("; its episodes are run again")
    assert_same(found, collected(actor, LocalSimulator(BanditBatch, actor.view(240, 320), 2, 2)))
    begun = Counter(map(int, diary.read_text().split()))
    assert {episode for episode, times in begun.items() if times > 1} in ({0, 2}, {1, 3})


def test_what_a_node_refuses_is_the_users_error_and_names_the_node(cluster: Any, actor: ActorCritic) -> None:
    with pytest.raises(UserError, match=r"world 'mars' is unknown \(node 127.0.0.1\)"):
        collected(actor, simulator(actor, unknown_world, 1, []))


def test_a_node_with_another_version_is_refused(cluster: Any, actor: ActorCritic, monkeypatch: Any) -> None:
    from vla_gen_bench.eval import ray_node

    ours = ray_node.identity("builtin")
    monkeypatch.setattr(ray_node, "identity", lambda world: {**ours, "vla-gen-bench": "0.0.9"})
    expected = f"has vla-gen-bench {ours['vla-gen-bench']}, this command 0.0.9; install the same on all nodes (node"
    with pytest.raises(UserError) as refused:
        collected(actor, simulator(actor, BanditBatch, 1, []))
    assert expected in str(refused.value)


def test_a_node_without_this_version_of_the_package_is_named(
    cluster: Any, actor: ActorCritic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the package has a module that the nodes do not have."""
    later = ModuleType("vla_gen_bench.later")
    exec("def build(size): ...", later.__dict__)
    monkeypatch.setitem(sys.modules, later.__name__, later)
    with pytest.raises(UserError) as refused:
        collected(actor, simulator(actor, later.build, 1, []))
    problem = "this version of vla-gen-bench is not installed there: ModuleNotFoundError: No module named"
    assert f"({problem} 'vla_gen_bench.later' (node 127.0.0.1)), 3 times in a row" in str(refused.value)


def test_learning_waits_for_no_collectors_that_do_not_fit(
    cluster: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("ppo", checkpoint, episodes=8, together=8, lanes=1)
    with pytest.raises(UserError, match="3 workers of 1 CPU each do not fit on its nodes .* 2 workers would"):
        run(recipe, tmp_path / "a", workers=3, cluster=Cluster())
    with pytest.raises(UserError, match="1 worker of 1 CPU and 1 GPU each do not fit .* no workers would"):
        run(recipe, tmp_path / "b", cluster=Cluster(gpus=1))
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_learning_does_not_wait_long_for_a_busy_cluster(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vla_gen_bench.eval import ray_cluster

    monkeypatch.setattr(ray_cluster, "BUSY_S", 0.5)
    other = ray_cluster.ray.util.placement_group([{"CPU": 1}])
    try:
        assert other.wait(60)
        with pytest.raises(UserError, match="would fit, but after 0.5 s only [01.5]+ CPU of all nodes are free"):
            with ray_cluster.connected(Cluster(), 2, print, all_needed=True):
                pass
    finally:
        ray_cluster.ray.util.remove_placement_group(other)


def test_where_a_node_has_left_another_collector_takes_over(cluster: Any, actor: ActorCritic) -> None:
    """The last test of this module: one node remains, whose CPU the other collector has."""
    notes: list[str] = []
    ours = simulator(actor, BanditBatch, 2, notes, cpus=1)
    step, steps = ours.step, []

    def leaves(lane: int, actions: Any) -> None:
        steps.append(lane)
        if len(steps) == 4:
            cluster.remove_node(cluster.added[0])
        step(lane, actions)

    ours.step = leaves
    found = collected(actor, ours)
    assert notes[-1] == "no node has room for another collector; one that is up takes over"
    assert len({id(worker.actor) for worker in ours._workers}) == 1
    assert_same(found, collected(actor, LocalSimulator(BanditBatch, actor.view(240, 320), 2, 2)))
