"""The notes at the foot of a report, which state how its numbers were computed, table by table."""

from __future__ import annotations

from vla_gen_bench.report.compare import Comparison
from vla_gen_bench.report.contrasts import PAIRED_SHARE, Contrast
from vla_gen_bench.report.outcomes import METRICS, episode_ids
from vla_gen_bench.report.summaries import FLIPS, MIN_IDS, RESAMPLES

PARTIAL_MARK = "†"


def definitions(comparison: Comparison) -> list[str]:
    """Returns all notes on how the numbers were computed."""
    tables = (*rate_notes(comparison), *contrast_notes(comparison), *item_notes(comparison))
    return [*tables, *partial_notes(comparison)]


def rate_notes(comparison: Comparison) -> list[str]:
    """Returns the sentences on rates, means and drops."""
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
    return notes + few_notes(comparison)


def few_notes(comparison: Comparison) -> list[str]:
    """Returns a warning if the runs have too few episodes."""
    fewest = min(len(episode_ids([run])) for run in comparison.runs)
    if fewest >= MIN_IDS:
        return []
    return [
        f"Warning: {fewest} episode ids are too few to compare policies by. With fewer than {MIN_IDS} a bootstrap "
        "interval would be too narrow, and is left out."
    ]


def contrast_notes(comparison: Comparison) -> list[str]:
    """Returns the sentences on differences and tests; nothing if none is shown."""
    columns = [[row.contrasts[place] for row in comparison.rows] for place in range(len(comparison.runs))]
    families = [[contrast for contrast in column if contrast] for column in columns if any(column)]
    return [*_pairing(families), *_families(comparison, families)] if families else []


def _pairing(families: list[list[Contrast]]) -> list[str]:
    pairing = {contrast.paired for family in families for contrast in family}
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
    return notes


def _families(comparison: Comparison, families: list[list[Contrast]]) -> list[str]:
    """States the correction families: the dimensions' means are primary, the rows secondary."""
    sizes = {len(family) for family in families}
    over = f"the {sizes.pop()} scenarios" if len(sizes) == 1 else "all scenarios"
    marks = "* < 0.05, ** < 0.01, *** < 0.001, after correction. Drops have intervals, and no test."
    differences = [found for summary in comparison.summaries for found in summary.differences]
    if not any(found and found.p is not None for found in differences):
        return [f"p is corrected by Holm over {over} of each pair of policies. {marks}"]
    return [
        "Primary tests: the means of the dimensions, by sign flips over the episode ids "
        f"({FLIPS:,} flips; <= marks the smallest p-value that this many flips can give), corrected by Holm over the "
        "dimensions of each pair of policies. The mean of all shifted scenarios summarises them; its p is not "
        "corrected.",
        f"Secondary tests: the rows, corrected by Holm over {over} of each pair of policies. {marks}",
    ]


def item_notes(comparison: Comparison) -> list[str]:
    """Returns the sentence on intervals over the items of a pool; nothing if none is shown."""
    if not comparison.items:
        return []
    return [
        "Over the items of a pool: the same rates, with intervals that resample the tables, objects, receptacles, "
        "phrasings or textures a scenario draws from instead of its episodes: what other items of that kind would "
        "give. n: as many independent episodes would give as wide an interval."
    ]


def partial_notes(comparison: Comparison) -> list[str]:
    """Returns what is missing from the runs, if anything."""
    if not comparison.partial:
        return []
    defects = "; ".join(f"{run.label}: {run.defect()}" for run in comparison.runs if run.defect())
    return [f"{PARTIAL_MARK} rests on an incomplete run. {defects}."]
