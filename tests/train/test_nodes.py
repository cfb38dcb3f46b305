"""`torchrun` on two "nodes" of this machine: one launcher each, as on two machines, for SFT and for PPO."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import yaml
from demos import demo, written

ROOT = Path(__file__).resolve().parents[2]
SFT = {"name": "tiny", "trainer": "sft", "model": {"size": "pico"}, "optimiser": {"lr": 1e-3}, "samples": 32, "batch": 8}
PPO = {"name": "tiny", "trainer": "ppo", "optimiser": {"lr": 1e-4}, "env_steps": 24, "episodes": 4, "horizon": 6}
PPO |= {"batch": 8, "together": 2, "lanes": 1}


def train(folder: Path, recipe: dict, *arguments: str) -> str:
    """Trains on two nodes into `folder`; returns what the first one printed."""
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(recipe))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    command += ["--master-addr", "127.0.0.1", "--master-port", port]
    ours = ["-m", "vla_gen_bench", "train", recipe["trainer"], "--recipe", str(file), "--out", str(folder), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(
            [*command, "--node-rank", str(rank), *ours],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        told = [node.communicate(timeout=280)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(told)
    assert "checkpoint:" in told[0] and "checkpoint:" not in told[1]
    return told[0]


def test_two_nodes_train_together_by_demonstrations_and_by_reward(tmp_path: Path) -> None:
    written(tmp_path / "demos", [demo(index) for index in range(6)])
    told = train(tmp_path / "sft", SFT, "--data", str(tmp_path / "demos"))
    assert "step 4/4" in told  # 32 samples, 8 in a step, half of them on each node
    ppo = {**PPO, "model": {"checkpoint": str(tmp_path / "sft" / "checkpoint")}}
    train(tmp_path / "ppo", ppo, "--workers", "1")
    with (tmp_path / "ppo" / "curve.csv").open() as file:
        assert float(list(csv.DictReader(file))[-1]["env_steps"]) == 24
