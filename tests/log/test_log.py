"""The log survives crashes, names what is wrong, and does not depend on who was faster."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.rollout import pack_actions, unpack_actions
from vla_gen_bench.log import provenance
from vla_gen_bench.log.counts import count, wilson
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.log.guard import is_held, locked
from vla_gen_bench.log.header import Header, Planned
from vla_gen_bench.log.rows import row_of
from vla_gen_bench.log.writer import LogWriter

HEADER = {"format": 1, "suite": {"id": "s", "digest": "d"}, "policy": {"name": "p"}, "world": {"name": "w"}}


def row(index: int, scenario: str = "ind", status: str = "ok", success: bool = True) -> dict:
    head = {"scenario": scenario, "seed": 0, "index": index, "spec_digest": "d", "status": status, "steps": 80}
    return {**head, "success_at_end": success if status == "ok" else None, "success_once": success}


@pytest.fixture
def writer(tmp_path):
    writer = LogWriter(tmp_path / "log")
    writer.write_header(HEADER)
    return writer


def test_rows_come_back_as_written(writer):
    writer.append(row(0), "abc")
    writer.append(row(1))
    assert writer.log.rows() == [row(0), row(1)]
    assert writer.log.actions(("ind", 0, 0)) == "abc" and writer.log.actions(("ind", 0, 1)) is None
    assert writer.log.header.raw == HEADER and writer.log.header.policy.name == "p"


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
    kept, notes = writer.restore()
    assert [*kept] == [("ind", 0, 0)] and notes == []
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
    with pytest.raises(UserError, match=r"episodes.jsonl:2: not JSON: Expecting value"):
        writer.log.rows(forgive_last=True)


def test_a_missing_field_is_named(writer):
    (writer.folder / "episodes.jsonl").write_text(json.dumps({"scenario": "ind"}) + "\n")
    with pytest.raises(UserError, match=r"episodes.jsonl:1: no field 'seed'"):
        writer.log.rows()


def test_errored_episodes_are_run_again_on_resume(writer):
    writer.append(row(0, status="error"))
    writer.append(row(1), "xyz")
    assert [*writer.restore()[0]] == [("ind", 0, 1)]
    assert writer.log.actions(("ind", 0, 1)) == "xyz"


def test_sorting_follows_the_suite(writer):
    for index, scenario in ((1, "b"), (0, "b"), (1, "a"), (0, "a")):
        writer.append(row(index, scenario))
    ordered = writer.sort(["b"])  # scenarios the suite does not list, such as compositions, come last
    assert [(scenario, index) for scenario, _, index in ordered] == [("b", 0), ("b", 1), ("a", 0), ("a", 1)]
    writer.sort(["a", "b"])
    assert [(r["scenario"], r["index"]) for r in writer.log.rows()] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def test_no_log_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no evaluation log there"):
        assert EvalLog(tmp_path).header


@pytest.mark.parametrize(("field", "value"), [("format", 2), ("format", 0), ("horizon", -1)])
def test_a_header_of_a_later_format_or_without_sense_is_refused(writer, field, value):
    (writer.folder / "run.json").write_text(json.dumps({**HEADER, field: value}))
    with pytest.raises(UserError, match=f"run.json: {field}: input should be"):
        assert EvalLog(writer.folder).header


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
    counted = count(map(row_of, rows)).to_json()
    assert (counted["episodes"], counted["errors"], counted["success_at_end"]) == (5, 1, 3)
    z, n, p = 1.959964, 4, 0.75
    centre, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5,
    )
    assert counted["ci95"] == pytest.approx([centre - half, centre + half], abs=1e-5)


def test_the_interval_is_of_the_suite_s_metric():
    counted = count(row_of({**row(i, success=False), "success_once": True}) for i in range(4))
    assert counted.to_json()["ci95"][0] == pytest.approx(0, abs=1e-9)
    assert counted.to_json("success_once")["ci95"][1] == pytest.approx(1, abs=1e-9)


def test_wilson_without_trials_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


# ---- one writer, one row per episode -------------------------------------------------------------------------


def disorder(writer, *rows: dict) -> None:
    (writer.folder / "episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_frames_and_counts_agree_about_an_episode_that_errored_first(writer):
    disorder(writer, row(0, status="error"), row(1), row(0))
    assert writer.log.rows() == [row(1), row(0)] and writer.log.counts()["ind"].errors == 0


def test_a_row_of_another_run_is_refused_by_rows_as_by_counts(writer):
    writer.write_header({**HEADER, "run": "a" * 16})
    disorder(writer, {**row(0), "run": "a" * 16}, {**row(1), "run": "b" * 16})
    assert writer.log.counts()["ind"].episodes == 1
    with pytest.raises(UserError, match=r"episodes.jsonl:2: a row of another run \(bbbb"):
        writer.log.frame()


def test_an_appended_gzipped_log_keeps_its_actions(writer):
    writer.append(row(0), "abc")
    for name in ("episodes.jsonl", "actions.jsonl"):
        path = writer.folder / name
        path.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    writer.unpack()
    writer.append(row(1), "def")
    assert writer.log.rows() == [row(0), row(1)]
    assert [writer.log.actions(("ind", 0, index)) for index in (0, 1)] == ["abc", "def"]


def planned(*sessions: tuple[int, list[int]]) -> Planned:
    """What sessions planned, each of so many episodes of each seed, in two scenarios."""
    manifests = [
        {"scenarios": ["a", "b"], "episodes": 2 * each * len(seeds), "seeds": seeds} for each, seeds in sessions
    ]
    return Header.model_validate({**HEADER, "sessions": [{"manifest": each} for each in manifests]}).planned()


def test_what_is_missing_is_found_by_episode_not_by_number():
    """Two sessions of one seed each: all of seed 1 and one of seed 0 are as many as one session planned, not as two."""
    seed_0, seed_1 = ([(name, seed, index) for name in "ab" for index in range(2)] for seed in (0, 1))
    both = planned((2, [0]), (2, [1]))
    assert both.missing([*seed_0, *seed_1]) == {} and both.scenarios == {"a", "b"}
    assert both.missing(seed_1) == {"a": 2, "b": 2}
    assert both.missing([*seed_0[1:], *seed_1, ("a", 0, 7)]) == {"a": 1}  # an episode that none planned fills no gap


def test_the_larger_plan_of_a_seed_counts_and_plans_without_seeds_count_numbers():
    assert planned((1, [0]), (3, [0, 1])).missing([("a", 0, 0)]) == {"a": 5, "b": 6}
    old = {"manifest": {"scenarios": ["a"], "episodes": 3}}
    assert Header.model_validate({**HEADER, "sessions": [old]}).planned().missing([("a", 5, 9)]) == {"a": 2}


def test_two_writers_rows_count_once_and_a_resume_drops_them(writer):
    """Rows of episodes 0, 1, 0: the third says what the first says."""
    twin = {**row(0), "duration_s": 9.0, "worker": 1}
    disorder(writer, row(0), row(1, success=False), twin)
    reading = writer.log.read()
    assert [*reading.rows] == [("ind", 0, 0), ("ind", 0, 1)] and reading.problems == ()
    assert reading.repeated == (("ind", 0, 0),) and count(reading.rows.values()).episodes == 2
    assert writer.log.rows() == [row(0), row(1, success=False)] and len(writer.log.frame()) == 2
    kept, notes = writer.restore()
    assert [*kept] == [*reading.rows] and notes == ["1 rows that repeated an episode were dropped"]
    assert (writer.folder / "episodes.jsonl").read_text().count("\n") == 2


def test_rows_that_contradict_each_other_are_named_and_run_again(writer):
    disorder(writer, {**row(0), "trace": "a"}, row(1), {**row(0), "trace": "b"})
    reading = writer.log.read()
    assert reading.disputed == (("ind", 0, 0),)
    assert reading.problems[0].endswith("episodes.jsonl:3: episode ind/0/0 is there twice, with another end; "
                                        "the first counts")  # fmt: skip
    kept, notes = writer.restore()
    assert [*kept] == [("ind", 0, 1)] and "1 episodes had rows that contradict each other" in notes[0]


def test_an_outcome_takes_the_place_of_an_earlier_error(writer):
    disorder(writer, row(0, status="error"), row(0))
    assert writer.log.read().rows["ind", 0, 0].ok
    assert [*writer.restore()[0]] == [("ind", 0, 0)] and writer.log.rows() == [row(0)]


def test_a_row_of_another_run_is_refused_by_its_digest(writer):
    disorder(writer, {**row(0), "run": "aaaa"}, {**row(1), "run": "bbbb"}, row(2))
    reading = writer.log.read("aaaa")
    assert [key[2] for key in reading.rows] == [0, 2]
    assert reading.problems[0].endswith("episodes.jsonl:2: a row of another run (bbbb; run.json is of aaaa)")
    with pytest.raises(UserError, match="a row of another run .* --fresh"):
        writer.restore("aaaa")


def test_secrets_never_reach_a_log(monkeypatch):
    options = {"api_key": "k", "HF_TOKEN": "t", "token": "u", "max_tokens": 3, "pad_token": "<pad>", "tokenizer": "x"}
    kept = provenance.without_secrets(options)
    assert kept == {**options, "api_key": "(hidden)", "HF_TOKEN": "(hidden)", "token": "(hidden)"}
    given = ["vgb", "eval", "--policy-option", "api_key=k", "--policy-option=my_password=a=b", "--policy-option", "n=3"]
    monkeypatch.setattr("sys.argv", given)
    hidden = ["--policy-option", "api_key=(hidden)", "--policy-option=my_password=(hidden)", "--policy-option", "n=3"]
    assert provenance.session()["command"] == ["vgb", "eval", *hidden]


def test_a_complete_log_on_a_read_only_disk_is_not_written(writer, monkeypatch):
    writer.append(row(1), "abc")
    writer.append(row(2, "far"), "def")

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("vla_gen_bench.log.writer.replace_file", refuse)
    assert len(writer.restore()[0]) == 2 and len(writer.sort(["ind", "far"])) == 2
    with pytest.raises(UserError, match="Read-only file system"):
        writer.sort(["far", "ind"])


def test_moving_aside_keeps_the_folder_and_everything_in_it(writer):
    writer.append(row(0), "abc")
    (writer.folder / "videos").mkdir()
    before, inode = sorted(path.name for path in writer.folder.iterdir()), writer.folder.stat().st_ino
    first, second = writer.move_aside(), writer.move_aside()
    assert sorted(path.name for path in first.iterdir()) == before and first != second
    assert list(writer.folder.iterdir()) == [] and writer.folder.stat().st_ino == inode


def test_one_process_writes_a_folder_at_a_time(tmp_path):
    with locked(tmp_path / "a" / "log"), pytest.raises(UserError, match="another process is writing there"):
        with locked(tmp_path / "a" / "log"):
            pass
    assert not (tmp_path / "a").exists()  # nothing was put there
    with locked(tmp_path / "log"):
        (tmp_path / "log" / "file").write_text("")
    assert (tmp_path / "log" / "file").exists()


def test_nothing_is_written_to_a_folder_that_took_the_place_of_a_removed_one(tmp_path):
    """A command's folder is removed while it runs, and a second command begins to write under that name."""
    folder = tmp_path / "log"
    first, second = LogWriter(folder), LogWriter(folder)
    with locked(folder):
        first.append(row(0))
        shutil.rmtree(folder)
        with pytest.raises(UserError, match="was removed while this command wrote there"):
            first.append(row(1))
        folder.mkdir()
        with pytest.raises(UserError, match="was removed while this command wrote there"):
            first.append(row(1))
    assert folder.is_dir() and list(folder.iterdir()) == []  # it belongs to the second command
    with locked(folder):
        second.append(row(2))
    assert [each["index"] for each in EvalLog(folder).rows()] == [2]


def test_a_folder_can_be_held_where_the_file_system_has_no_locks(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with locked(tmp_path / "log"):
        assert not is_held(tmp_path / "log")  # nobody can tell
        LogWriter(tmp_path / "log").append(row(0))


@pytest.mark.parametrize(
    ("fields", "codec"),
    [
        ({}, "none"),
        ({"connection": {"codec": "raw", "adapter": [{"resize": {"height": 224}}]}}, "raw"),
        ({"connection": {"codec": "json-numpy", "adapter": [{"jpeg": {"quality": 75}}]}}, "jpeg q75 + json-numpy"),
        ({"connection": {"codec": "png"}}, "png"),
        ({"adapter": [{"jpeg": {"quality": 95}}, {"gripper": {}}]}, "jpeg q95"),  # in the process, with a card
        ({"connection": {"codec": {"odd": 1}, "adapter": "jpeg"}}, "{'odd': 1}"),
    ],
)
def test_the_image_codec_follows_from_the_adapter_and_the_connection(fields, codec):
    assert Header.model_validate({**HEADER, **fields}).image_codec == codec
