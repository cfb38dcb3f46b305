"""Measures the overhead of a policy server: per decision, and in a full evaluation. Takes about two minutes.

    .venv/bin/python tools/measure_remote.py [--episodes 8] [--protocols openpi vla-eval act]

Overhead: one decision of `hold`, which computes nothing, served on this machine, for a 320x240 image. Throughput:
time of `vgb eval` on the same episodes with openvla-ppo in-process and behind `vgb serve`, including set-up.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.registry import load_policy

VGB = [sys.executable, "-m", "vla_gen_bench"]
DECISIONS = 300


@contextmanager
def served(policy: str, protocol: str) -> Iterator[str]:
    """Runs `vgb serve`; yields its address."""
    command = [*VGB, "serve", "--policy", policy, "--protocol", protocol, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stderr if "serving" in line)
        yield line.split(" at ")[1].strip()
    finally:
        process.terminate()
        process.wait()


def overhead_ms(protocol: str) -> float:
    """Returns the median time of a decision, milliseconds."""
    with served("hold", protocol) as address:
        policy, observation = load_policy(address), example_observation(1)
        policy.reset(list(observation.instruction), [0])
        times = []
        for _ in range(DECISIONS):
            begin = time.perf_counter()
            policy.act(observation)
            times.append(1000 * (time.perf_counter() - begin))
        policy.close()
    return statistics.median(times[10:])


def seconds(policy: str, episodes: int) -> float:
    """Returns the time of `vgb eval` on `episodes` episodes of IND, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        choice = ["--suite", "execution", "--scenario", "ind", "--seeds", "0", "--episodes", str(episodes)]
        begin = time.perf_counter()
        done = subprocess.run([*VGB, "eval", "--policy", policy, *choice, "--out", f"{folder}/log", "--json"],
                              capture_output=True, text=True)  # fmt: skip
        if done.returncode:
            raise SystemExit(done.stderr)
        return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--protocols", nargs="*", default=["openpi", "vla-eval", "act"])
    given = parser.parse_args()
    result = {"overhead_ms": {protocol: round(overhead_ms(protocol), 2) for protocol in given.protocols}}
    if given.episodes:
        local = seconds("openvla-ppo", given.episodes)
        with served("openvla-ppo", "openpi") as address:
            remote = seconds(address, given.episodes)
        result["eval_s"] = {"in-process": round(local, 1), "served": round(remote, 1)}
        result["throughput_ratio"] = round(local / remote, 3)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
