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


def count(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Returns episodes, errors, success_at_end, success_once (counts) and ci95 of success_at_end.

    Errored episodes are no failed attempts: the rate and its interval are over the others.
    """
    rows = list(rows)
    done = [row for row in rows if row["status"] == "ok"]
    at_end = sum(row["success_at_end"] for row in done)
    return {
        "episodes": len(rows),
        "errors": len(rows) - len(done),
        "success_at_end": at_end,
        "success_once": sum(row["success_once"] for row in done),
        "ci95": [round(bound, 6) for bound in wilson(at_end, len(done))],
    }
