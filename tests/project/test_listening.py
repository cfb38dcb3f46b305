"""The measures of listening: which of two objects is grasped, and which one the arm approaches."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


listening, approach = script("listening"), script("approach")


def rows(*pairs: tuple[bool, bool], status: str = "ok") -> list[dict]:
    return [{"status": status, "grasped_ever": named, "wrong_grasped": other} for named, other in pairs]


def test_episodes_with_both_or_none_do_not_count():
    """Named only: 2, other only: 1, both: 1, none: 1, one that errored: 2 of 3."""
    found = listening.listening(
        rows((True, False), (True, False), (False, True), (True, True), (False, False))
        + rows((True, False), status="error")
    )
    assert (found["episodes"], found["one_only"], found["named"]) == (5, 3, 2)
    assert math.isclose(found["share"], 2 / 3) and found["low"] < 2 / 3 < found["high"]


def test_nothing_grasped_has_no_share():
    assert math.isnan(listening.listening(rows((False, False)))["share"])


def state(arm: tuple[float, float, float], named: tuple[float, ...], other: tuple[float, ...]) -> SimpleNamespace:
    bodies = [SimpleNamespace(position=np.array(place)) for place in (named, other)]
    return SimpleNamespace(position=np.array(arm), target=bodies[0], distractors={"other": bodies[1]})


def test_the_closest_approach_counts_horizontally():
    """The arm passes 0.03 m beside the named object, 0.2 m above it, and ends 0.05 m from the other one."""
    source = SimpleNamespace(needs_observation=True, reset=lambda *args: None, next_actions=lambda observation: 0)
    watched = approach.Watched(source)
    watched.reset(["put carrot on plate"], [0])
    for arm in ((0.0, 0.0, 0.3), (0.03, 0.1, 0.2), (0.1, -0.05, 0.1)):
        watched.next_actions(SimpleNamespace(privileged=[state(arm, (0.0, 0.1, 0.0), (0.1, -0.1, 0.0))]))
    watched.next_actions(None)  # within a chunk nothing is observed
    assert np.allclose(watched.closest, [[0.03, 0.05]])


def test_every_scene_is_run_with_each_object_named():
    spec = approach.draw_training("pretrain", approach.CHECK_SEED, 0, approach.TWO)
    twin = approach.with_roles_swapped(spec)
    assert spec.distractor_objects and twin.target == spec.distractor_objects[0] and twin.table == spec.table
