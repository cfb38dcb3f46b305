"""Runs as one array of outcomes, [policies, scenarios, episode ids], and the counts of each policy on each scenario.

All numbers of a report are computed from that array, so that the bootstrap can draw ids jointly for all of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_gen_bench.report import stats
from vla_gen_bench.report.load import Run

METRICS = {"success_at_end": "success at the end", "success_once": "success at any time"}


@dataclass(frozen=True)
class Cell:
    """One policy on one scenario. `n` episodes have an outcome; errored and missing ones are not among them."""

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


def outcome_array(runs: Sequence[Run], scenarios: Sequence[str], metric: str) -> np.ndarray:
    """Returns float [policies, scenarios, ids]: 1 success, 0 failure, NaN no outcome; ids are (seed, index), sorted."""
    ids = sorted({key[1:] for run in runs for key in run.episodes})
    place = {id: position for position, id in enumerate(ids)}
    row = {scenario: position for position, scenario in enumerate(scenarios)}
    outcomes = np.full((len(runs), len(scenarios), len(ids)), np.nan)
    for policy, run in enumerate(runs):
        for (scenario, *id), episode in run.episodes.items():
            success = getattr(episode, metric)
            if success is not None and scenario in row:
                outcomes[policy, row[scenario], place[tuple(id)]] = success
    return outcomes


def cell_of(outcomes: np.ndarray, errors: int, missing: int, level: float) -> Cell:
    """Returns the counts of outcomes [ids], with how many more episodes errored and are missing."""
    k, n = int(np.nansum(outcomes)), int(np.isfinite(outcomes).sum())
    return Cell(k, n, errors, missing, *stats.wilson(k, n, level))


def stage_counts(run: Run) -> defaultdict[str, Counter[str]]:
    """Returns how many episodes of each scenario have each stage label; errored ones and old logs have none."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (scenario, _, _), episode in run.episodes.items():
        if episode.stage is not None:
            counts[scenario][episode.stage] += 1
    return counts
