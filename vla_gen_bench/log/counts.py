"""Counts and intervals over episode rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Returns the Wilson score interval of a rate; (0, 1) without trials.

    As `scipy.stats.binomtest(...).proportion_ci(method="wilson")`, bit for bit, but `scipy.stats` takes 0.4 s to import.
    """
    if trials == 0:
        return 0.0, 1.0
    from scipy.special import ndtri

    z = float(ndtri(0.5 + 0.5 * level))
    rate = successes / trials
    denominator = 2 * (trials + z**2)
    centre = (2 * trials * rate + z**2) / denominator
    half_width = z / denominator * math.sqrt(4 * trials * rate * (1 - rate) + z**2)
    low = 0.0 if successes == 0 else centre - half_width
    high = 1.0 if successes == trials else centre + half_width
    return low, high


def count(rows: Iterable[dict[str, Any]], metric: str = "success_at_end") -> dict[str, Any]:
    """Returns episodes, errors, success_at_end, success_once (counts) and ci95 of `metric`, one of these two.

    Errored episodes are no failed attempts: the rate and its interval are over the others.
    """
    rows = list(rows)
    done = [row for row in rows if row["status"] == "ok"]
    successes = {name: sum(row[name] for row in done) for name in ("success_at_end", "success_once")}
    interval = [round(bound, 6) for bound in wilson(successes[metric], len(done))]
    return {"episodes": len(rows), "errors": len(rows) - len(done), **successes, "ci95": interval}
