"""The sentences at the foot of a report that say how its numbers were made."""

from __future__ import annotations

from vla_gen_bench.report.compare import Comparison
from vla_gen_bench.report.contrasts import PAIRED_SHARE
from vla_gen_bench.report.outcomes import METRICS
from vla_gen_bench.report.summaries import FLIPS, RESAMPLES

PARTIAL_MARK = "†"


def definitions(comparison: Comparison) -> list[str]:
    """Returns the sentences that say how the numbers were made."""
    percent = f"{100 * comparison.level:g}%"
    notes = [
        f"Rate: {METRICS[comparison.metric]}, with its {percent} Wilson interval; k/n: successes of the episodes that "
        "have an outcome. Errored and missing episodes are shown, and are no part of n."
    ]
    if comparison.summaries:
        notes.append(
            "Mean: the plain mean of the rows, each counting the same. Drop: IND minus the mean, in percentage points; "
            "relative drop: the drop as a share of IND, blank where IND is 0. Their intervals: percentiles of "
            f"{RESAMPLES} bootstrap samples of the episode ids, drawn jointly for all rows and policies (fixed seed)."
        )
    if comparison.baseline is not None:
        notes += _contrast_notes(comparison)
    if comparison.partial:
        defects = "; ".join(f"{run.label}: {run.defect()}" for run in comparison.runs if run.defect())
        notes.append(f"{PARTIAL_MARK} rests on an incomplete run. {defects}.")
    return notes


def _contrast_notes(comparison: Comparison) -> list[str]:
    columns = [[row.contrasts[place] for row in comparison.rows] for place in range(len(comparison.runs))]
    families = [[contrast for contrast in column if contrast] for column in columns if any(column)]
    if not families:
        return []
    pairing = {contrast.paired for family in families for contrast in family}
    sizes = {len(family) for family in families}
    over = f"the {sizes.pop()} scenarios" if len(sizes) == 1 else "all scenarios"
    notes = []
    if True in pairing:
        notes.append(
            "Difference: paired by episode (scenario, seed, index), with Newcombe's paired interval (method 10); "
            "a:b counts the episodes that only this policy : only the baseline solved; p: exact McNemar."
        )
    if False in pairing:
        notes.append(
            f"Unpaired: the two runs share less than {PAIRED_SHARE:.0%} of the row's episodes; Newcombe's interval for "
            "independent rates, Boschloo's exact test."
        )
    family = f"p is corrected by Holm over {over} of each pair of policies"
    notes.append(f"{family}: * < 0.05, ** < 0.01, *** < 0.001. Drops have intervals, and no test.")
    if any(estimate and estimate.p is not None for summary in comparison.summaries for estimate in summary.differences):
        notes.append(f"p of a mean: sign-flip test over the episode ids ({FLIPS} flips), not corrected.")
    return notes
