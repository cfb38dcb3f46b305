"""Means over rows, and ranks that claim no more than the episodes show.

All policies of a suite ran the same episodes, so each episode id (seed, index) gives one number per policy: its mean
success over the rows. Ids are independent draws; the intervals are Student's t over them, paired for a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_lowercase

import numpy as np

MIN_LISTED = 100  # minimum episodes of every row
MIN_RANKED = 300  # minimum episodes of the ranked mean, over all its rows
LEVEL = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over rows with its interval; `method` names its kind."""

    value: float
    low: float
    high: float
    episodes: int
    method: str


@dataclass(frozen=True)
class Place:
    """A policy's place: `rank` = 1 + number of significantly better policies; a shared letter = no difference shown."""

    rank: int
    letters: str


def mean_over_rows(outcomes: np.ndarray) -> Mean:
    """Returns the mean of the rows' rates for outcomes [rows, ids] of 0 and 1, every row complete."""
    low, high = t_interval(outcomes.mean(axis=0))
    return Mean(float(outcomes.mean()), max(low, 0.0), min(high, 1.0), outcomes.size, "t over episode ids")


def mean_of_counts(counts: Sequence[tuple[int, int]]) -> Mean:
    """Returns the mean of the rates k / n if only the counts are known: a normal interval for independent rows."""
    from scipy.stats import norm

    rates = [k / n for k, n in counts]
    middle = float(np.mean(rates))
    variance = sum(p * (1 - p) / n for p, (_, n) in zip(rates, counts, strict=True)) / len(counts) ** 2
    half = float(norm.ppf((1 + LEVEL) / 2) * variance**0.5)
    episodes = sum(n for _, n in counts)
    return Mean(middle, max(middle - half, 0.0), min(middle + half, 1.0), episodes, "normal, rows independent")


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """Returns Student's interval of the mean of values [N]; (-inf, inf) for fewer than two."""
    from scipy.stats import t

    if len(values) < 2:
        return -np.inf, np.inf
    half = t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def places(per_id: Mapping[str, np.ndarray]) -> dict[str, Place]:
    """Ranks policies by means over the same episode ids.

    Two policies differ if the paired interval of their difference excludes 0. There is no correction for the number of
    pairs: the result is a table of ties, not a test.

    Args:
        per_id: Policy -> [N], the mean over rows for each id, with the same id order for all.

    Returns:
        By policy, best first.
    """
    order = sorted(per_id, key=lambda name: (-per_id[name].mean(), name))
    better = {name: [other for other in order if _better(per_id[other], per_id[name])] for name in order}
    tied = {frozenset(pair) for pair in combinations(order, 2) if not _differ(better, *pair)}
    letters = compact_letters(order, tied)
    return {name: Place(1 + len(better[name]), letters[name]) for name in order}


def _better(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return t_interval(ours - theirs)[0] > 0


def _differ(better: Mapping[str, list[str]], a: str, b: str) -> bool:
    return a in better[b] or b in better[a]


def compact_letters(order: Sequence[str], tied: set[frozenset[str]]) -> dict[str, str]:
    """Returns each policy's letters: two policies share one exactly if they are tied.

    A letter is a maximal set of mutually tied policies (Piepho 2004, J. Comput. Graph. Stat. 13, 456-466); the set of
    the best policy comes first.
    """
    groups = sorted(_cliques([], list(order), [], tied), key=lambda group: [order.index(name) for name in group])
    names = {name: [] for name in order}
    for place, group in enumerate(groups):
        for name in group:
            names[name].append(_letter(place))
    return {name: "".join(found) for name, found in names.items()}


def _cliques(chosen: list[str], open_: list[str], done: list[str], tied: set[frozenset[str]]) -> list[list[str]]:
    """Bron and Kerbosch 1973: all maximal sets in which every pair is tied."""
    if not open_ and not done:
        return [chosen]
    found = []
    while open_:
        name = open_.pop(0)
        near = [[other for other in group if frozenset((name, other)) in tied] for group in (open_, done)]
        found += _cliques([*chosen, name], *near, tied)
        done = [*done, name]
    return found


def _letter(place: int) -> str:
    """a .. z, then a2 .. z2 and so on."""
    round_, at = divmod(place, len(ascii_lowercase))
    return ascii_lowercase[at] + (str(round_ + 1) if round_ else "")
