"""Looks up a log's scenarios in its suite: label, dimension, shift."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vla_gen_bench.episodes.suite import Scenario, Suite
from vla_gen_bench.errors import UserError, printable

TITLES = {
    "ind": "In distribution",
    "vision": "Vision",
    "semantics": "Semantics",
    "execution": "Execution",
    "mixed": "Mixed",
    "other": "Other",
}


@dataclass(frozen=True)
class ScenarioInfo:
    """A row of the table.

    Attributes:
        id: The id in the log.
        label: Display name.
        dimension: A key of `TITLES`, or one defined by the suite.
        shift: `Shift.resolved()`; None if unknown, or for a row of the reference benchmark.
        sweep, level, strength: Set if the row is one disturbance at one of several levels.
        parts: The scenarios that a combined row joins.
    """

    id: str
    label: str
    dimension: str
    shift: dict[str, Any] | None = None
    sweep: str | None = None
    level: int | None = None
    strength: str = ""
    parts: tuple[str, ...] = ()


def title_of(dimension: str) -> str:
    """Returns the display name of a dimension."""
    return TITLES.get(dimension) or dimension.replace("_", " ").capitalize()


def describe(ids: Iterable[str], suite: Suite | None) -> list[ScenarioInfo]:
    """Returns the scenarios in the suite's order, grouped by dimension; scenarios unknown to the suite come last."""
    rank = {id: place for place, id in enumerate(suite.scenarios)} if suite else {}
    ordered = sorted(ids, key=lambda id: rank.get(id, len(rank)))
    infos = [_info(id, suite) for id in ordered]
    last = [name for name in TITLES if name in ("mixed", "other")]
    found = [info.dimension for info in infos if info.dimension not in last]
    order = list(dict.fromkeys([*(name for name in TITLES if name not in last), *found, *last]))
    return sorted(infos, key=lambda info: order.index(info.dimension))


def _info(id: str, suite: Suite | None) -> ScenarioInfo:
    scenario = _find(id, suite)
    if scenario is None:
        return ScenarioInfo(id, printable(id), "ind" if id == "ind" else "other")
    shift = None if scenario.reference else scenario.shift.resolved()
    levels = {"sweep": scenario.sweep, "level": scenario.level, "strength": scenario.strength, "parts": scenario.parts}
    return ScenarioInfo(id, printable(scenario.label), scenario.dimension, shift, **levels)


def _find(id: str, suite: Suite | None) -> Scenario | None:
    try:
        return suite.select([id])[0] if suite else None
    except UserError:
        return None
