"""Logs with chosen outcomes, for the tests of reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla_gen_bench.episodes.suite import load_suite
from vla_gen_bench.log.files import EPISODES_FILE, RUN_FILE
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.log.writer import LogWriter

REAL = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "expert-builtin"

# The paper's Table 1 as successes of 192 episodes, SFT then RL (arXiv 2505.19789).
TABLE1 = {
    "ind": (150, 180), "unseen_table": (138, 162), "texture_weak": (138, 160), "texture_strong": (107, 121),
    "noise_weak": (136, 164), "noise_strong": (97, 128), "unseen_object": (87, 137), "unseen_receptacle": (118, 144),
    "unseen_instruction": (129, 171), "multi_object_ind": (118, 144), "multi_object_ood": (57, 111),
    "disturb_receptacle": (129, 156), "multi_receptacle": (88, 115), "unseen_position": (109, 155),
    "unseen_robot_pose": (65, 153), "object_reposition": (55, 143),
}  # fmt: skip


def header(policy: str, suite: str, scenarios: Sequence[str], episodes: int) -> dict[str, Any]:
    """A header as `vgb eval` writes it; `episodes` of each scenario are planned."""
    digest = load_suite(suite).digest()
    manifest = {"scenarios": list(scenarios), "episodes": episodes * len(scenarios), "digest": "0" * 16}
    return {
        "format": 1,
        "suite": {"id": load_suite(suite).id, "version": "1", "digest": digest, "sources": [suite]},
        "policy": {"name": policy, "ref": policy, "digest": "1" * 16, "options": {}, "privileged": False},
        "world": {"name": "builtin", "version": "2", "catalog": "2" * 16, "pack": "3" * 16},
        "sessions": [{"started": "2026-01-01T00:00:00Z", "manifest": manifest}],
    }


def row(scenario: str, seed: int, index: int, success: bool | None, **fields: Any) -> dict[str, Any]:
    """An episode's row; success None: it errored. It succeeded at any time where it succeeded at the end."""
    status = "error" if success is None else "ok"
    head = {"scenario": scenario, "seed": seed, "index": index, "spec_digest": f"{scenario}-{seed}-{index}"}
    return {**head, "status": status, "success_at_end": success, "success_once": success, "steps": 80, **fields}


def write_log(
    folder: Path,
    outcomes: Mapping[str, Sequence[bool | None]],
    *,
    policy: str,
    suite: str = "vision",
    seed: int = 0,
    planned: int | None = None,
    change: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a log in which episode (scenario, seed, i) has outcome i of that scenario; returns its folder.

    Args:
        planned: Episodes per scenario in the header; None for as many as there are.
        change: Fields that replace the header's.
    """
    each = planned if planned is not None else max(map(len, outcomes.values()))
    folder.mkdir(parents=True)
    LogWriter(folder).write_header({**header(policy, suite, list(outcomes), each), **(change or {})})
    rows = [row(name, seed, i, success) for name, all in outcomes.items() for i, success in enumerate(all)]
    write_rows(folder, rows)
    return folder


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    (folder / EPISODES_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def successes(k: int, n: int) -> list[bool]:
    """k successes, then n - k failures."""
    return [True] * k + [False] * (n - k)


def flipped_copy(folder: Path, policy: str, rates: Mapping[str, float] | float, seed: int) -> Path:
    """Copies the published expert's log with outcomes drawn again: its rows, its episodes, another policy."""
    rng = np.random.default_rng(seed)
    log = EvalLog(REAL)
    folder.mkdir(parents=True)
    head = log.header.raw
    head["policy"] |= {"name": policy, "digest": f"{seed:016x}", "privileged": False}
    (folder / RUN_FILE).write_text(json.dumps(head))
    rows = log.rows()
    for one in rows:
        rate = rates if isinstance(rates, float) else rates[one["scenario"]]
        one["success_at_end"] = bool(rng.random() < rate)
        one["success_once"] = one["success_at_end"] or bool(rng.random() < 0.2)
        one["first_success_step"] = int(rng.integers(20, 80)) if one["success_once"] else None
    write_rows(folder, rows)
    return folder
