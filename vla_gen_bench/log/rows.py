"""A row of `episodes.jsonl`, typed. docs/log.md explains each field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

Key = tuple[str, int, int]
REQUIRED = ("scenario", "seed", "index", "spec_digest", "status", "success_at_end", "success_once", "steps")


@dataclass(frozen=True, slots=True)
class Row:
    """One episode. The outcome is None if it errored; a later field is None if an older version wrote the row.

    Attributes:
        coverage: Packed by `vla_gen_bench.log.coverage.coverage`.
        run: `Header.run` of the log that the row was written into.
    """

    scenario: str
    seed: int
    index: int
    spec_digest: str
    status: str
    success_at_end: bool | None
    success_once: bool | None
    steps: int
    first_success_step: int | None = None
    stage: str | None = None
    trace: str | None = None
    error: str | None = None
    instruction: str | None = None
    target: str | None = None
    receptacle: str | None = None
    table: str | None = None
    coverage: Mapping[str, Any] | None = None
    run: str | None = None

    @property
    def key(self) -> Key:
        return self.scenario, self.seed, self.index

    @property
    def name(self) -> str:
        """The key as users type it: scenario/seed/index."""
        return f"{self.scenario}/{self.seed}/{self.index}"

    @property
    def ok(self) -> bool:
        """Whether the episode has an outcome."""
        return self.status == "ok"

    def agrees(self, other: Row) -> bool:
        """Whether both rows are equal runs of one episode."""
        if self.trace and other.trace:
            return self.trace == other.trace
        names = ("spec_digest", "success_at_end", "success_once", "steps")
        return all(getattr(self, name) == getattr(other, name) for name in names)


TEXTS = ("spec_digest", "stage", "trace", "error", "instruction", "target", "receptacle", "table", "run")
COVERED = frozenset({"states", "cells", "outside", "mean_rotation"})
NUMBERS = frozenset({int, float})
KEPT = tuple(field.name for field in fields(Row))


def key_of(row: Mapping[str, Any]) -> Key:
    """Returns (scenario, seed, index), which identifies an episode within a log."""
    return row["scenario"], row["seed"], row["index"]


def fault_of(data: Any) -> str:
    """Returns what is wrong with the parsed data of a line, "" if it is a valid row."""
    if not isinstance(data, dict):
        return "not a JSON object"
    missing = next((name for name in REQUIRED if name not in data), None)
    if missing:
        return f"no field '{missing}'"
    return "" if _sound(data) else "a field is of the wrong type"


def row_of(data: Mapping[str, Any]) -> Row:
    """Returns a row that passed `fault_of`, typed; fields of other versions are left out."""
    values: list[Any] = [*map(data.get, KEPT)]
    return Row(*values)


def _sound(data: dict[str, Any]) -> bool:
    if data["status"] == "ok":
        if type(data["success_at_end"]) is not bool or type(data["success_once"]) is not bool:
            return False
    elif data["status"] != "error":
        return False
    if type(data["scenario"]) is not str or type(data["seed"]) is not int or type(data["index"]) is not int:
        return False
    for value in map(data.get, TEXTS):  # a loop: a report reads a million values, and `all` doubles the time
        if value is not None and type(value) is not str:
            return False
    return _numbers(data)


def _numbers(data: dict[str, Any]) -> bool:
    first, where = data.get("first_success_step"), data.get("coverage")
    return (
        type(data["steps"]) is int
        and (first is None or type(first) is int)
        and (where is None or (isinstance(where, dict) and where.keys() >= COVERED and _is_coverage(where)))
    )


def _is_coverage(where: dict[str, Any]) -> bool:
    turned = where["mean_rotation"]
    return (
        type(where["states"]) is int
        and where["states"] > 0
        and type(where["outside"]) is int
        and type(where["cells"]) is str
        and type(turned) is list
        and len(turned) == 9
        and {*map(type, turned)} <= NUMBERS
    )
