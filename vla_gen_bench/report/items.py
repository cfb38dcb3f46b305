"""How far a rate depends on the few items of a pool: intervals from resampling tables or objects, not episodes.

192 episodes on unseen tables show only 5 tables. A policy that fails on one of them fails in all its episodes, so they
are not 192 independent draws of "an unseen table". The intervals here estimate the rate on other items of that kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from vla_gen_bench.episodes.axes import AXES, phrasings
from vla_gen_bench.episodes.catalog import Catalog, load_catalog
from vla_gen_bench.episodes.suite import Suite, draw
from vla_gen_bench.errors import UserError
from vla_gen_bench.log.rows import Row
from vla_gen_bench.report import stats
from vla_gen_bench.report.load import Run
from vla_gen_bench.report.outcomes import episode_ids
from vla_gen_bench.report.scenarios import ScenarioInfo
from vla_gen_bench.report.summaries import BOOTSTRAP_SEED, RESAMPLES

KINDS = {"object": "objects", "receptacle": "receptacles", "table": "tables", "phrasing": "phrasings"}
TEXTURES = "textures"


@dataclass(frozen=True)
class ItemEstimate:
    """A rate or a difference of rates over resampled items.

    Attributes:
        low, high: NaN if all items agree: they are then too few for an interval.
        effective: Number of independent episodes that give an interval of the same width; None for a difference.
    """

    value: float
    low: float
    high: float
    effective: float | None = None


@dataclass(frozen=True)
class ItemRow:
    """One scenario whose shift draws from a pool of `count` items of a `kind`; None if a policy lacks episodes."""

    info: ScenarioInfo
    kind: str
    count: int
    rates: tuple[ItemEstimate | None, ...]
    differences: tuple[ItemEstimate | None, ...]


def item_rows(
    runs: Sequence[Run],
    infos: Sequence[ScenarioInfo],
    suite: Suite | None,
    outcomes: np.ndarray,
    baseline: int | None,
    level: float,
) -> tuple[ItemRow, ...]:
    """Returns a row for each scenario whose shift draws from a pool of at least two items.

    Args:
        runs, infos: The comparison's runs and scenarios.
        suite: The runs' suite, to sample textures, which log rows do not hold; None leaves those scenarios out.
        outcomes: From `outcome_array`.
        baseline: Position of the run that the others are compared with.
        level: Confidence.
    """
    ids = episode_ids(runs)
    found = []
    for place, info in enumerate(infos):
        kind = kind_of(info)
        labels = [] if kind is None else _labels(kind, info, runs, ids, suite)
        items = sorted({label for label in labels if label is not None})
        if len(items) > 1:
            at = np.array([items.index(label) if label is not None else -1 for label in labels])
            found.append(ItemRow(info, str(kind), len(items), *_estimates(outcomes[:, place], at, baseline, level)))
    return tuple(found)


def kind_of(info: ScenarioInfo) -> str | None:
    """Returns what a shift samples: a value of `KINDS`, or "textures"; None if it samples no items."""
    shift = info.shift or {}
    for axis, kind in KINDS.items():
        if axis in shift and shift[axis]["pool"] != next(iter(AXES[axis])):
            return kind
    return TEXTURES if info.dimension != "ind" and shift.get("effects") else None


# ---- which episode shows which item ---------------------------------------------------------------------------


def _labels(
    kind: str, info: ScenarioInfo, runs: Sequence[Run], ids: Sequence[tuple[int, int]], suite: Suite | None
) -> list[str | None]:
    rows: dict[tuple[int, int], Row] = {}
    for run in reversed(runs):  # the first run's rows win
        rows |= run.by_scenario.get(info.id, {})
    world = runs[0].header.world.name
    if kind == TEXTURES:
        shown = [id for id in ids if id in rows]
        if not shown or _texture(suite, info.id, world, shown[0]) is None:  # effects without textures
            return []
        return [_texture(suite, info.id, world, id) if id in rows else None for id in ids]
    return [_shown(kind, rows[id], world) if id in rows else None for id in ids]


def _shown(kind: str, row: Row, world: str) -> str | None:
    if kind == "phrasings":
        return _phrasing(row, world)
    return {"objects": row.target, "receptacles": row.receptacle, "tables": row.table}[kind]


def _phrasing(row: Row, world: str) -> str | None:
    """Returns the pattern that produces the row's instruction."""
    try:
        names = _names(world)
        words = {"object": names["objects"][str(row.target)], "receptacle": names["receptacles"][str(row.receptacle)]}
        patterns = phrasings(world, "unseen")
    except (UserError, KeyError):
        return None
    return next((pattern for pattern in patterns if pattern.format(**words) == row.instruction), None)


@lru_cache(maxsize=None)
def _names(world: str) -> Mapping[str, Mapping[str, str]]:
    catalog: Catalog = load_catalog(world)
    return {kind: {item.id: item.name for item in getattr(catalog, kind)} for kind in ("objects", "receptacles")}


def _texture(suite: Suite | None, scenario: str, world: str, id: tuple[int, int]) -> str | None:
    try:
        spec = None if suite is None else draw(suite.select([scenario])[0], world, *id)
    except UserError:  # the suite uses an effect that is not installed here
        return None
    drawn: list[Any] = [effect.params.get("texture") for effect in spec.effects] if spec else []
    return next((str(texture) for texture in drawn if texture is not None), None)


# ---- resampling them ------------------------------------------------------------------------------------------


def _estimates(
    outcomes: np.ndarray, items: np.ndarray, baseline: int | None, level: float
) -> tuple[tuple[ItemEstimate | None, ...], tuple[ItemEstimate | None, ...]]:
    """Returns rates and differences per policy.

    Args:
        outcomes: float [P, N]; NaN = not run.
        items: int [N], the item of each id; -1 = unknown.
        baseline: See `item_rows`.
        level: Confidence.
    """
    count = items.max() + 1
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)  # [R, items]
    member = (items == np.arange(count)[:, None]).astype(float)  # [items, N]
    done = np.isfinite(outcomes)
    hits, tried = np.nan_to_num(outcomes) @ member.T, done.astype(float) @ member.T  # [P, items]
    with np.errstate(invalid="ignore", divide="ignore"):
        samples = np.ascontiguousarray(((weights @ hits.T) / (weights @ tried.T)).T)  # [P, R]
        rates = hits.sum(axis=1) / tried.sum(axis=1)
    found = [_rate(rates[p], samples[p], int(tried[p].sum()), level) for p in range(len(rates))]
    apart = [
        None
        if baseline in (None, p) or not (done[p] == done[baseline]).all()
        else _interval(rates[p] - rates[baseline], samples[p] - samples[baseline], level)
        for p in range(len(rates))
    ]
    return tuple(found), tuple(apart)


def _rate(rate: float, samples: np.ndarray, n: int, level: float) -> ItemEstimate | None:
    found = _interval(rate, samples, level)
    if found is None or np.isnan(found.low):
        return found
    effective = min(rate * (1 - rate) / float(np.nanvar(samples)), n)
    return ItemEstimate(found.value, found.low, found.high, effective)


def _interval(value: float, samples: np.ndarray, level: float) -> ItemEstimate | None:
    if np.isnan(value):
        return None
    low, high = stats.percentile_interval(samples, level)
    flat = not high > low
    return ItemEstimate(float(value), np.nan if flat else float(low), np.nan if flat else float(high))
