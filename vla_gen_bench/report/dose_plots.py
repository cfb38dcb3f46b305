"""Dose-response small multiples: one panel per disturbance, with the same axes; readable in print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vla_gen_bench.report.compare import Comparison
from vla_gen_bench.report.dose import DoseResponse, dose_responses, span_of
from vla_gen_bench.report.drawing import COLOURS, INK, legend_above, line_style
from vla_gen_bench.report.scenarios import title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 5
USUAL_LEVELS = 5
PANEL = (1.75, 1.5)  # inches


def dose_figure(comparison: Comparison) -> Figure | None:
    """Returns success against level, one panel per disturbance, with interval bands; None if no row has levels."""
    from matplotlib.figure import Figure

    doses = dose_responses(comparison)
    if not doses:
        return None
    across = min(ACROSS, len(doses))
    down = -(-len(doses) // across)
    width, height = 0.75 + PANEL[0] * max(across, 3), 0.9 + 0.21 * -(-len(comparison.runs) // 4) + PANEL[1] * down
    figure = Figure(figsize=(width, height), layout="none")
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for place, (axes, dose) in enumerate(zip(panels, doses, strict=False)):
        _panel(axes, comparison, dose)
        if place % across == 0:
            axes.set_ylabel("success rate")
        if place + across >= len(doses):
            axes.set_xlabel("level")
            axes.tick_params(labelbottom=True)
    for axes in panels[len(doses) :]:
        axes.set_axis_off()
    interval = f"{100 * comparison.level:g}% Wilson intervals; dotted: half of IND"
    top = legend_above(figure, panels[0], f"Success by level of disturbance, {interval}", per_row=4)
    sides = {"left": 0.6 / width, "right": 1 - 0.1 / width, "bottom": 0.5 / height, "top": 1 - (top + 0.25) / height}
    figure.subplots_adjust(**sides, hspace=0.55, wspace=0.12)
    return figure


def _panel(axes: Axes, comparison: Comparison, dose: DoseResponse) -> None:
    x = np.array(dose.levels, float)
    for place, (label, answer) in enumerate(zip(comparison.labels, dose.answers, strict=True)):
        rates = np.array([np.nan if cell.rate is None else cell.rate for cell in answer.cells])
        low, high = (np.array([getattr(cell, bound) for cell in answer.cells]) for bound in ("low", "high"))
        known = np.isfinite(rates)
        axes.fill_between(
            x[known], low[known], high[known], color=COLOURS[place % len(COLOURS)], alpha=0.15, linewidth=0
        )
        axes.plot(x, rates, label=label, linewidth=1.2, markersize=3, **line_style(place))
        if np.isfinite(rates[0]):
            axes.axhline(rates[0] / 2, color=COLOURS[place % len(COLOURS)], linewidth=0.6, linestyle=":")
    axes.set_title(f"{dose.title}", fontsize=8, pad=10)
    shown = f"{title_of(dose.dimension)}: {span_of(dose.strengths)}"
    axes.text(0, 1.015, shown, transform=axes.transAxes, fontsize=5.5, color=INK)
    top = max(USUAL_LEVELS, *dose.levels)
    axes.set(xlim=(-0.04 * top, 1.04 * top), ylim=(0, 1.04), xticks=range(0, top + 1, 1 + top // 10))
    axes.tick_params(labelsize=7, length=2)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
