"""The findings of a comparison in plain words."""

from __future__ import annotations

from vla_gen_bench.report.compare import Comparison
from vla_gen_bench.report.scenarios import title_of
from vla_gen_bench.report.summaries import MEAN, RELATIVE, Summary

SIGNIFICANT = 0.05


def sentences(comparison: Comparison) -> list[str]:
    """Returns a sentence per policy, then one per contrast with the baseline."""
    policies = [_policy(comparison, place) for place in range(len(comparison.runs))]
    others = [place for place in range(len(comparison.runs)) if place != comparison.baseline]
    return policies + [_contrast(comparison, place) for place in others if comparison.baseline is not None]


def _policy(comparison: Comparison, place: int) -> str:
    parts = []
    for row in comparison.rows:
        cell = row.cells[place]
        if row.info.dimension == "ind" and cell.rate is not None:
            parts.append(f"solves {cell.rate:.1%} of {row.info.label} ({cell.k} of {cell.n} episodes)")
    mean = _overall(comparison, MEAN)
    if mean and mean.estimates[place].value is not None:
        what = f"{mean.rows} shifted scenarios" if mean.rows > 1 else "the shifted scenario"
        parts.append(f"{mean.estimates[place].value:.1%} on average over {what}")
    text = f"{comparison.labels[place]} {' and '.join(parts) or 'has no outcome'}"
    worst = _worst_drop(comparison, place)
    return f"{text}; {worst}." if worst else f"{text}."


def _overall(comparison: Comparison, kind: str) -> Summary | None:
    """Returns the summary over all shifted rows, or of their dimension if they have only one."""
    return next((summary for summary in reversed(comparison.summaries) if summary.kind == kind), None)


def _worst_drop(comparison: Comparison, place: int) -> str:
    drops = {
        summary.dimension: summary.estimates[place].value
        for summary in comparison.summaries
        if summary.kind == RELATIVE and summary.dimension != "ood" and summary.estimates[place].value is not None
    }
    if not drops:
        return ""
    dimension = max(drops, key=drops.__getitem__)
    if drops[dimension] <= 0:
        return "no dimension costs it anything"
    return f"it loses most on {title_of(dimension)}: {drops[dimension]:.1%} of its IND success"


def _contrast(comparison: Comparison, place: int) -> str:
    contrasts = [row.contrasts[place] for row in comparison.rows if row.contrasts[place]]
    if not contrasts:
        return f"{comparison.labels[place]} and {comparison.labels[comparison.baseline]} have no scenario in common."
    clear = [contrast for contrast in contrasts if contrast.p_holm < SIGNIFICANT]
    better = sum(contrast.difference > 0 for contrast in clear)
    pairing = "" if all(contrast.paired for contrast in contrasts) else ", not all of them on the same episodes"
    return (
        f"Against {comparison.labels[comparison.baseline]}, {comparison.labels[place]} is better on {better} and worse "
        f"on {len(clear) - better} of {len(contrasts)} scenarios; the data do not tell them apart on the "
        f"other {len(contrasts) - len(clear)} (5% level, corrected for {len(contrasts)} tests{pairing})."
    )
