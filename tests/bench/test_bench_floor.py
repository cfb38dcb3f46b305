"""`vgb bench --quick`: beside each figure what the simulator alone takes, from the same episodes."""

from __future__ import annotations

import pytest
from sim import environment, poses, spec_of

from vla_gen_bench.bench import measure
from vla_gen_bench.bench.floor import Floor
from vla_gen_bench.bench.measure import Line


def test_the_ratio_is_how_many_times_the_floor_s_time_it_takes() -> None:
    assert Line("a step", 6.0, "ms", floor=4.0).ratio == 1.5
    assert Line("steps", 200.0, "steps/s", at_least=True, floor=300.0).ratio == 1.5
    assert Line("no floor", 1.0, "s").ratio is None


def test_a_floor_counts_physics_once_and_a_frame_and_changes_nothing() -> None:
    env = environment("builtin", "rgb")
    env.reset(options={"spec": spec_of()})
    simulate, floor = env.simulate, Floor(env)
    try:
        env.simulate(1000)
        moved = poses(env).tobytes()
        with_physics, frame_alone = floor.seconds(), floor.seconds()
    finally:
        env.simulate = simulate
    assert with_physics > frame_alone > 0 and poses(env).tobytes() == moved


def test_the_bench_puts_floors_below_what_it_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "EPISODES_TIMED", 1)
    monkeypatch.setattr(measure, "BATCH", 2)
    monkeypatch.setattr(measure, "BATCH_STEPS", 4)
    lines = {line.name: line for line in measure.steps("builtin")}
    for name in ("step, 320x240, median of whole episodes", "step, mean", "reset with a fresh scene, median"):
        line = lines[f"builtin: {name}"]
        assert 0 < line.floor < line.value, name
    assert lines["builtin: 2 episodes side by side in one process"].floor > 0
