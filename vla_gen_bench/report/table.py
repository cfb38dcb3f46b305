"""A `Comparison` as tables of short texts, the same for every output format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isnan

from vla_gen_bench.errors import printable
from vla_gen_bench.log.stages import STAGES
from vla_gen_bench.report.blocks import Block, Document, Line, Text
from vla_gen_bench.report.compare import Comparison
from vla_gen_bench.report.contrasts import Contrast
from vla_gen_bench.report.items import ItemEstimate
from vla_gen_bench.report.notes import contrast_notes, definitions, item_notes, rate_notes
from vla_gen_bench.report.outcomes import METRICS, Cell
from vla_gen_bench.report.scenarios import title_of
from vla_gen_bench.report.stats import floor_of
from vla_gen_bench.report.summaries import ABSOLUTE, FLIPS, MEAN, RELATIVE, Estimate, Summary
from vla_gen_bench.report.workspace import coverage_block, coverage_rows


def document(comparison: Comparison, stages: bool = False, notes: Iterable[str] = ()) -> Document:
    """Returns the tables of a comparison.

    Args:
        comparison: What to show.
        stages: Add the shares of the stage labels and the workspace covered, if the logs have them.
        notes: Further notes for the foot.
    """
    blocks = [rates_block(comparison)]
    if comparison.baseline is not None:
        blocks.append(contrasts_block(comparison))
    if comparison.items:
        blocks.append(items_block(comparison))
    if stages:
        blocks += behaviour_blocks(comparison)
    return Document(title(comparison), tuple(blocks), (*definitions(comparison), *notes))


def title(comparison: Comparison) -> str:
    """Returns the title line: metric, suite and world; starts with PARTIAL if episodes are missing or errored."""
    header = comparison.runs[0].header
    what = METRICS[comparison.metric].capitalize()
    text = printable(f"{what} on suite {header.suite.id}, world {header.world.label}")
    return f"PARTIAL: {text}" if comparison.partial else text


def rates_block(comparison: Comparison) -> Block:
    """Returns rates per scenario, and the mean and drops per dimension, one column per policy."""

    fair = [not run.header.policy.privileged for run in comparison.runs]

    def line(row) -> Line:
        best = best_places([cell.rate for cell in row.cells], fair)
        cells = [_rate_text(cell, place in best) for place, cell in enumerate(row.cells)]
        return Line(row.info.label, tuple(cells), scenario=row.info.id)

    def summary(of: Summary) -> Line:
        best = best_places([estimate.value for estimate in of.estimates], fair) if of.kind == MEAN else ()
        cells = [estimate_text(of.kind, estimate, place in best) for place, estimate in enumerate(of.estimates)]
        return Line(summary_label(of), tuple(cells), summary=True)

    sections = _sections(comparison, line, summary)
    return Block("Success rates", tuple(comparison.labels), sections, tuple(rate_notes(comparison)))


def contrasts_block(comparison: Comparison) -> Block:
    """Returns differences from the baseline, one column per other policy."""
    others = [place for place in range(len(comparison.runs)) if place != comparison.baseline]

    def line(row) -> Line:
        return Line(row.info.label, tuple(_contrast_text(row.contrasts[o]) for o in others), scenario=row.info.id)

    def summary(of: Summary) -> Line:
        cells = tuple(estimate_text(of.kind, of.differences[o], signed=True) for o in others)
        return Line(summary_label(of), cells, summary=True)

    heading = f"Difference from {comparison.labels[comparison.baseline]}"
    columns = tuple(comparison.labels[o] for o in others)
    return Block(heading, columns, _sections(comparison, line, summary), tuple(contrast_notes(comparison)))


def items_block(comparison: Comparison) -> Block:
    """Returns rates, and differences from the baseline, with intervals over the items of a pool."""
    rates = [
        Line(f"{row.info.label}: {row.count} {row.kind}", tuple(map(_item_text, row.rates)), scenario=row.info.id)
        for row in comparison.items
    ]
    sections: list[tuple[str, tuple[Line, ...]]] = [("", tuple(rates))]
    if comparison.baseline is not None:
        lines = [
            Line(row.info.label, tuple(_item_text(one, signed=True) for one in row.differences), scenario=row.info.id)
            for row in comparison.items
        ]
        sections.append((f"Difference from {comparison.labels[comparison.baseline]}", tuple(lines)))
    return Block("Over the items of a pool", tuple(comparison.labels), tuple(sections), tuple(item_notes(comparison)))


def _item_text(estimate: ItemEstimate | None, signed: bool = False) -> Text:
    if estimate is None:
        return Text("-")
    form = "{:+.3f}" if signed else "{:.3f}"
    value, low, high = (form.format(number + 0.0) for number in (estimate.value, estimate.low, estimate.high))
    interval = "" if isnan(estimate.low) else f"[{low}, {high}]"
    worth = "" if estimate.effective is None else f" n {estimate.effective:.0f}"
    return Text(value, interval + worth)


def behaviour_blocks(comparison: Comparison) -> list[Block]:
    """Returns what the logs record beyond success: stages and workspace coverage."""
    rows = coverage_rows(comparison)
    return stage_blocks(comparison) + ([] if rows is None else [coverage_block(rows)])


def stage_blocks(comparison: Comparison) -> list[Block]:
    """Returns, per policy, the share of each stage label in each scenario, with the same columns for all policies.

    docs/stages.md defines the labels.
    """
    found = {stage for row in comparison.rows for stages in row.stages for stage in stages}
    names = [*(stage for stage in STAGES if stage in found), *sorted(found - set(STAGES))]
    blocks = []
    for policy, label in enumerate(comparison.labels):
        if any(row.stages[policy] for row in comparison.rows):
            lines = tuple(
                Line(row.info.label, tuple(_share_texts(row.stages[policy], names)), scenario=row.info.id)
                for row in comparison.rows
            )
            columns = tuple(printable(name.replace("_", " ")) for name in names)
            blocks.append(Block(f"What happened: {label}", (*columns, "episodes"), (("", lines),)))
    return blocks


def _share_texts(stages: dict[str, int], names: list[str]) -> Iterable[Text]:
    total = sum(stages.values())
    for name in names:
        share = stages.get(name, 0)
        yield Text(f"{100 * share / total:.1f}%" if share else ("0" if total else ""))
    yield Text(str(total))


def _sections(
    comparison: Comparison, line: Callable[..., Line], summary: Callable[[Summary], Line]
) -> tuple[tuple[str, tuple[Line, ...]], ...]:
    sections = []
    for dimension in comparison.dimensions():
        lines = [line(row) for row in comparison.rows if row.info.dimension == dimension]
        lines += [summary(of) for of in comparison.summaries if of.dimension == dimension]
        sections.append((title_of(dimension), tuple(lines)))
    overall = tuple(summary(of) for of in comparison.summaries if of.dimension == "ood")
    return (*sections, ("All shifted scenarios", overall)) if overall else tuple(sections)


def best_places(values: list[float | None], fair: list[bool]) -> list[int]:
    """Returns the places of the highest value among the `fair` ones, none if these are all equal."""
    known = [value for value, counts in zip(values, fair) if value is not None and counts]
    if len(set(known)) < 2:
        return []
    return [place for place, value in enumerate(values) if fair[place] and value == max(known)]


def _rate_text(cell: Cell, best: bool) -> Text:
    if cell.rate is None:
        lost = ", ".join(
            f"{count} {what}" for count, what in ((cell.errors, "errored"), (cell.missing, "missing")) if count
        )
        return Text("-", lost, partial=cell.partial)
    errors = f", {cell.errors} errored" if cell.errors else ""
    missing = f", {cell.missing} missing" if cell.missing else ""
    note = f"[{cell.low:.3f}, {cell.high:.3f}] {cell.k}/{cell.n}{errors}{missing}"
    return Text(f"{cell.rate:.3f}", note, best, cell.partial)


def estimate_text(kind: str, estimate: Estimate, best: bool = False, signed: bool = False) -> Text:
    """Returns a mean or a drop with its interval and test; `signed` for a difference."""
    if estimate.value is None:
        return Text("-", partial=estimate.partial)
    scale, digits, unit = {MEAN: (1, 3, ""), ABSOLUTE: (100, 1, " pp"), RELATIVE: (100, 1, "%")}[kind]
    if signed and kind == RELATIVE:
        unit = " pp"  # percentage points, the unit of a difference of percentages
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    numbers = (estimate.value, estimate.low, estimate.high)
    value, low, high = (form.format(round(scale * number, 9) + 0.0) for number in numbers)  # sums differ by their order
    interval = "" if isnan(estimate.low) else f"[{low}, {high}]"
    p = estimate.p if estimate.p_holm is None else estimate.p_holm
    test = "" if p is None else f"p {mean_p_text(p, estimate.p)}"
    note = " ".join(filter(None, (interval, test)))
    return Text(f"{value}{unit}{estimate.stars}", note, best, estimate.partial)


def _contrast_text(contrast: Contrast | None) -> Text:
    if contrast is None:
        return Text("-")
    counts = f"{contrast.wins}:{contrast.losses}" if contrast.paired else "unpaired"
    note = f"[{contrast.low:+.3f}, {contrast.high:+.3f}] {counts} p {p_text(contrast.p_holm)}"
    return Text(f"{contrast.difference:+.3f}{contrast.stars}", note, partial=contrast.partial)


def mean_p_text(p: float, raw: float | None) -> str:
    """Like `p_text`, for a p whose permutation test gave `raw`: at the test's floor it shows an upper bound."""
    bound = raw is not None and raw <= floor_of(FLIPS) * (1 + 1e-9)
    return f"<= {p:.0e}".replace("e-0", "e-") if bound else p_text(p)


def p_text(p: float) -> str:
    """Returns a p value with two digits."""
    return f"{p:.1e}" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def summary_label(summary: Summary) -> str:
    """Returns the label of a summary's line."""
    if summary.kind == MEAN:
        return f"mean of {summary.rows} rows" if summary.rows > 1 else "mean of 1 row"
    return {ABSOLUTE: "drop from IND", RELATIVE: "relative drop"}[summary.kind]
