"""The measure of listening: among episodes that grasped exactly one of two objects."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

SPEC = importlib.util.spec_from_file_location(
    "listening", Path(__file__).resolve().parents[2] / "benchmarks" / "listening.py"
)
listening = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(listening)


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
