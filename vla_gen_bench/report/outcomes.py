"""Runs as one array of outcomes, [policies, scenarios, episode ids], and counts per policy and scenario.

All numbers of a report are computed from that array, so the bootstrap can resample ids jointly for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_gen_bench.episodes.suite import Suite
from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.log.counts import METRICS, Counts
from vla_gen_bench.report.load import Run

__all__ = ["METRICS", "Cell", "cell_of", "chosen_metric", "episode_ids", "outcome_array"]


def chosen_metric(given: str | None, suite: Suite | None) -> str:
    """Returns the metric that was given, or the suite's; raises `UserError` if there is no such metric."""
    if given not in (None, *METRICS):
        raise UserError(f"--metric {given}: no such metric{suggest(str(given), METRICS)}")
    return given or (suite.protocol.metric if suite else "success_at_end")


@dataclass(frozen=True)
class Cell:
    """One policy on one scenario. `n` episodes have an outcome; errored and missing episodes are not included."""

    k: int
    n: int
    errors: int
    missing: int
    low: float
    high: float

    @property
    def rate(self) -> float | None:
        return self.k / self.n if self.n else None

    @property
    def partial(self) -> bool:
        return bool(self.errors or self.missing)


def episode_ids(runs: Sequence[Run]) -> list[tuple[int, int]]:
    """Returns (seed, index) of all episodes of all runs, sorted."""
    return sorted(set().union(*(rows for run in runs for rows in run.by_scenario.values())))


def outcome_array(runs: Sequence[Run], scenarios: Sequence[str], metric: str) -> np.ndarray:
    """Returns float [policies, scenarios, ids]: 1 success, 0 failure, NaN no outcome; ids are (seed, index), sorted."""
    ids = episode_ids(runs)
    place = {id: position for position, id in enumerate(ids)}
    row = {scenario: position for position, scenario in enumerate(scenarios)}
    outcomes = np.full((len(runs), len(scenarios), len(ids)), np.nan)
    for policy, run in enumerate(runs):
        for scenario, rows in run.by_scenario.items():
            if scenario in row:
                found = [float(getattr(episode, metric)) if episode.ok else np.nan for episode in rows.values()]
                outcomes[policy, row[scenario], [place[id] for id in rows]] = found
    return outcomes


def cell_of(counts: Counts, missing: int, metric: str, level: float) -> Cell:
    """Returns the cell of the counted episodes and the number of missing ones."""
    return Cell(counts.of(metric), counts.n, counts.errors, missing, *counts.interval(metric, level))
