"""Counts and intervals over episode rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Returns the Wilson score interval of a rate; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def count(rows: Iterable[dict[str, Any]], metric: str = "success_at_end") -> dict[str, Any]:
    """Returns episodes, errors, success_at_end, success_once (counts) and ci95 of `metric`, one of these two.

    Errored episodes are no failed attempts: the rate and its interval are over the others.
    """
    rows = list(rows)
    done = [row for row in rows if row["status"] == "ok"]
    successes = {name: sum(row[name] for row in done) for name in ("success_at_end", "success_once")}
    interval = [round(bound, 6) for bound in wilson(successes[metric], len(done))]
    return {"episodes": len(rows), "errors": len(rows) - len(done), **successes, "ci95": interval}
