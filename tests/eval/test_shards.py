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


def test_the_ray_script_starts_a_node_each_and_the_command_on_the_first(tmp_path: Path) -> None:
    """Slurm's commands are replaced by ones that note their arguments; job 20007 uses port 20000 + 7."""
    notes = tmp_path / "notes"
    scripts = {
        "srun": f'echo "srun $*" >>{notes}',
        "scontrol": "printf 'n1\\nn2\\nn3\\n'",
        "vgb": f'until [ "$(wc -l <{notes})" -ge "$NOTES" ]; do sleep 0.1; done; echo "vgb $*" >>{notes}',
    }
    for name, line in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)

    def noted(*arguments: str, **variables: str) -> list[str]:
        notes.write_text("")
        environment = {**_environment(), "VGB": "vgb", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        command = ["sh", CLUSTER / "ray.sh", "train", "ppo", *arguments]
        done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=120)
        return sorted(notes.read_text().splitlines()) if variables else [done.stderr]

    job = {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_CPUS_PER_TASK": "4", "SLURM_JOB_ID": "20007"}
    head, others, command = noted(**job, SLURM_JOB_NUM_NODES="3", NOTES="2")
    options = "--port=20007 --num-cpus=4 --include-dashboard=false"
    assert head == f"srun --overlap --nodes=1 --ntasks=1 --nodelist=n1 ray start --head --block {options}"
    assert others.startswith("srun --overlap --nodes=2 --ntasks=2 --exclude=n1 sh -c ")
    assert others.endswith("ray start --address=n1:20007 --block --num-cpus=4")
    ours = "--engine ray --address n1:20007 --wait-for-nodes 300"
    assert command == f"vgb train ppo --workers 12 {ours}"
    alone = noted("--workers", "2", **job, SLURM_JOB_NUM_NODES="1", NOTES="1")
    assert alone == [head, f"vgb train ppo --workers 2 {ours}"]
    assert "start this with sbatch --nodes=N" in noted()[0]
