"""Kills `vgb eval` at random moments, resumes it, and compares the log with that of an undisturbed run.

    python benchmarks/crashes.py --kills 50

Each round starts the same command in one folder, sends SIGKILL to its workers at random moments, and then to the
command itself unless it has finished. A complete log must equal the undisturbed run's bit for bit, except for
the fields that depend on the run (docs/log.md); then a new folder starts. After every round no row may be missing and
no worker may outlive its command. Prints the counts as JSON; exits with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

SUITE = """
id: crashes
version: "1"
title: Short episodes to be killed in
protocol: {episodes_per_seed: EPISODES, seeds: [0, 1], horizon: 10}
scenarios:
  ind: {label: IND, dimension: ind}
  tables: {label: Tables, dimension: vision, shift: {table: unseen}}
"""
PATIENCE_S = 10.0  # how long a worker may outlive its command
ROUND_S = 900.0
GAVE_UP = "a worker could not start"  # the expected message if two are killed before they are ready
Key = tuple[str, int, int]


class Campaign:
    """The kills and their consequences.

    Attributes:
        figures: Counts by name.
    """

    def __init__(self, folder: Path, episodes: int, workers: int, longest_s: float | None, seed: int) -> None:
        self.folder, self.workers, self.longest_s, self.random = folder, workers, longest_s, random.Random(seed)
        self.figures: Counter[str] = Counter()
        self.suite = folder / "crashes.yaml"
        self.suite.write_text(SUITE.replace("EPISODES", str(episodes)))
        self.total = 4 * episodes

    def command(self, out: Path) -> list[str]:
        return [
            sys.executable, "-m", "vla_gen_bench", "eval", "--policy", "random", "--suite", str(self.suite),
            "--workers", str(self.workers), "--out", str(out), "--json",
        ]  # fmt: skip

    def undisturbed(self) -> dict[Key, Any]:
        out = self.folder / "undisturbed"
        subprocess.run(self.command(out), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return content(out)

    def run(self, kills: int) -> bool:
        """Returns whether nothing was lost."""
        begun = time.monotonic()
        expected = self.undisturbed()
        self.longest_s = self.longest_s or (time.monotonic() - begun) / 2
        while sum(self.figures[name] for name in ("killed command", "killed worker")) < kills:
            out = self.folder / f"log-{self.figures['logs']}"
            if self.round(out):
                self.figures["logs"] += 1
                self.figures["logs that differ"] += content(out) != expected
                shutil.rmtree(out)
            print(json.dumps(self.figures), file=sys.stderr, flush=True)
        out = self.folder / f"log-{self.figures['logs']}"
        while not self.round(out, kill=False):
            pass
        self.figures["logs"] += 1
        self.figures["logs that differ"] += content(out) != expected
        return not any(self.figures[name] for name in ("logs that differ", "rows lost", "orphans", "refused"))

    def round(self, out: Path, kill: bool = True) -> bool:
        """Runs the command once, and kills it if it lives long enough; returns whether the log is then complete."""
        before = rows(out)
        process = subprocess.Popen(self.command(out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if kill:
            self._disturb(process)
        output, errors = process.communicate(timeout=ROUND_S)
        if GAVE_UP in errors:
            self.figures["gave up starting workers"] += 1
        elif process.returncode not in (0, 1, -signal.SIGKILL):
            self.figures["refused"] += 1
            print(f"status {process.returncode}: {errors[-400:]}", file=sys.stderr)
        after = rows(out)
        self.figures["rows lost"] += sum(after.get(key) != row for key, row in before.items())
        self.figures["rounds"] += 1
        return process.returncode == 0 and len(after) == self.total

    def _disturb(self, process: subprocess.Popen) -> None:
        """Kills workers now and then, and finally the command, unless it has finished."""
        while True:
            try:
                process.wait(self.random.uniform(0, self.longest_s))
                return
            except subprocess.TimeoutExpired:
                children = workers_of(process.pid)
            if children and self.random.random() < 0.7:
                self.figures["killed worker"] += send(self.random.choice(children))
            elif children or self.random.random() < 0.02:  # kill rarely while it is still importing
                break
        self.figures["killed command"] += send(process.pid)
        deadline = time.monotonic() + PATIENCE_S
        while any(map(alive, children)) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.figures["orphans"] += sum(map(alive, children))


def send(process: int) -> bool:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def workers_of(parent: int) -> list[int]:
    """Returns the worker processes of a command; Linux."""
    processes = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]
    return [one for one in processes if _parent(one) == parent and b"spawn_main" in _command_line(one)]


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def alive(process: int) -> bool:
    return bool(_command_line(process))  # empty for a zombie


def rows(log: Path) -> dict[Key, Any]:
    """Returns the finished rows of a log, an unfinished last line left out."""
    file = log / "episodes.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    parsed = [json.loads(line) for line in lines]
    return {(row["scenario"], row["seed"], row["index"]): row for row in parsed if row["status"] == "ok"}


def content(log: Path) -> dict[Key, Any]:
    """Returns the part of a log that depends only on suite, policy and world: its rows with their actions."""
    file = log / "actions.jsonl"
    lines = [json.loads(line) for line in file.read_text().split("\n")[:-1]]
    actions = {(row["scenario"], row["seed"], row["index"]): row["actions"] for row in lines}
    kept = {key: {name: value for name, value in row.items() if _lasts(name)} for key, row in rows(log).items()}
    return {key: (row, actions[key]) for key, row in kept.items()}


def _lasts(name: str) -> bool:
    return not name.endswith("_s") and not name.startswith("worker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--episodes", type=int, default=6, help="per scenario and seed; four times as many in a log")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--longest", type=float, help="seconds between two kills, at most (half an undisturbed run)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), given.episodes, given.workers, given.longest, given.seed)
        whole = campaign.run(given.kills)
    print(json.dumps({"kills": given.kills, "nothing lost": whole, **campaign.figures}))
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
