"""Derives from a log every field of an entry that needs no trust in the submitter."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.episodes.suite import Suite, load_suite, union
from vla_gen_bench.errors import UserError
from vla_gen_bench.leaderboard.entry import Interval
from vla_gen_bench.log.counts import METRICS, Counts, count, count_by_scenario, wilson
from vla_gen_bench.log.files import RUN_FILE
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.log.header import Header, PolicyInfo, read_header
from vla_gen_bench.log.rows import Key, Row
from vla_gen_bench.log.suites import find_suite_of

CONTROL_HZ = 5  # of every world; vla_gen_bench.envs has it too, but imports a simulator
DIGITS = 6


@dataclass(frozen=True)
class Log:
    """A log, read once: header, one row per episode, the repeated episodes, and a digest of the files."""

    header: Header
    rows: dict[Key, Row]
    twice: tuple[Key, ...]
    digest: str


def read_log(folder: Path) -> Log:
    """Reads a log folder; raises `UserError` if it is missing, broken or older than the leaderboard."""
    header = read_header(folder)
    for part in ("action_spec", "backend", "sessions", "horizon"):
        if not getattr(header, part):
            raise UserError(f"{folder / RUN_FILE}: no field '{part}': the run has not begun; run 'vgb eval' first")
    digest = hashlib.sha256((folder / RUN_FILE).read_bytes())
    reading = EvalLog(folder).read(header.run, feed=digest.update)
    bad = [problem for problem in reading.problems if "is there twice" not in problem]
    if bad:
        raise UserError(bad[0])
    return Log(header, reading.rows, reading.repeated + reading.disputed, digest.hexdigest())


def suite_of(id: str, header: Header | None = None) -> Suite:
    """Returns the suite that an entry or header names; "vision+execution" is the union of two.

    Args:
        id: Looked up among the installed suites, which define what the leaderboard covers.
        header: Header of the entry's log, which holds the full definition of a suite that is not installed.
    """
    try:
        return union([load_suite(name) for name in id.split("+")])
    except UserError:
        found = find_suite_of(header) if header else None
        if found is None or found.id != id:
            raise
        return found


def derived(log: Log, suite: Suite) -> dict[str, Any]:
    """Returns the sections of an entry that follow from the log, nested as in its file.

    Args:
        log: All of its rows are in `suite`.
        suite: This checkout's version, with the protocol and the order of rows.
    """
    header, world, policy = log.header, log.header.world, log.header.policy
    counts = count_by_scenario(log.rows.values())
    return {
        "policy": {
            "adapter": policy.ref,
            "digest": policy.digest,
            "checkpoint": policy.checkpoint,
            "options": _options(policy),
            "action_spec_digest": digest_of(header.action_spec),
        },
        "suite": {
            **{name: getattr(header.suite, name) for name in ("id", "version", "digest")},
            **{"world": world.name, "world_version": world.version, "catalog": world.catalog, "pack": world.pack},
        },
        "protocol": _protocol(log, suite),
        "environment": _environment(header),
        "interval": Interval().model_dump(),
        "results": {id: cell(suite, counts.get(id, count(()))) for id in suite.scenarios},
        "trust": {"log_digest": log.digest, "date": header.last.started[:10]},
    }


def _options(policy: PolicyInfo) -> dict[str, Any]:
    """Returns the policy's options, without the checkpoint's path if a digest identifies it."""
    known = policy.checkpoint is not None
    return {name: value for name, value in policy.options.items() if not (known and name == "checkpoint")}


def _protocol(log: Log, suite: Suite) -> dict[str, Any]:
    header, protocol, spec = log.header, suite.protocol, log.header.action_spec or {}
    return {
        "preset": "table1" if suite.family == "reference" else "vgb",
        "metric": protocol.metric,
        "horizon": header.horizon,
        "control_hz": CONTROL_HZ,
        "episodes_per_seed": protocol.episodes_per_seed,
        "seeds": list(protocol.seeds),
        "decoding": header.decoding,
        "sensors": header.sensors,
        "chunk": spec.get("chunk"),
        "execute": spec.get("execute"),
        "image_codec": header.image_codec,
        "manifest_digest": digest_of(sorted([*row.key, row.spec_digest] for row in log.rows.values())),
    }


def _environment(header: Header) -> dict[str, Any]:
    session, backend = header.last, header.backend
    versions, git = session.versions, session.git or {}
    return {
        "harness": versions.get("vla-gen-bench"),
        "git_commit": git.get("commit"),
        "git_dirty": git.get("dirty"),
        **{name: versions.get(name) for name in ("mani_skill", "sapien", "torch")},
        "simulation": backend.simulation if backend else None,
        "rendering": backend.rendering if backend else None,
        "num_envs": session.num_envs,
        "cpu": session.hardware.get("cpu"),
    }


def cell(suite: Suite, counts: Counts) -> dict[str, Any]:
    """Returns the fields of a scenario's `Cell`: errored episodes count as planned but not as failures."""
    planned = suite.protocol.episodes_per_seed * len(suite.protocol.seeds)
    head = {"planned": planned, "n": counts.n, "errors": counts.errors}
    successes = {name: counts.of(name) for name in METRICS}
    return {**head, **successes, **rate(counts.of(suite.protocol.metric), counts.n)}


def rate(successes: int, trials: int) -> dict[str, float]:
    """Returns `rate`, `low` and `high`, rounded as in entries; without trials the rate is 0."""
    low, high = wilson(successes, trials, Interval().level)
    share = successes / trials if trials else 0.0
    return {"rate": round(share, DIGITS), "low": round(low, DIGITS), "high": round(high, DIGITS)}
