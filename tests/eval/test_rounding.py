"""What logs, resumes and replays say of processors that round otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vla_gen_bench.eval.rounding import elsewhere, rounding
from vla_gen_bench.log import provenance

MINE = provenance.hardware()["cpu"]
SUITE = """
id: short
version: "1"
protocol: {episodes_per_seed: 2, seeds: [0], horizon: 5}
scenarios: {ind: {label: IND, dimension: ind}}
"""


@pytest.mark.parametrize(
    ("sessions", "found"),
    [
        ([], ""),
        ([{"rounding": {"controller": "a", "network": "b"}, "hardware": {"cpu": "Other"}}], ""),
        ([{"rounding": {"controller": "x", "network": "b"}, "hardware": {"cpu": MINE}}], MINE),
        ([{"rounding": None, "hardware": {"cpu": "Other"}}, {"hardware": {"cpu": "Third"}}], "Other, Third"),
        ([{"hardware": {"cpu": MINE}}, {}], ""),
    ],
)
def test_only_sessions_that_round_otherwise_are_named(sessions, found):
    assert elsewhere(sessions, {"controller": "a", "network": "b"}) == found


def test_the_digests_are_those_of_the_instructions_in_use():
    """MKL_CBWR chooses MKL's code, as another processor does; where it has one choice only, the digests agree."""
    code = "import torch; from vla_gen_bench.eval.rounding import rounding; t = torch.linspace(1e-3, 4, 4096)"
    code += "; print(rounding()['controller'], hash(torch.sqrt(t).numpy().tobytes()))"
    seen = []
    for branch in ("COMPATIBLE", "AVX2"):
        setting = {**os.environ, "MKL_CBWR": branch, "PYTHONHASHSEED": "0"}
        seen.append(subprocess.check_output([sys.executable, "-c", code], env=setting, text=True).split())
    assert (seen[0][0] == seen[1][0]) == (seen[0][1] == seen[1][1])
    assert rounding() == rounding() and {len(digest) for digest in rounding().values()} == {8}


def test_a_log_of_another_processor_is_continued_and_replayed_with_a_note(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("short.yaml").write_text(SUITE)
    command = ("eval", "--policy", "random", "--suite", "short.yaml", "--workers", 1, "--out", "log")
    assert cli(*command, "--episodes", 1).exit_code == 0
    header = json.loads(Path("log/run.json").read_text())
    assert header["sessions"][0]["rounding"] == rounding() and "rounding" not in header
    replayed = cli("replay", "log", "ind/0/0", "--out", "one.mp4")
    assert "bit for bit" in replayed.stderr and "rounds otherwise" not in replayed.stderr
    header["sessions"][0]["rounding"]["controller"] = "00000000"
    Path("log/run.json").write_text(json.dumps(header))
    row = json.loads(Path("log/episodes.jsonl").read_text())
    Path("log/episodes.jsonl").write_text(json.dumps({**row, "trace": "0" * 16}) + "\n")
    note = f"note: the log is from {MINE}, which rounds otherwise than this processor"
    assert note in cli("replay", "log", "ind/0/0", "--out", "one.mp4").stderr
    again = cli(*command)
    said = " ".join(again.stderr.split())
    assert again.exit_code == 0 and f"earlier episodes are from {MINE}, which rounds otherwise" in said
