"""`vgb eval --reuse`: episodes of an earlier log that a new one need not run again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

import vla_gen_bench as vgb
from vla_gen_bench.errors import UserError
from vla_gen_bench.log.folder import EvalLog

SUITE = {
    "id": "short",
    "version": "1",
    "protocol": {"episodes_per_seed": 2, "seeds": [0, 1], "horizon": 5},
    "scenarios": {
        "ind": {"label": "IND", "dimension": "ind"},
        "tables": {"label": "Tables", "dimension": "vision", "shift": {"table": "unseen"}},
    },
}
POLICY = """
import os
import numpy as np
from vla_gen_bench.policies import ActionSpec

class Steady:
    action_spec = ActionSpec()
    def __init__(self, loud=False):
        pass
    def reset(self, instructions, seeds):
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        open(os.environ["RESETS"], "a").write(len(seeds) * "x")
    def act(self, observation):
        noise = [generator.normal(0, 0.01, (1, 7)) for generator in self.generators]
        return np.stack(noise).astype(np.float32)
"""


def write_suite(version: str = "1", **shifts: dict) -> None:
    scenarios = {**SUITE["scenarios"], **{id: {**SUITE["scenarios"]["tables"], **row} for id, row in shifts.items()}}
    Path("short.yaml").write_text(yaml.safe_dump({**SUITE, "version": version, "scenarios": scenarios}))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with a policy, and its complete log of version 1 of a suite."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setenv("RESETS", "resets.txt")
        Path("pol.py").write_text(POLICY)
        write_suite()
        vgb.evaluate("pol:Steady", "short.yaml", workers=1, out="first", progress=False)
    return folder


@pytest.fixture
def finished(first, tmp_path, monkeypatch):
    """A working directory with a copy of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESETS", "resets.txt")
    shutil.copy(first / "pol.py", tmp_path)
    shutil.copytree(first / "first", tmp_path / "first")
    return tmp_path


def evaluate(cli, out: str, *more: object):
    return cli("eval", "--policy", "pol:Steady", "--suite", "short.yaml", "--workers", 1, "--out", out, *more)


def ran() -> int:
    """The number of episodes run since the first log, with the policy's trial of its first one."""
    return len(Path("resets.txt").read_text()) if Path("resets.txt").exists() else 0


def rows(folder: str) -> dict[tuple, dict]:
    return {(row["scenario"], row["seed"], row["index"]): row for row in EvalLog(Path(folder)).rows()}


def content(row: dict) -> dict:
    own = {"run", "reused", "scenario", "duration_s", "worker"}
    return {name: value for name, value in row.items() if name not in own}


def test_a_new_version_runs_only_what_it_changed(cli, finished):
    write_suite("2", tables={"shift": {"table": "unseen", "object": "unseen"}}, other={"shift": {"table": "unseen"}})
    assert evaluate(cli, "plain").exit_code == 0
    alone = ran()
    Path("resets.txt").unlink()
    done = evaluate(cli, "second", "--reuse", "first")
    assert done.exit_code == 0, done.stderr
    assert "7 of 12 episodes to run are in first and are taken over" in done.stderr.replace("\n", " ")
    assert "12 episodes, 7 of them already in the log" in done.stderr.replace("\n", " ")
    first, plain, second = rows("first"), rows("plain"), rows("second")
    assert alone - ran() == 7
    assert {key: content(row) for key, row in second.items()} == {key: content(row) for key, row in plain.items()}
    assert [*second] == [*plain]
    run = EvalLog(Path("first")).header.run
    taken = {key for key, row in second.items() if row.get("reused") == run}
    assert taken == {(name, seed, index) for name in ("ind", "other") for seed in (0, 1) for index in (0, 1)} - {
        ("ind", 0, 0)
    }
    assert {row["run"] for row in second.values()} == {EvalLog(Path("second")).header.run} != {run}
    for key in second:
        assert EvalLog(Path("second")).actions(key) == EvalLog(Path("plain")).actions(key) is not None
    assert second["other", 1, 1]["duration_s"] == first["tables", 1, 1]["duration_s"]
    (origin,) = EvalLog(Path("second")).header.last.reused
    assert (origin["log"], origin["run"], origin["suite"]["version"], origin["episodes"]) == ("first", run, "1", 7)
    assert origin["sessions"][0]["versions"] and "manifest" not in origin["sessions"][0]


def test_what_is_taken_over_counts_resumes_and_replays_like_any_row(cli, finished):
    write_suite("2")
    assert evaluate(cli, "second", "--reuse", "first").exit_code == 0 and len(rows("second")) == 8
    before = Path("second/episodes.jsonl").read_bytes()
    again = evaluate(cli, "second", "--reuse", "first")
    assert again.exit_code == 0 and "taken over" not in again.stderr
    assert Path("second/episodes.jsonl").read_bytes() == before
    assert cli("report", "second", "--out", "page.html").exit_code == 0
    assert "7 of first (suite short 1)" in Path("page.html").read_text()
    replayed = cli("replay", "second", "tables/1/0", "--out", "again.mp4")
    assert replayed.exit_code == 0, replayed.stderr
    write_suite("3")  # from a log that took them over itself: the row names where it was run
    assert evaluate(cli, "third", "--reuse", "second").exit_code == 0
    assert rows("third")["tables", 0, 0]["reused"] == EvalLog(Path("first")).header.run


def test_a_log_may_be_renewed_in_its_own_folder(cli, finished):
    write_suite("2")
    refused = evaluate(cli, "first")
    assert refused.exit_code == 2 and "--fresh --reuse first keeps its equal episodes" in refused.stderr
    assert evaluate(cli, "first", "--fresh", "--reuse", "first").exit_code == 0
    assert len(rows("first")) == 8 and len([*finished.glob("first.*/episodes.jsonl")]) == 1


def test_errors_and_rows_without_a_trace_or_in_dispute_run_again(cli, finished):
    lines = Path("first/episodes.jsonl").read_text().splitlines()
    changed = [json.loads(line) for line in lines]
    changed[3] |= {"status": "error", "success_at_end": None, "success_once": None, "error": "lost"}
    del changed[4]["trace"]
    changed.append({**changed[5], "trace": "0" * 16, "success_at_end": True, "success_once": True})
    Path("first/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    Path("first/actions.jsonl").unlink()
    write_suite("2")
    done = evaluate(cli, "second", "--reuse", "first")
    assert done.exit_code == 0 and "4 of 8 episodes" in done.stderr
    assert all(row["status"] == "ok" and row["trace"] for row in rows("second").values())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--policy-option", "loud=true"), "first: its episodes were run otherwise: policy options is {}, now"),
        (("--image-size", "120x160"), "first: its episodes were run otherwise: sensors is {}, now"),
        (("--video",), "--reuse takes over episodes without their videos; leave out --video or --reuse"),
        (("--reuse", "nowhere"), "nowhere: no evaluation log there"),
    ],
)
def test_what_ran_otherwise_is_refused(cli, finished, more, message):
    write_suite("2")
    done = evaluate(cli, "second", "--reuse", "first", *more)
    assert done.exit_code == 2 and message in done.stderr.replace("\n", " ")
    assert not Path("second").exists() and ran() == 0


def test_another_backend_reported_by_the_loaded_policy_is_refused(cli, finished):
    header = json.loads(Path("first/run.json").read_text())
    header["backend"]["shader"] = "other"
    Path("first/run.json").write_text(json.dumps(header))
    write_suite("2")
    done = evaluate(cli, "second", "--reuse", "first")
    assert done.exit_code == 2 and "--reuse first: its episodes were run otherwise: backend was" in done.stderr
    assert not Path("second").exists()


def test_from_python(finished):
    write_suite("2")
    log = vgb.evaluate("pol:Steady", "short.yaml", workers=1, out="second", reuse="first", progress=False)
    assert len(log.frame()) == 8 and log.frame().reused.notna().sum() == 7
    with pytest.raises(UserError, match="reuse: 3; expected a list of log folders"):
        vgb.evaluate("pol:Steady", "short.yaml", out="third", reuse=3)
