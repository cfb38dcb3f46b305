"""What a log says of its run: every field of an entry that nobody has to be believed for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.episodes.suite import Suite, load_suite, union
from vla_gen_bench.errors import UserError
from vla_gen_bench.leaderboard.entry import Interval
from vla_gen_bench.log.counts import wilson
from vla_gen_bench.log.log import EPISODES_FILE, RUN_FILE, EvalLog, key_of, read_text

CONTROL_HZ = 5  # of every world; vla_gen_bench.envs says it too, but imports a simulator
DIGITS = 6


@dataclass(frozen=True)
class Log:
    """A log, read once: header, rows and a digest over both."""

    header: dict[str, Any]
    rows: list[dict[str, Any]]
    digest: str


def read_log(folder: Path) -> Log:
    """Reads a log folder; raises `UserError` where it is missing, broken or of a version before the leaderboard."""
    log = EvalLog(folder)
    header, rows = log.header, log.rows()
    for part in ("suite", "policy", "world", "action_spec", "backend"):
        if part not in header:
            raise UserError(f"{folder / RUN_FILE}: no field '{part}': the run has not begun; run 'vgb eval' first")
    content = (folder / RUN_FILE).read_text(encoding="utf-8") + read_text(folder / EPISODES_FILE)
    return Log(header, rows, hashlib.sha256(content.encode()).hexdigest())


def suite_of(id: str) -> Suite:
    """Returns the suite of this checkout that an entry or header names; "vision+execution" is the union of two."""
    return union([load_suite(name) for name in id.split("+")])


def derived(log: Log, suite: Suite) -> dict[str, Any]:
    """Returns the sections of an entry that follow from the log: nested, as in its file.

    Args:
        log: All rows that are in `suite`.
        suite: As this checkout has it: the protocol, the order of the rows.
    """
    header, session = log.header, log.header["sessions"][-1]
    world, policy = header["world"], header["policy"]
    return {
        "policy": {
            "adapter": policy["ref"],
            "digest": policy["digest"],
            "checkpoint": policy.get("checkpoint"),
            "options": _options(policy),
            "action_spec_digest": digest_of(header["action_spec"]),
        },
        "suite": {
            **{name: header["suite"][name] for name in ("id", "version", "digest")},
            **{"world": world["name"], "catalog": world["catalog"], "pack": world["pack"]},
        },
        "protocol": _protocol(log, suite),
        "environment": _environment(header, session),
        "interval": Interval().model_dump(),
        "results": {id: cell(suite, [row for row in log.rows if row["scenario"] == id]) for id in suite.scenarios},
        "trust": {"log_digest": log.digest, "date": session["started"][:10]},
    }


def _options(policy: dict[str, Any]) -> dict[str, Any]:
    """The policy's options, without where its checkpoint lay if a digest tells which one it was."""
    known = policy.get("checkpoint") is not None
    return {name: value for name, value in policy["options"].items() if not (known and name == "checkpoint")}


def _protocol(log: Log, suite: Suite) -> dict[str, Any]:
    header, protocol = log.header, suite.protocol
    return {
        "preset": "table1" if suite.family == "reference" else "vgb",
        "metric": protocol.metric,
        "horizon": header["horizon"],
        "control_hz": CONTROL_HZ,
        "episodes_per_seed": protocol.episodes_per_seed,
        "seeds": list(protocol.seeds),
        "decoding": header["decoding"],
        "sensors": header.get("sensors", {}),
        "chunk": header["action_spec"]["chunk"],
        "execute": header["action_spec"]["execute"],
        "manifest_digest": digest_of(sorted([*key_of(row), row["spec_digest"]] for row in log.rows)),
    }


def _environment(header: dict[str, Any], session: dict[str, Any]) -> dict[str, Any]:
    versions, git, backend = session["versions"], session["git"] or {}, header["backend"]
    return {
        "harness": versions["vla-gen-bench"],
        "git_commit": git.get("commit"),
        "git_dirty": git.get("dirty"),
        **{name: versions[name] for name in ("mani_skill", "sapien", "torch")},
        "simulation": backend["simulation"],
        "rendering": backend["rendering"],
        "num_envs": session.get("num_envs", 1),  # not said by logs from before batches
        "cpu": session["hardware"]["cpu"],
    }


def cell(suite: Suite, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the fields of a scenario's `Cell`: errored episodes count as planned, not as failures."""
    done = [row for row in rows if row["status"] == "ok"]
    counts = {name: sum(bool(row[name]) for row in done) for name in ("success_at_end", "success_once")}
    planned = suite.protocol.episodes_per_seed * len(suite.protocol.seeds)
    head = {"planned": planned, "n": len(done), "errors": len(rows) - len(done)}
    return {**head, **counts, **rate(counts[suite.protocol.metric], len(done))}


def rate(successes: int, trials: int) -> dict[str, float]:
    """Returns `rate`, `low` and `high`, rounded as entries hold them; the rate without trials is 0."""
    low, high = wilson(successes, trials, Interval().level)
    share = successes / trials if trials else 0.0
    return {"rate": round(share, DIGITS), "low": round(low, DIGITS), "high": round(high, DIGITS)}
