"""The figures of a report: rates, drops, wins and losses, severity curves, each with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vla_gen_bench.report.compare import Comparison, Row
from vla_gen_bench.report.dose_plots import dose_figure
from vla_gen_bench.report.drawing import (
    COLOURS,
    INK,
    bar_style,
    base_marks,
    beside,
    legend_above,
    line_style,
    save,
    style,
    wrapped,
)
from vla_gen_bench.report.notes import PARTIAL_MARK
from vla_gen_bench.report.outcomes import METRICS
from vla_gen_bench.report.scenarios import title_of
from vla_gen_bench.report.severity import Sweep, sweeps
from vla_gen_bench.report.summaries import ABSOLUTE, RELATIVE, Estimate, Summary
from vla_gen_bench.report.workspace import coverage_rows, workspace_figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_UNITS = 7  # scenarios side by side in the figure of rates
ERROR_BAR = {"fmt": "none", "ecolor": INK, "elinewidth": 0.9, "capsize": 1.5}
PANELS_PER_ROW = 4


def figures(comparison: Comparison) -> dict[str, Figure]:
    """Returns every figure that the data allow, by name: rates; drops; wins; severity-*; workspace."""
    with style():
        levels = dose_figure(comparison)
        if levels is not None:  # it shows the rows with levels, so the other figures can omit them
            comparison = replace(comparison, rows=tuple(row for row in comparison.rows if not row.info.sweep))
        found = {"rates": rates_figure(comparison)}
        if any(summary.kind == ABSOLUTE for summary in comparison.summaries):
            found["drops"] = drops_figure(comparison)
        if any(contrast and contrast.paired for row in comparison.rows for contrast in row.contrasts):
            found["wins"] = wins_figure(comparison)
        if levels is not None:
            found["dose-response"] = levels
        for sweep in sweeps([row.info for row in comparison.rows]):
            found[f"severity-{sweep.name}"] = severity_figure(comparison, sweep)
    rows = coverage_rows(comparison)
    if rows is not None:
        found["workspace"] = workspace_figure(rows)
    return found


def write_plots(drawn: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Writes figures, by name, as SVG and PNG and returns the paths."""
    return [path for name, figure in drawn.items() for path in save(figure, folder, name)]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="none")


# ---- rates ----------------------------------------------------------------------------------------------------


def rates_figure(comparison: Comparison) -> Figure:
    """Draws bars with intervals: a group per scenario, a bar per policy, a panel per dimension."""
    policies = len(comparison.runs)
    packed = _packed([[row for row in comparison.rows if row.info.dimension == d] for d in comparison.dimensions()])
    unit = max(1.45, 0.3 + 0.13 * policies)
    units = max(sum(map(len, line)) for line in packed)
    figure = _figure(0.9 + unit * max(units, 4), 0)
    figure.set_figheight(0.7 + 0.21 * -(-policies // 5) + 2.35 * len(packed))
    grid = figure.add_gridspec(len(packed), units)
    panels = []
    for level, line in enumerate(packed):
        start = 0
        for rows in line:
            axes = figure.add_subplot(grid[level, start : start + len(rows)])
            _rate_bars(axes, comparison, rows)
            axes.set_ylabel("success rate") if start == 0 else axes.set_yticklabels([])
            panels.append(axes)
            start += len(rows)
    interval = f"{100 * comparison.level:g}% Wilson intervals"
    top = legend_above(figure, panels[0], f"{METRICS[comparison.metric].capitalize()}, {interval}")
    _margins(figure, top, left=0.65, right=0.1, bottom=0.55, hspace=0.5, wspace=0.25)
    return figure


def _packed(groups: list[list[Row]]) -> list[list[list[Row]]]:
    """Splits the groups into lines of up to `ROW_UNITS` scenarios; a longer group is broken up."""
    parts = [group[start : start + ROW_UNITS] for group in groups for start in range(0, len(group), ROW_UNITS)]
    lines: list[list[list[Row]]] = []
    for part in parts:
        if not lines or sum(map(len, lines[-1])) + len(part) > ROW_UNITS:
            lines.append([])
        lines[-1].append(part)
    return lines


def _rate_bars(axes: Axes, comparison: Comparison, rows: Sequence[Row]) -> None:
    offsets, width = beside(len(comparison.runs))
    for place, (label, offset) in enumerate(zip(comparison.labels, offsets)):
        cells = [row.cells[place] for row in rows]
        rates = np.array([np.nan if cell.rate is None else cell.rate for cell in cells])
        bounds = np.array([[cell.low, cell.high] for cell in cells]).T
        x = np.arange(len(rows)) + offset
        axes.bar(x, np.nan_to_num(rates), width, label=label, **bar_style(place))
        base_marks(axes, x, rates, width, place)
        axes.errorbar(x, rates, np.abs(bounds - rates), **ERROR_BAR)
    marks = [PARTIAL_MARK if any(cell.partial for cell in row.cells) else "" for row in rows]
    axes.set_xticks(range(len(rows)), [wrapped(row.info.label) + mark for row, mark in zip(rows, marks)])
    axes.set(xlim=(-0.55, len(rows) - 0.45), ylim=(0, 1.02), title=title_of(rows[0].info.dimension))
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _margins(figure: Figure, top: float, left: float, right: float, bottom: float, **spacing: float) -> None:
    """Sets the margins in inches."""
    width, height = figure.get_size_inches()
    sides = {"left": left / width, "right": 1 - right / width, "bottom": bottom / height}
    figure.subplots_adjust(**sides, top=1 - (top + 0.25) / height, **spacing)


# ---- drops ----------------------------------------------------------------------------------------------------


def drops_figure(comparison: Comparison) -> Figure:
    """Draws the loss from IND per dimension: in percentage points, and as a fraction of IND."""
    policies = len(comparison.runs)
    dimensions = list(dict.fromkeys(summary.dimension for summary in comparison.summaries))
    figure = _figure(max(9.0, 1.6 + 2 * len(dimensions) * (0.3 + 0.11 * policies)), 3.4 + 0.21 * -(-policies // 5))
    for axes, kind in zip(figure.subplots(1, 2), (ABSOLUTE, RELATIVE)):
        found = [summary for summary in comparison.summaries if summary.kind == kind]
        _drop_bars(axes, comparison.labels, found)
        axes.set_title({ABSOLUTE: "percentage points", RELATIVE: "percent of IND"}[kind])
    interval = f"{100 * comparison.level:g}% bootstrap intervals"
    top = legend_above(figure, figure.axes[0], f"Drop from IND (lower is better), {interval}")
    _margins(figure, top, left=0.55, right=0.1, bottom=0.55, wspace=0.15)
    return figure


def _drop_bars(axes: Axes, labels: Sequence[str], found: Sequence[Summary]) -> None:
    offsets, width = beside(len(labels))
    for place, (label, offset) in enumerate(zip(labels, offsets)):
        values, errors = _with_errors([summary.estimates[place] for summary in found])
        x = np.arange(len(found)) + offset
        axes.bar(x, np.nan_to_num(values), width, label=label, **bar_style(place))
        base_marks(axes, x, values, width, place)
        axes.errorbar(x, values, errors, **ERROR_BAR)
    names = {summary.dimension: title_of(summary.dimension) for summary in found} | {"ood": "All shifted"}
    axes.set_xticks(range(len(found)), [wrapped(names[summary.dimension]) for summary in found])
    axes.tick_params(axis="x", length=0)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(y=0.08)


def _with_errors(estimates: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    """Returns percent [N] and the lengths of error bars [2, N]; NaN if an estimate is undefined."""
    values = 100 * np.array([np.nan if one.value is None else one.value for one in estimates])
    bounds = 100 * np.array([[one.low, one.high] for one in estimates]).T
    return values, np.abs(bounds - values)


# ---- wins and losses ------------------------------------------------------------------------------------------


def wins_figure(comparison: Comparison) -> Figure:
    """Draws the episodes that only one of two policies solved, per scenario; one panel per policy."""
    others = [p for p in range(len(comparison.runs)) if any(row.contrasts[p] for row in comparison.rows)]
    across = min(len(others), PANELS_PER_ROW)
    down = -(-len(others) // across)
    tall = 0.2 * len(comparison.rows)  # panel height, inches
    figure = _figure(1.9 + max(2.4 * across, 4), 0.9 + down * (0.4 + tall))
    panels = figure.subplots(down, across, squeeze=False, sharex=True).ravel()
    widest = max(1, *(_counts(row, p, side) for row in comparison.rows for p in others for side in ("wins", "losses")))
    for place, axes in enumerate(panels):
        if place < len(others):
            _win_bars(axes, comparison, others[place], widest, named=place % across == 0)
        else:
            axes.set_axis_off()
    panels[0].set_xlim(-1.45 * widest, 1.45 * widest)
    title = "Solved by one alone: the baseline left, the other right (stars: Holm)"
    _margins(
        figure,
        legend_above(figure, panels[0], title, 4, _policy_legend(comparison, others)),
        left=1.75,
        right=0.1,
        bottom=0.1,
        hspace=0.4 / tall,
        wspace=0.06,
    )
    return figure


def _policy_legend(comparison: Comparison, others: Sequence[int]) -> tuple[list[Artist], list[str]]:
    """Gives each policy the colour it has in every figure, the baseline first."""
    from matplotlib.patches import Patch

    shown = [comparison.baseline, *others]
    labels = [comparison.labels[place] for place in shown]
    looks = [{**bar_style(place), "facecolor": COLOURS[place % len(COLOURS)]} for place in shown]
    for look in looks:
        del look["color"]
    return [Patch(**look) for look in looks], [f"{labels[0]} (baseline)", *labels[1:]]


def _counts(row: Row, policy: int, side: str) -> int:
    contrast = row.contrasts[policy]
    return getattr(contrast, side) if contrast and contrast.paired else 0


def _win_bars(axes: Axes, comparison: Comparison, policy: int, widest: int, named: bool) -> None:
    y = np.arange(len(comparison.rows))
    for side, sign, whose in (("losses", -1, comparison.baseline), ("wins", 1, policy)):
        counts = [_counts(row, policy, side) for row in comparison.rows]
        axes.barh(y, [sign * count for count in counts], 0.7, **bar_style(whose))
        for place, (row, count) in enumerate(zip(comparison.rows, counts)):
            stars = row.contrasts[policy].stars if row.contrasts[policy] and sign > 0 else ""
            _beside_bar(axes, sign, count, place, f"{count} {stars}".strip(), 0.02 * widest)
    labels = [row.info.label if row.contrasts[policy] is None or row.contrasts[policy].paired else
              f"{row.info.label} (unpaired)" for row in comparison.rows]  # fmt: skip
    if named:
        axes.set_yticks(y, labels)
    else:
        axes.set_yticks([])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(y) - 0.5, -0.5)
    axes.set_title(wrapped(comparison.labels[policy], 34), loc="center", fontsize=9)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xticks([])  # the counts are written at the bars
    axes.spines[["left", "bottom"]].set_visible(False)


def _beside_bar(axes: Axes, sign: int, count: int, place: int, text: str, gap: float) -> None:
    """Writes a text just beyond the end of a bar; a zero-length bar still has its text on its own side."""
    side = "left" if sign > 0 else "right"
    axes.text(sign * (count + gap), place, text, ha=side, va="center", size=7)


# ---- severity -------------------------------------------------------------------------------------------------


def severity_figure(comparison: Comparison, sweep: Sweep) -> Figure:
    """Draws success against the strength of one shift, with IND on the left."""
    policies = len(comparison.runs)
    figure = _figure(6.2, 3.2 + 0.21 * -(-policies // 3))
    axes = figure.subplots()
    rows = {row.info.id: row for row in comparison.rows}
    ind = [row for row in comparison.rows if row.info.dimension == "ind"][:1]
    gap = (sweep.values[-1] - sweep.values[0]) / len(sweep.values)
    x = np.array([*[sweep.values[0] - gap for _ in ind], *sweep.values])
    offsets = 0.2 * gap * np.array(beside(policies)[0])
    for place, label in enumerate(comparison.labels):
        cells = [row.cells[place] for row in (*ind, *(rows[id] for id in sweep.ids))]
        rates = np.array([np.nan if cell.rate is None else cell.rate for cell in cells])
        bounds = np.array([[cell.low, cell.high] for cell in cells]).T
        errors = np.abs(bounds - rates)
        axes.errorbar(x + offsets[place], rates, errors, label=label, capsize=2, linewidth=1.3, **line_style(place))
    axes.set_xticks(x, [*["IND" for _ in ind], *(f"{value:g}" for value in sweep.values)])
    axes.set(ylim=(-0.03, 1.03), xlabel=sweep.title, ylabel="success rate")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    interval = f"{100 * comparison.level:g}% Wilson intervals"
    _margins(figure, legend_above(figure, axes, f"Success against {sweep.title}, {interval}", per_row=3) - 0.15,
             left=0.6, right=0.15, bottom=0.5)  # fmt: skip
    return figure
