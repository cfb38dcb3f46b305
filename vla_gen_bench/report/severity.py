"""Finds scenarios of a suite that are one shift at several strengths, from the shifts alone, not from names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vla_gen_bench.report.scenarios import ScenarioInfo

Leaf = tuple[tuple[str, ...], Any]


@dataclass(frozen=True)
class Sweep:
    """Scenarios whose shifts differ in a single number.

    Attributes:
        name: For file names, like `noise-alpha`.
        title: For display, like `noise alpha`.
        ids: Scenario ids, weakest first.
        values: The differing number, ascending.
    """

    name: str
    title: str
    ids: tuple[str, ...]
    values: tuple[float, ...]


def sweeps(infos: Sequence[ScenarioInfo]) -> list[Sweep]:
    """Returns the sweeps among the scenarios, each of at least two strengths."""
    groups: dict[Any, dict[float, str]] = {}
    for info in infos:
        leaves = tuple(_leaves(info.shift, ())) if info.shift else ()
        for place, (path, value) in enumerate(leaves):
            if isinstance(value, int | float) and not isinstance(value, bool):
                others = (*leaves[:place], *leaves[place + 1 :])
                groups.setdefault((path, info.dimension, repr(others)), {}).setdefault(value, info.id)
    found = [_sweep(path, strengths) for (path, *_), strengths in groups.items() if len(strengths) > 1]
    labels = {info.id: info.label for info in infos}
    return [_distinct(sweep, found[:place], labels) for place, sweep in enumerate(found)]


def _distinct(sweep: Sweep, before: Sequence[Sweep], labels: dict[str, str]) -> Sweep:
    """Distinguishes sweeps of the same number in different shifts: a count in the name, a scenario in the title."""
    namesakes = sum(other.name == sweep.name for other in before)
    if not namesakes:
        return sweep
    title = f"{sweep.title} ({labels[sweep.ids[0]]} ...)"
    return replace(sweep, name=f"{sweep.name}-{namesakes + 1}", title=title)


def _sweep(path: tuple[str, ...], found: dict[float, str]) -> Sweep:
    values = tuple(sorted(found))
    words = [word for word in path if word not in ("effects", "params")]
    ids = tuple(found[value] for value in values)
    return Sweep("-".join(words), " ".join(words).replace("_", " "), ids, values)


def _leaves(data: Any, path: tuple[str, ...]) -> Iterator[Leaf]:
    """Yields (path, value) of every leaf of nested data; a list item is identified by its `name` if it has one."""
    if isinstance(data, dict):
        for key in sorted(data):
            yield from _leaves(data[key], (*path, key))
    elif isinstance(data, list):
        for place, item in enumerate(data):
            named = isinstance(item, dict) and "name" in item
            yield from _leaves(item, (*path, str(item["name"]) if named else str(place)))
    else:
        yield path, data
