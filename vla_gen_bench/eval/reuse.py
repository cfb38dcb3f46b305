"""Takes over finished episodes of other logs where a new log would run the same ones again.

A suite's new version, or another suite, often shares most of its episodes with one that has run. An episode is the same
if its digest is; it ran alike if the two logs differ in nothing but the suite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.open_log import difference, server_difference
from vla_gen_bench.eval.workers import Job
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.log.header import Header, read_header
from vla_gen_bench.log.rows import Key, key_of

REPORTED = ("action_spec", "decoding", "adapter", "backend")  # by the worker that loads the policy


@dataclass(frozen=True)
class Reused:
    """What one log contributes.

    Attributes:
        rows: Key in the new log -> the row to write there, and its packed actions, None if the log has none.
    """

    folder: Path
    header: Header
    rows: Mapping[Key, tuple[dict[str, Any], str | None]]

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The sessions that wrote the log, as they are in its header."""
        return list(self.header.raw.get("sessions", ()))

    def check(self, info: Mapping[str, Any]) -> None:
        """Raises `UserError` if the policy that has loaded reports something else than the one of the log."""
        there, now = self.header.raw, json.loads(json.dumps(info))
        changed = [name for name in REPORTED if there.get(name) != now.get(name)]
        found = server_difference(there, now)
        if changed and not found:
            found = f"{changed[0]} was {there.get(changed[0])}, is {now.get(changed[0])}"
        if found:
            raise _refusal(self.folder, found)

    def to_json(self) -> dict[str, Any]:
        """Returns what the new log's session says of it."""
        suite = self.header.suite
        return {
            "log": str(self.folder),
            "run": self.header.run,
            "suite": {"id": suite.id, "version": suite.version, "digest": suite.digest},
            "episodes": len(self.rows),
            "sessions": [{name: its[name] for name in its if name != "manifest"} for its in self.sessions],
        }


def find_reusable(folders: Sequence[Path], identity: Mapping[str, Any], jobs: Sequence[Job]) -> list[Reused]:
    """Returns the episodes of `jobs` that are in earlier logs, each from the first log that has it.

    Errored episodes, those with rows that contradict each other, and rows of older versions without a trace are not
    taken over.

    Raises:
        UserError: A log is missing or damaged, or is of another policy, world, pack, horizon or simulator.
    """
    found, wanted = [], {job.key: job.spec.digest() for job in jobs}
    for folder in folders:
        header, log = read_header(folder), EvalLog(folder)
        rows = log.rows(forgive_last=True, settled=True)
        if other := difference({**header.raw, "suite": identity["suite"]}, identity):
            raise _refusal(folder, other)
        there = {row["spec_digest"]: row for row in rows if row["status"] == "ok" and row.get("trace")}
        chosen = {key: there[digest] for key, digest in wanted.items() if digest in there}
        if chosen:
            actions = log.actions_of({key_of(row) for row in chosen.values()})
            adopted = {key: (_adopted(key, row), actions.get(key_of(row))) for key, row in chosen.items()}
            found.append(Reused(folder, header, adopted))
        wanted = {key: digest for key, digest in wanted.items() if key not in chosen}
    return found


def _adopted(key: Key, row: Mapping[str, Any]) -> dict[str, Any]:
    scenario, seed, index = key
    origin = row.get("reused") or row.get("run")
    return {**row, "scenario": scenario, "seed": seed, "index": index, "reused": origin}


def _refusal(folder: Path, what: str) -> UserError:
    return UserError(f"--reuse {folder}: its episodes were run otherwise: {what}; leave it out")
