"""The log survives crashes, names what is wrong, and does not depend on who was faster."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.rollout import pack_actions, unpack_actions
from vla_gen_bench.log.counts import count, wilson
from vla_gen_bench.log.log import EvalLog, LogWriter


def row(index: int, scenario: str = "ind", status: str = "ok", success: bool = True) -> dict:
    head = {"scenario": scenario, "seed": 0, "index": index, "spec_digest": "d", "status": status, "steps": 80}
    return {**head, "success_at_end": success if status == "ok" else None, "success_once": success}


@pytest.fixture
def writer(tmp_path):
    writer = LogWriter(tmp_path / "log")
    writer.write_header({"format": 1})
    return writer


def test_rows_come_back_as_written(writer):
    writer.append(row(0), "abc")
    writer.append(row(1))
    assert writer.log.rows() == [row(0), row(1)]
    assert writer.log.actions(("ind", 0, 0)) == "abc" and writer.log.actions(("ind", 0, 1)) is None
    assert writer.log.header == {"format": 1}


def test_rows_as_a_table(writer):
    for index in range(4):
        writer.append(row(index, "ind" if index < 2 else "far", success=index != 3))
    rates = writer.log.frame().groupby("scenario").success_at_end.mean()
    assert rates.to_dict() == {"far": 0.5, "ind": 1.0}


def test_a_killed_writer_s_half_line_is_dropped_on_resume(writer):
    writer.append(row(0))
    with (writer.folder / "episodes.jsonl").open("a") as file:
        file.write('{"scenario": "ind", "se')
    with pytest.raises(UserError, match=r"episodes.jsonl:2: the last line is unfinished"):
        writer.log.rows()
    assert writer.mend() == [row(0)]
    assert writer.log.rows() == [row(0)]


def test_a_packed_log_reads_as_the_plain_one(writer):
    writer.append(row(0))
    path = writer.folder / "episodes.jsonl"
    path.with_name("episodes.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert writer.log.rows() == [row(0)]


def test_a_malformed_line_is_named_by_file_and_line(writer):
    writer.append(row(0))
    with (writer.folder / "episodes.jsonl").open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(UserError, match=r"episodes.jsonl:2: not a JSON object"):
        writer.log.rows(forgive_last=True)


def test_a_missing_field_is_named(writer):
    (writer.folder / "episodes.jsonl").write_text(json.dumps({"scenario": "ind"}) + "\n")
    with pytest.raises(UserError, match=r"episodes.jsonl:1: no field 'seed'"):
        writer.log.rows()


def test_errored_episodes_are_run_again_on_resume(writer):
    writer.append(row(0, status="error"))
    writer.append(row(1), "xyz")
    assert writer.mend() == [row(1)]
    assert writer.log.actions(("ind", 0, 1)) == "xyz"


def test_sorting_follows_the_suite(writer):
    for index, scenario in ((1, "b"), (0, "b"), (1, "a"), (0, "a")):
        writer.append(row(index, scenario))
    ordered = writer.sort(["b"])  # scenarios the suite does not list, such as compositions, come last
    assert [(r["scenario"], r["index"]) for r in ordered] == [("b", 0), ("b", 1), ("a", 0), ("a", 1)]
    writer.sort(["a", "b"])
    assert [(r["scenario"], r["index"]) for r in writer.log.rows()] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_no_log_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no evaluation log there"):
        assert EvalLog(tmp_path).header


def test_an_unwritable_folder_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the log .*--out"):
        LogWriter(tmp_path / "file" / "log").write_header({})


def test_a_full_disk_is_a_user_error():
    writer = LogWriter(Path("/dev/full"))
    with pytest.raises(UserError, match="cannot write the log"):
        writer.append(row(0))


def test_actions_survive_packing():
    actions = np.random.default_rng(0).normal(size=(80, 7)).astype(np.float32)
    np.testing.assert_array_equal(unpack_actions(pack_actions(actions)), actions)


def test_errors_are_no_failed_attempts():
    """3 successes of 4 finished episodes; Wilson by hand below."""
    rows = [row(i, success=i < 3) for i in range(4)] + [row(9, status="error")]
    counted = count(rows)
    assert (counted["episodes"], counted["errors"], counted["success_at_end"]) == (5, 1, 3)
    z, n, p = 1.959964, 4, 0.75
    centre, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5,
    )
    assert counted["ci95"] == pytest.approx([centre - half, centre + half], abs=1e-5)


def test_the_interval_is_of_the_suite_s_metric():
    rows = [{**row(i, success=False), "success_once": True} for i in range(4)]
    assert count(rows)["ci95"][0] == pytest.approx(0, abs=1e-9)
    assert count(rows, "success_once")["ci95"][1] == pytest.approx(1, abs=1e-9)


def test_wilson_without_trials_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
