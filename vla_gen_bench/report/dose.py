"""Dose-response: success at each level of a disturbance, area under the curve, and the level that halves success."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_gen_bench.report.compare import Comparison, Row, once_per_comparison
from vla_gen_bench.report.outcomes import Cell
from vla_gen_bench.report.summaries import bootstrap_rates, few_ids

NEVER = np.inf
"""Of the halving level: success stays at or above half of IND up to the highest level."""


@dataclass(frozen=True)
class Bounded:
    """A number with its bootstrap interval; NaN if it is undefined or there are too few ids."""

    value: float
    low: float = np.nan
    high: float = np.nan


@dataclass(frozen=True)
class Answer:
    """One policy's response to one disturbance.

    Attributes:
        cells: Its counts at each of `DoseResponse.levels`.
        area: Mean success from level 0 to the highest, by the trapezoid rule: 1 is perfect.
        half: The level at which success falls below half of that at level 0, interpolated linearly between levels;
            `NEVER` if it never does.
    """

    cells: tuple[Cell, ...]
    area: Bounded
    half: Bounded


@dataclass(frozen=True)
class DoseResponse:
    """A disturbance at several levels, and every policy's response.

    Attributes:
        sweep, title, dimension: Of the disturbance.
        levels: Ascending; 0 is IND.
        strengths: Label of each level: "IND", "0.02 m", ...
        answers: One per policy.
    """

    sweep: str
    title: str
    dimension: str
    levels: tuple[int, ...]
    strengths: tuple[str, ...]
    answers: tuple[Answer, ...]


@once_per_comparison
def dose_responses(comparison: Comparison) -> list[DoseResponse]:
    """Returns the disturbances that have levels among the rows, in row order; empty without an IND row."""
    places = {row.info.id: place for place, row in enumerate(comparison.rows)}
    ind = next((row for row in comparison.rows if row.info.dimension == "ind"), None)
    sweeps: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if row.info.sweep and ind is not None:
            sweeps.setdefault(row.info.sweep, [ind]).append(row)
    if not sweeps:
        return []
    samples = rate_samples(comparison)
    found = []
    for sweep, rows in sweeps.items():
        rows = sorted(rows, key=lambda row: row.info.level or 0)
        chosen = None if samples is None else samples[:, [places[row.info.id] for row in rows]]
        found.append(_dose(sweep, rows, chosen, comparison))
    return found


@once_per_comparison
def rate_samples(comparison: Comparison) -> np.ndarray | None:
    """Returns bootstrap samples of the rates, [R, rows, policies]; None if a policy ran too few episode ids."""
    outcomes = comparison.outcomes
    return None if few_ids(outcomes) else bootstrap_rates(outcomes)


def _dose(sweep: str, rows: Sequence[Row], samples: np.ndarray | None, comparison: Comparison) -> DoseResponse:
    levels = tuple(row.info.level or 0 for row in rows)
    answers = []
    for policy in range(len(comparison.runs)):
        cells = tuple(row.cells[policy] for row in rows)
        rates = np.array([np.nan if cell.rate is None else cell.rate for cell in cells])
        spread = None if samples is None else samples[:, :, policy]
        area, half = (_bounded(measure, rates, spread, levels, comparison.level) for measure in (areas, halving_levels))
        answers.append(Answer(cells, area, half))
    title = rows[-1].info.label.split(" (")[0]
    strengths = ("IND", *(row.info.strength for row in rows[1:]))
    return DoseResponse(sweep, title, rows[-1].info.dimension, levels, strengths, tuple(answers))


def _bounded(measure, rates: np.ndarray, samples: np.ndarray | None, levels: Sequence[int], level: float) -> Bounded:
    value = float(measure(rates[None], levels)[0])
    if samples is None or np.isnan(value):
        return Bounded(value)
    spread = np.sort(measure(samples, levels))
    spread = spread[~np.isnan(spread)]
    if not len(spread):
        return Bounded(value)
    tail = (1 - level) / 2  # by rank, because infinity cannot be interpolated
    low, high = (spread[round(share * (len(spread) - 1))] for share in (tail, 1 - tail))
    return Bounded(value, float(low), float(high))


def span_of(strengths: Sequence[str]) -> str:
    """Returns the weakest and strongest of the levels' strengths, with their common part once: "0.02 to 0.12 m"."""
    first, last = (strength.split(", ")[0].split(" ") for strength in (strengths[1], strengths[-1]))
    if first == last:
        return " ".join(last)
    if first[1:] == last[1:]:
        return f"{first[0]} to {' '.join(last)}"
    return f"{' '.join(first)} to {' '.join(last[1:] if first[0] == last[0] else last)}"


def areas(rates: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """Returns [R]: the mean of rates [R, L] over the levels, by the trapezoid rule."""
    steps = np.diff(np.asarray(levels, float))
    return ((rates[:, 1:] + rates[:, :-1]) / 2 * steps).sum(axis=1) / steps.sum()


def halving_levels(rates: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """Returns [R]: where rates [R, L] first fall below half the first; infinity if they never do, NaN if it is 0."""
    half = rates[:, :1] / 2
    below = rates < half
    first = below.argmax(axis=1)
    rows = np.arange(len(rates))
    after, before = rates[rows, first], rates[rows, np.maximum(first - 1, 0)]
    x = np.asarray(levels, float)
    span = np.where(before > after, before - after, 1.0)
    crossed = x[np.maximum(first - 1, 0)] + (before - half[:, 0]) / span * (x[first] - x[np.maximum(first - 1, 0)])
    answer = np.where(below.any(axis=1), crossed, NEVER)
    return np.where((rates[:, 0] > 0) & ~np.isnan(rates).any(axis=1), answer, np.nan)


def share_kept(answer: Answer) -> float | None:
    """Returns the area as a fraction of in-distribution success; None if that is 0 or unknown."""
    ind = answer.cells[0].rate
    return None if not ind or np.isnan(answer.area.value) else answer.area.value / ind
