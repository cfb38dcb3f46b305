"""Two shifts at once: their joint cost against the sum of their separate costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_gen_bench.report import stats
from vla_gen_bench.report.compare import Comparison, once_per_comparison
from vla_gen_bench.report.dose import Bounded, rate_samples


@dataclass(frozen=True)
class Joint:
    """One policy under two shifts at once.

    Attributes:
        rate: Success under both.
        expected: IND minus the loss of each alone; below 0 if they add up to more than IND.
        interaction: `rate` minus `expected`: negative if both together cost more than the sum.
    """

    rate: float
    expected: float
    interaction: Bounded

    @property
    def floored(self) -> bool:
        """Whether the summed losses exceed IND; then the interaction means nothing."""
        return self.expected < 0


@dataclass(frozen=True)
class Interaction:
    """A combined row, its two parts, and each policy's result; None if one of the four rows has no episodes."""

    scenario: str
    label: str
    joints: tuple[Joint | None, ...]


@once_per_comparison
def interactions(comparison: Comparison) -> list[Interaction]:
    """Returns the combined rows for which both parts and IND are also rows."""
    places = {row.info.id: place for place, row in enumerate(comparison.rows)}
    ind = next((row.info.id for row in comparison.rows if row.info.dimension == "ind"), None)
    pairs = [
        row for row in comparison.rows if len(row.info.parts) == 2 and ind and set(row.info.parts) <= places.keys()
    ]
    if not pairs:
        return []
    samples = rate_samples(comparison)
    found = []
    for row in pairs:
        four = [places[id] for id in (row.info.id, *row.info.parts, ind)]
        joints = tuple(_joint(comparison, four, samples, policy) for policy in range(len(comparison.runs)))
        found.append(Interaction(row.info.id, row.info.label, joints))
    return found


def _joint(comparison: Comparison, four: list[int], samples: np.ndarray | None, policy: int) -> Joint | None:
    rates = [comparison.rows[place].cells[policy].rate for place in four]
    if any(rate is None for rate in rates):
        return None
    both, first, second, ind = rates
    expected = first + second - ind
    low = high = np.nan
    if samples is not None:
        signs = np.array([1, -1, -1, 1])
        low, high = stats.percentile_interval(samples[:, four, policy] @ signs, comparison.level)
    return Joint(both, expected, Bounded(both - expected, float(low), float(high)))
