"""`vgb merge`: logs of one run become one log; whatever does not belong together is refused by name."""

from __future__ import annotations

import gzip
import json
import os
import resource
from pathlib import Path

import pytest
from report_logs import REAL, row, write_log, write_rows

from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.errors import UserError
from vla_gen_bench.log.files import ACTIONS_FILE, EPISODES_FILE, RUN_FILE
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.log.guard import locked
from vla_gen_bench.log.merge import merge

OUTCOMES = {"ind": [True, True, False, True], "noise_weak": [False, True, False, False]}
SCENARIOS = list(OUTCOMES)


def all_rows(**fields) -> list[dict]:
    return [row(name, 0, i, success, **fields) for name, all in OUTCOMES.items() for i, success in enumerate(all)]


def shards(folder: Path, *parts: list[dict], change: dict | None = None, planned: int = 4) -> list[Path]:
    """Writes logs with these rows, each as the log of one shard."""
    logs = []
    for number, rows in enumerate(parts):
        log = write_log(folder / f"s{number}", OUTCOMES, policy="p", planned=planned, change=change)
        write_rows(log, rows)
        logs.append(log)
    return logs


def changed(log: Path, **fields) -> None:
    path = log / RUN_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def text(log: Path) -> bytes:
    return (log / EPISODES_FILE).read_bytes()


def test_merged_rows_are_those_of_one_run_in_its_order(tmp_path: Path) -> None:
    rows = all_rows()
    whole = write_log(tmp_path / "whole", OUTCOMES, policy="p")
    logs = shards(tmp_path, rows[1::3], rows[2::3], rows[0::3])
    merged = merge(logs, tmp_path / "out")
    assert merged.complete and merged.rows == 8 and merged.repeated == 0
    assert text(tmp_path / "out") == text(whole)
    assert len(EvalLog(tmp_path / "out").header.sessions) == 3


def test_rows_that_say_the_same_are_kept_once_and_others_refused(tmp_path: Path) -> None:
    rows = all_rows()
    logs = shards(tmp_path, rows, [{**rows[0], "duration_s": 9.0, "worker": 3}, rows[5]])
    assert merge(logs, tmp_path / "out").repeated == 2
    assert text(tmp_path / "out") == text(logs[0])
    write_rows(logs[1], [{**rows[0], "success_at_end": False}])
    with pytest.raises(UserError, match="episode ind/0/0 ended differently in .*s0 and .*s1"):
        merge(logs, tmp_path / "other")
    write_rows(logs[1], [{**rows[0], "spec_digest": "another"}])
    with pytest.raises(UserError, match="episode ind/0/0 was drawn differently"):
        merge(logs, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_second_merge_into_the_folder_above_its_sources_leaves_them_there(tmp_path: Path) -> None:
    """As `vgb eval --shard` and `vgb merge` lay them out by default: shards below the folder of the merged log."""
    rows = all_rows()
    out = tmp_path / "run"
    logs = shards(out, rows[1::2], rows[0::2])
    merge(logs, out)
    (out / "videos").mkdir()
    once = text(out)
    assert merge(logs, out, fresh=True).rows == 8 and text(out) == once
    (aside,) = tmp_path.glob("run.*")
    assert sorted(path.name for path in aside.iterdir()) == [EPISODES_FILE, RUN_FILE, "videos"] and text(aside) == once


def test_a_log_that_is_being_written_is_not_merged(tmp_path: Path) -> None:
    logs = shards(tmp_path, all_rows()[1::2], all_rows()[0::2])
    with locked(logs[1]), pytest.raises(UserError, match="s1: another process is writing there"):
        merge(logs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert merge(logs, tmp_path / "out").complete


def test_more_logs_are_merged_than_files_may_be_open(tmp_path: Path) -> None:
    logs = shards(tmp_path, *([each] for each in all_rows()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = len(os.listdir("/proc/self/fd")) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        assert merge(logs, tmp_path / "out").complete
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_traces_decide_where_both_rows_have_one(tmp_path: Path) -> None:
    rows = all_rows(trace="a")
    logs = shards(tmp_path, rows, [{**rows[0], "trace": "b"}])
    with pytest.raises(UserError, match="ended differently"):
        merge(logs, tmp_path / "out")
    write_rows(logs[1], [{name: value for name, value in rows[0].items() if name != "trace"}])
    assert merge(logs, tmp_path / "out").repeated == 1


def test_an_error_gives_way_to_an_outcome_and_is_named_otherwise(tmp_path: Path) -> None:
    rows = all_rows()
    errored = [row("ind", 0, 0, None, error="lost"), row("ind", 0, 1, None, error="lost")]
    logs = shards(tmp_path, errored, rows[1:])
    merged = merge(logs, tmp_path / "out")
    assert merged.errored == {"ind": 1} and not merged.missing and not merged.complete
    assert EvalLog(tmp_path / "out").read().rows["ind", 0, 1].ok


def test_what_is_missing_is_counted_and_the_log_written(cli, tmp_path: Path) -> None:
    rows = all_rows()
    logs = shards(tmp_path, rows[:3], rows[4:6])
    with (logs[1] / EPISODES_FILE).open("a") as file:
        file.write('{"scenario": "ind", "se')
    ran = cli("merge", *logs, "--out", tmp_path / "out")
    assert ran.exit_code == 1 and ran.stdout.startswith("5 episodes of 2 logs")
    assert "missing: 1 of ind, 2 of noise_weak" in ran.stderr and "s1: its last line was cut off" in ran.stderr
    assert "'vgb eval' command without --shard" in ran.stderr
    assert cli("report", tmp_path / "out", "--allow-partial").exit_code == 0


def test_an_extra_episode_of_another_seed_hides_no_missing_one(cli, tmp_path: Path) -> None:
    """Two logs of one seed each; the first lacks an episode of four."""
    rows = [row("ind", seed, index, True) for seed in (0, 1) for index in range(4)]
    logs = shards(tmp_path, rows[:3], rows[4:])
    for seed, log in enumerate(logs):
        draws = [["ind", seed, index, f"ind-{seed}-{index}"] for index in range(4)]
        manifest = {"scenarios": ["ind"], "seeds": [seed], "episodes": 4, "digest": digest_of(draws)}
        changed(log, sessions=[{"started": "2026-01-01T00:00:00Z", "manifest": manifest}])
    ran = cli("merge", *logs, "--out", tmp_path / "out")
    assert ran.exit_code == 1 and "missing: 1 of ind" in ran.stderr
    assert "1 missing" in cli("report", tmp_path / "out").stderr


@pytest.mark.parametrize(
    ("part", "value", "expected"),
    [
        ("suite", {"id": "vision", "version": "1", "digest": "x"}, "suite digest: .*s0 has '.*', .*s1 has 'x'"),
        ("policy", {"name": "p", "digest": "x"}, "policy digest"),
        ("world", {"name": "builtin", "catalog": "2" * 16, "pack": "x"}, "world pack"),
        ("simulator", {"sapien": "0"}, "simulator sapien"),
        ("horizon", 5, "horizon: .*s0 has None, .*s1 has 5"),
        ("action_spec", {"chunk": 3}, "action_spec chunk"),
    ],
)
def test_logs_of_different_runs_are_refused_by_the_field(tmp_path: Path, part, value, expected) -> None:
    logs = shards(tmp_path, all_rows(), all_rows())
    before = EvalLog(logs[1]).header.raw.get(part)
    changed(logs[1], **{part: {**before, **value} if isinstance(before, dict) else value})
    with pytest.raises(UserError, match=f"logs of different runs cannot be merged: {expected}"):
        merge(logs, tmp_path / "out")


def test_a_row_whose_draw_was_changed_is_found_by_the_plan(tmp_path: Path) -> None:
    rows = all_rows()
    draws = [[r["scenario"], r["seed"], r["index"], r["spec_digest"]] for r in rows]
    plan = {"scenarios": SCENARIOS, "seeds": [0], "episodes": 8, "digest": digest_of(draws)}
    logs = shards(tmp_path, rows[::2], rows[1::2], change={"sessions": [{"manifest": plan}]})
    assert merge(logs, tmp_path / "out").complete
    write_rows(logs[1], [{**rows[1], "spec_digest": "other"}, *rows[3::2]])
    with pytest.raises(UserError, match="is of other draws than the rows"):
        merge(logs, tmp_path / "other")


def test_gzipped_logs_actions_and_videos_are_merged_too(tmp_path: Path) -> None:
    rows = all_rows()
    logs = shards(tmp_path, rows[::2], rows[1::2])
    (logs[0] / f"{EPISODES_FILE}.gz").write_bytes(gzip.compress(text(logs[0])))
    (logs[0] / EPISODES_FILE).unlink()
    for number, log in enumerate(logs):
        (log / ACTIONS_FILE).write_text(
            json.dumps({"scenario": "ind", "seed": 0, "index": number, "actions": "x"}) + "\n{"
        )
        (log / "videos").mkdir()
        (log / f"videos/{number}.mp4").write_bytes(b"video")
    (logs[0] / "videos/link.mp4").symlink_to("/etc/passwd")
    assert merge(logs, tmp_path / "out").complete
    out = EvalLog(tmp_path / "out")
    assert out.actions(("ind", 0, 0)) == out.actions(("ind", 0, 1)) == "x"
    assert sorted(path.name for path in (tmp_path / "out/videos").iterdir()) == ["0.mp4", "1.mp4"]


def test_bad_input_is_named_and_nothing_written(cli, tmp_path: Path) -> None:
    one, two = shards(tmp_path, all_rows(), all_rows())
    for arguments, expected in (
        ((one, one), "given twice"),
        ((one, tmp_path / "none"), "no evaluation log there"),
        ((one, two, "--out", one), "is --out itself"),
        ((one, two, "--out", REAL), "holds a log already"),
    ):
        ran = cli("merge", "--out", tmp_path / "out", *arguments)
        assert ran.exit_code == 2 and expected in ran.stderr and ran.stderr.count("\n") == 1, ran.stderr
    (two / EPISODES_FILE).write_text("{}\n")
    ran = cli("merge", one, two, "--out", tmp_path / "out")
    assert ran.exit_code == 2 and f"{two / EPISODES_FILE}:1: no field 'scenario'" in ran.stderr
    assert not (tmp_path / "out").exists()
    write_rows(two, all_rows(run="0" * 16))
    changed(two, run="1" * 16), changed(one, run="1" * 16)
    with pytest.raises(UserError, match="a row of another run"):
        merge([one, two], tmp_path / "out")


def test_fresh_moves_an_earlier_merged_log_aside(tmp_path: Path) -> None:
    logs = shards(tmp_path, all_rows())
    merge(logs, tmp_path / "out")
    merge(logs, tmp_path / "out", fresh=True)
    assert len(list(tmp_path.glob("out.*"))) == 1 and text(tmp_path / "out") == text(logs[0])


def test_large_logs_are_surveyed_in_processes_to_the_same_end(tmp_path: Path, monkeypatch) -> None:
    from vla_gen_bench.log import merge as module

    rows = all_rows()
    logs = shards(tmp_path, rows[::2], rows[1::2])
    merge(logs, tmp_path / "one")
    monkeypatch.setattr(module, "MANY_BYTES", 0)
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    merge(logs, tmp_path / "two")
    assert text(tmp_path / "one") == text(tmp_path / "two")
