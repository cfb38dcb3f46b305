"""The table of all levels of effects and pools, with units and reasons; shown in docs/robustness.md."""

from __future__ import annotations

from collections.abc import Mapping

from vla_gen_bench.episodes.axes import POOL_LEVELS, Levels, Number
from vla_gen_bench.episodes.effects import built_in_effects
from vla_gen_bench.episodes.shift import numbers_of

HEADER = ("disturbance", "kind", "severity", *map(str, range(1, 6)), "why these")


def level_rows() -> list[tuple[str, ...]]:
    """Returns one row per severity of each effect or pool with levels, in the columns of `HEADER`."""
    rows = []
    for name, effect in built_in_effects().items():
        if effect.levels is not None:
            rows += _rows(name, effect.kind, effect.levels, effect.severities or {})
    for (axis, pool), levels in POOL_LEVELS.items():
        rows += _rows(f"{axis}: {pool}", "axis", levels, numbers_of(axis, pool))
    return rows


def _rows(name: str, kind: str, levels: Levels, numbers: Mapping[str, Number]) -> list[tuple[str, ...]]:
    found = []
    for place, (severity, values) in enumerate(levels.values.items()):
        unit = numbers[severity].unit
        what = f"{severity}, {unit}" if unit and unit != severity else severity
        found.append((name, kind, what, *(f"{value:g}" for value in values), "" if place else levels.reason))
    return found


def level_table() -> str:
    """Returns the table as Markdown."""
    rows = [HEADER, tuple("---" for _ in HEADER), *level_rows()]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)
