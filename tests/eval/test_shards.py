"""`vgb eval --shard`: parts of a run on many machines, here as processes, end as one command would have ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.shards import Shard, parse_shard

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "examples" / "cluster"
SUITE = """
id: short
version: "1"
protocol: {episodes_per_seed: 2, seeds: [1, 0], horizon: 6}
scenarios:
  tables: {label: Tables, dimension: vision, shift: {table: unseen}}
  ind: {label: IND, dimension: ind}
"""


@pytest.mark.parametrize("count", [1, 3, 7, 24, 30])
def test_every_episode_is_dealt_once_and_evenly(count: int) -> None:
    items = list(range(24))
    parts = [Shard(number, count).deal(items) for number in range(1, count + 1)]
    assert sorted(item for part in parts for item in part) == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["5/4", "0/4", "1/0", "1", "1/", "-1/4", "1/4/5", "a/b", "1e3/4", "9999999/9", ""])
def test_a_shard_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--shard"):
        parse_shard(text)


def test_a_shard_beyond_the_episodes_is_refused(cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.yaml").write_text(SUITE)
    ran = cli("eval", "--policy", "hold", "--suite", "short.yaml", "--shard", "9/9", "--out", "x")
    assert ran.exit_code == 2 and ran.stderr == "error: --shard 9/9: there are 8 episodes only\n"
    assert not Path("x").exists()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "VGB": f"{sys.executable} -m vla_gen_bench"}


def _stable(folder: str) -> list[dict]:
    rows = map(json.loads, (Path(folder) / "episodes.jsonl").read_text().splitlines())
    return [{key: row[key] for key in row if not key.endswith("_s") and key != "worker"} for row in rows]


def test_merged_shards_are_the_log_of_one_command(cli, tmp_path: Path, monkeypatch) -> None:
    """The plain-shell script runs two shards as processes; the merged log reports, replays and resumes as any."""
    monkeypatch.chdir(tmp_path)
    Path("short.yaml").write_text(SUITE)
    options = ["--policy", "random", "--suite", "short.yaml"]
    done = subprocess.run(
        ["sh", CLUSTER / "shards.sh", "2", "out", *options], env=_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + Path("out/shard-1.txt").read_text()
    assert done.stdout == "8 episodes of 2 logs: out/merged\n"
    assert cli("eval", *options, "--workers", 1, "--out", "whole").exit_code == 0
    assert _stable("out/merged") == _stable("whole")
    assert cli("report", "merged=out/merged").exit_code == 0
    assert cli("replay", "out/merged", "tables/1/1").exit_code == 0
    again = cli("eval", *options, "--out", "out/merged", "--resume", "--json")
    assert again.exit_code == 0 and "8 of them already in the log" in again.stderr
    sessions = json.loads(Path("out/merged/run.json").read_text())["sessions"]
    assert sorted(session["shard"] for session in sessions) == ["1/2", "2/2"]


def test_the_slurm_script_runs_its_task_s_shard() -> None:
    def command(**variables: str) -> str:
        environment = {**_environment(), "VGB": "echo", **variables}
        done = subprocess.run(
            ["sh", CLUSTER / "slurm.sh", "o", "--policy", "p"], env=environment, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    ours = command(
        SLURM_ARRAY_TASK_ID="7", SLURM_ARRAY_TASK_MIN="5", SLURM_ARRAY_TASK_COUNT="16", SLURM_CPUS_PER_TASK="4"
    )
    assert ours == "eval --policy p --shard 3/16 --workers 4 --out o/shard-3\n"
    assert "start this with sbatch --array" in command()
