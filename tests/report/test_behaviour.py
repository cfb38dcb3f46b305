"""Shares of stages and coverage per policy, on rows small enough to count by hand."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest

from vla_gen_bench.errors import UserError
from vla_gen_bench.log.coverage import coverage as pack
from vla_gen_bench.log.stages import STAGES
from vla_gen_bench.report.behaviour import coverage, rows_of, stage_shares


def frame(*rows: tuple[str, str, str | None]) -> pandas.DataFrame:
    return pandas.DataFrame(rows, columns=["policy", "scenario", "stage"])


def test_shares_are_per_policy_and_scenario():
    """b on far: 1 of 4 dropped, 3 of 4 success; the row without a stage does not count."""
    rows = [("b", "far", "success")] * 3 + [("b", "far", "dropped"), ("b", "far", None), ("a", "ind", "never_reached")]
    shares = stage_shares(frame(*rows))
    assert list(shares.columns) == ["episodes", *STAGES]
    assert shares.index.tolist() == [("b", "far"), ("a", "ind")]
    assert shares.loc[("b", "far"), ["episodes", "success", "dropped"]].tolist() == [4, 0.75, 0.25]
    assert shares[list(STAGES)].sum(axis=1).tolist() == [1, 1]


def test_shares_per_policy_alone():
    shares = stage_shares(frame(("a", "ind", "success"), ("a", "far", "dropped")), by=("policy",))
    assert shares.loc["a", "success"] == 0.5 and shares.index.tolist() == ["a"]


def test_coverage_counts_cells_once_per_policy():
    """Episodes of a in cells {0, 1} and {1}: 1.5 per episode, 2 in all; b turns half the time by 90 degrees."""
    one, two = [0.01, -0.31, -0.01], [0.01, -0.31, 0.01]
    still = np.tile(np.eye(3), (2, 1, 1))
    half = np.array([[[0, -1, 0], [1, 0, 0], [0, 0, 1]], np.eye(3)])
    rows = [("a", [one, two], still), ("a", [two, [0, 0, 9]], still), ("b", [one, one], half), ("b", None, None)]
    packed = [pack(np.array(path), turns) if path else None for _, path, turns in rows]
    table = coverage(pandas.DataFrame({"policy": [name for name, _, _ in rows], "coverage": packed}))
    assert table.loc["a", ["episodes", "cells_per_episode", "cells", "outside_share"]].tolist() == [2, 1.5, 2, 0.25]
    assert table.loc["a", "orientation_spread_deg"] == pytest.approx(0, abs=1e-6)
    assert table.loc["b", "cells"] == 1
    assert table.loc["b", "orientation_spread_deg"] == pytest.approx(45, abs=0.1)


def test_coverage_per_policy_and_scenario():
    packed = pack(np.array([[0.01, -0.31, -0.01]]), np.eye(3)[None])
    rows = pandas.DataFrame({"policy": ["a", "a"], "scenario": ["ind", "far"], "coverage": [packed, packed]})
    table = coverage(rows, by=("policy", "scenario"))
    assert table.index.tolist() == [("a", "ind"), ("a", "far")] and table["cells"].tolist() == [1, 1]


def test_rows_of_several_runs_carry_their_policy(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        head = {"scenario": "ind", "seed": 0, "index": 0, "spec_digest": "d", "status": "ok", "steps": 80}
        row = {**head, "success_at_end": True, "success_once": True, "stage": "success"}
        (tmp_path / name / "episodes.jsonl").write_text(json.dumps(row) + "\n")
    rows = rows_of({"first": tmp_path / "x", "second": tmp_path / "y"})
    assert rows.columns[0] == "policy" and rows["policy"].tolist() == ["first", "second"]
    assert stage_shares(rows)["success"].tolist() == [1, 1]


def test_a_log_without_the_field_says_so():
    old = pandas.DataFrame({"policy": ["a"], "scenario": ["ind"]})
    for function, field in ((stage_shares, "stage"), (coverage, "coverage")):
        with pytest.raises(UserError, match=f"no episode of this log has the field '{field}': evaluate again"):
            function(old)
