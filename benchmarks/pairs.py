"""Compares the speed of this checkout and of a commit, in pairs: `benchmarks/pairs.py [steps|eval] [options]`.

Absolute times drift by a tenth on most machines; two programs run in turn drift together. Each round runs first the
baseline, then this checkout, from an empty folder (`python -m` prefers a package in the current folder), on the same
actions and episodes. The baseline is checked out in a git worktree next to the results, and removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
BASELINE = "04bfab82c9c5ad19d924e56d4216653bfee15c06"  # before world builtin v2: results/pairs.json starts from it
STEPS = """
import json, sys, time
from vla_gen_bench import runtime
runtime.prepare()
import gymnasium as gym, numpy as np
import vla_gen_bench.envs
runtime.limit_threads(1)
world, episodes, clock = sys.argv[1], int(sys.argv[2]), getattr(time, sys.argv[3])
env = gym.make("VGB-PickPlace-v1", world=world).unwrapped
steps, resets = [], []
for seed in range(episodes + 1):
    start = clock(); env.reset(seed=seed); resets.append(clock() - start)
    moves = np.random.default_rng(seed).normal(0, [0.01] * 3 + [0.03] * 3 + [1], (80, 7)).clip(-1, 1).astype(np.float32)
    moves[:, 2] -= 0.004
    for move in moves:
        start = clock(); env.step(move[None]); steps.append(clock() - start)
print(json.dumps({"step_ms": 1e3 * float(np.median(steps[80:])), "step_mean_ms": 1e3 * float(np.mean(steps[80:])),
                  "reset_ms": 1e3 * float(np.median(resets[1:]))}))
"""


def steps(package: Path, world: str, episodes: int, clock: str = "perf_counter") -> dict[str, float]:
    """Times steps and resets of one environment, in a separate process, by a clock of module `time`."""
    done = _run(package, "-c", STEPS, world, str(episodes), clock)
    return json.loads(done.stdout.splitlines()[-1])


def evaluation(package: Path, world: str, episodes: int, clock: str = "perf_counter") -> dict[str, float]:
    """Times `vgb eval --policy random` with two workers by wall clock; two lengths separate steps from start-up."""
    seconds = []
    for count in (episodes, 3 * episodes):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            _run(
                package, "-m", "vla_gen_bench", "eval", "--policy", "random", "--suite", "execution", "--world", world,
                "--episodes", str(count), "--seeds", "0", "--workers", "2", "--out", f"{folder}/log",
            )  # fmt: skip
            seconds.append(time.perf_counter() - start)
    more = 2 * episodes * 4 * 80  # steps of the longer run's additional episodes in 4 scenarios
    return {"steps_per_s": more / (seconds[1] - seconds[0]), "start_s": seconds[0] - (seconds[1] - seconds[0]) / 2}


def _run(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as empty:
        environment = {**os.environ, "PYTHONPATH": str(package)}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=empty, env=environment, check=True, text=True, stdout=subprocess.PIPE)


def compare(what: str, baseline: Path, world: str, episodes: int, rounds: int, clock: str) -> dict[str, object]:
    """Returns the medians over rounds of the two checkouts, and of their ratios per round."""
    measure = {"steps": steps, "eval": evaluation}[what]
    found = [[measure(package, world, episodes, clock) for package in (baseline, ROOT)] for _ in range(rounds)]
    return {
        name: {
            "baseline": median(pair[0][name] for pair in found),
            "now": median(pair[1][name] for pair in found),
            "now/baseline": median(pair[1][name] / pair[0][name] for pair in found),
        }
        for name in found[0][0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("steps", "eval"), nargs="?", default="steps")
    parser.add_argument("--baseline", default=BASELINE, help="commit")
    parser.add_argument("--world", default="builtin")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--clock", choices=("perf_counter", "process_time"), default="perf_counter",
        help="of steps; process_time counts the processor's seconds, on a machine that is not quiet",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="JSON to append to")
    given = parser.parse_args()
    git = ["git", "-C", str(ROOT)]
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "baseline"
        subprocess.run([*git, "worktree", "add", "--detach", "--quiet", str(checkout), given.baseline], check=True)
        try:
            found = compare(given.what, checkout, given.world, given.episodes, given.rounds, given.clock)
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(checkout)], check=True)
    now = subprocess.run([*git, "rev-parse", "HEAD"], check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
    head = {"what": given.what, "world": given.world, "baseline": given.baseline, "commit": now}
    for name, sides in found.items():
        print(f"{name}: {sides['baseline']:.4g} -> {sides['now']:.4g}, in pairs x {sides['now/baseline']:.3f}")
    if given.out:
        earlier = json.loads(given.out.read_text()) if given.out.exists() else []
        given.out.write_text(json.dumps([*earlier, {**head, **found}], indent=1) + "\n")


if __name__ == "__main__":
    main()
