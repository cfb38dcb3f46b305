"""A worker that runs episode after episode takes no more memory, and old episodes change nothing in new ones."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from sim import environment, image, poses, spec_of

from vla_gen_bench.envs import scene

RESETS = 60
STATM = Path("/proc/self/statm")


def resident_mb() -> float:
    return int(STATM.read_text().split()[1]) * 4096 / 1e6


@pytest.mark.skipif(not STATM.exists(), reason="resident memory is read from /proc")
def test_resets_do_not_add_memory_without_a_garbage_collection(monkeypatch) -> None:
    """Many objects, 60 resets: each old scene goes at once. One that stayed would add 4 MB."""
    env = environment()
    specs = [spec_of("multi_object_ood", 0, index) for index in range(10)]
    for spec in specs:
        env.reset(options={"spec": spec})
    gc.disable()
    monkeypatch.setattr(gc, "collect", lambda: 0)
    try:
        before = resident_mb()
        for index in range(RESETS):
            env.reset(options={"spec": specs[index % len(specs)]})
        assert resident_mb() - before < 60
    finally:
        gc.enable()


def test_an_old_scene_is_gone_before_the_next_is_built(monkeypatch) -> None:
    """Otherwise the textures of two episodes are there at once, and dropping models frees nothing in time."""
    env, spec = environment(), spec_of("multi_object_ood", 0, 3)
    env.reset(options={"spec": spec})
    old, alive = [weakref.ref(thing.actor) for thing in env.things], []
    make_room = scene.LoadedModels.make_room

    def look(*arguments) -> None:
        alive.extend(ref() is not None for ref in old)
        make_room(*arguments)

    monkeypatch.setattr(scene.LoadedModels, "make_room", look)
    env.reset(options={"spec": spec})
    assert len(alive) == len(old) >= 3 and not any(alive)


def test_a_reset_is_the_same_bit_by_bit_after_others_and_after_the_models_were_dropped(monkeypatch) -> None:
    env, spec = environment(), spec_of("multi_object_ood", 0, 3)

    def start() -> list[np.ndarray]:
        observation, _ = env.reset(options={"spec": spec})
        return [image(observation), poses(env)]

    first = start()
    env.reset(options={"spec": spec_of("multi_object_ood", 0, 4)})
    monkeypatch.setattr(scene, "IDLE_PIXELS", -1)
    for expected, found in zip(first * 2, [*start(), *start()], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_models_are_dropped_when_idle_ones_take_too_much(monkeypatch) -> None:
    env, dropped = environment(), []
    monkeypatch.setattr(scene.sapien.render, "clear_cache", lambda: dropped.append(True))
    env._models = scene.LoadedModels()
    one, other = (spec_of("ind", 0, index) for index in (0, 1))
    textures = {thing.id: 128 * 128 for thing in (one.target, one.receptacle)}
    needed = {other.target.id, other.receptacle.id}
    idle = sum(pixels for id, pixels in textures.items() if id not in needed)
    for limit, expected in ((idle, []), (idle - 1, [True])):
        monkeypatch.setattr(scene, "IDLE_PIXELS", 10**9)
        env.reset(options={"spec": one})
        env._models = scene.LoadedModels()
        env._models.note(env.pack, env.things)
        monkeypatch.setattr(scene, "IDLE_PIXELS", limit)
        env.reset(options={"spec": other})
        assert dropped == expected
