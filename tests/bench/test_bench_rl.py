"""The benchmark of learning from reward, on the smallest model and two short episodes."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from ray_nodes import need_ray

from vla_gen_bench.bench import rl as bench_rl
from vla_gen_bench.policies.openvla.checkpoint.config_file import read_config
from vla_gen_bench.train.student import checkpoint_of


def test_speeds_and_shares_of_one_iteration() -> None:
    lines = {line.name: line for line in bench_rl.reward_learning("pico", workers=2, episodes=2, horizon=4)}
    values = [line.value for line in lines.values()]
    assert len(values) == 7 and all(value >= 0 for value in values)
    collection, loop, waiting, policy, update = values[:5]
    assert collection > loop > 0  # the loop has the update on top
    assert 0.9 < waiting + policy + update <= 1  # all but the bookkeeping
    assert [line.target for line in lines.values() if line.at_least] == [300]


def collection_speeds(*teams: bench_rl.Team) -> dict[str, float]:
    return {line.name: line.value for line in bench_rl.collection(teams, "pico", episodes=2, horizon=4)}


def test_collection_by_processes_is_measured() -> None:
    (speed,) = collection_speeds(bench_rl.Team(1)).items()
    assert speed[0] == "builtin, 1 worker process: collection" and speed[1] > 0


def test_collection_by_ray_is_measured_on_two_nodes() -> None:
    need_ray()
    (speed,) = collection_speeds(bench_rl.Team(2, nodes=2)).items()
    assert speed[0] == "builtin, 2 collectors on 2 Ray nodes: collection" and speed[1] > 0


def test_the_teams_of_the_benchmark_are_named() -> None:
    processes = ["1 worker process", "2 worker processes"]
    ray = ["1 collector on 1 Ray node", "2 collectors on 1 Ray node", "2 collectors on 2 Ray nodes"]
    assert [str(team) for team in bench_rl.TEAMS] == processes + ray


def test_only_one_step_of_a_chunk_is_drawn(monkeypatch) -> None:
    """A drawn step of 10 ms, 6 without the image: 4 of 10, of four steps 4 of 28."""
    monkeypatch.setattr(bench_rl, "_step_seconds", lambda world, render: 0.010 if render else 0.006)
    assert bench_rl.drawing_share("builtin", 1) == pytest.approx(4 / 10)
    assert bench_rl.drawing_share("builtin", 4) == pytest.approx(4 / 28)


def test_the_measured_policy_acts_as_the_reference_does() -> None:
    acting = asdict(read_config(checkpoint_of("openvla-sft")).acting)
    assert {name: acting[name] for name in bench_rl.ACTING} == bench_rl.ACTING


def test_the_flags_of_vgb_bench_exclude_each_other(cli) -> None:
    ran = cli("bench", "--quick", "--rl")
    assert ran.exit_code == 2 and "give one of them" in ran.stderr
