"""Where policies took the end effector: the numbers of the paper's Fig. 8 as a table, and as a map seen from above."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from vla_gen_bench.log.coverage import CELL_M, ORIGIN_M, SHAPE, visits
from vla_gen_bench.report.blocks import Block, Line, Text
from vla_gen_bench.report.compare import Comparison
from vla_gen_bench.report.drawing import style, wrapped

if TYPE_CHECKING:
    import pandas
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

COLUMNS = {
    "cells_per_episode": ("cells per episode", "{:.1f}"),
    "cells": ("cells in all", "{:.0f}"),
    "outside_share": ("states outside the grid", "{:.1%}"),
    "orientation_spread_deg": ("orientation spread, degrees", "{:.1f}"),
    "episodes": ("episodes", "{:.0f}"),
}
PANELS_PER_ROW = 5


def coverage_rows(comparison: Comparison) -> pandas.DataFrame | None:
    """Returns the columns `policy` and `coverage` of all episodes with coverage, None if there are none."""
    import pandas

    found = [
        {"policy": run.label, "coverage": row.coverage}
        for run in comparison.runs
        for row in run.episodes.values()
        if row.coverage
    ]
    return pandas.DataFrame(found) if found else None


def coverage_block(rows: pandas.DataFrame) -> Block:
    """Returns one row per policy: 2 cm cells visited, states outside the grid, spread of orientations."""
    from vla_gen_bench.report.behaviour import coverage

    table = coverage(rows)
    lines = [
        Line(str(policy), tuple(Text(form.format(numbers[name])) for name, (_, form) in COLUMNS.items()))
        for policy, numbers in table.iterrows()
    ]
    return Block("Workspace covered", tuple(title for title, _ in COLUMNS.values()), (("", tuple(lines)),))


def workspace_figure(rows: pandas.DataFrame) -> Figure:
    """Draws top-view maps: the share of a policy's episodes that entered a cell, at the height where most did."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    groups = {label: list(group) for label, group in rows.groupby("policy", sort=False)["coverage"]}
    shares = {label: visits(group).max(axis=2) / len(group) for label, group in groups.items()}  # [x, y]
    across = min(len(groups), PANELS_PER_ROW)
    down = -(-len(groups) // across)
    with style():
        figure = Figure(figsize=(1.5 + 2.1 * max(across, 2), 0.9 + 2.45 * down), layout="constrained")
        figure.suptitle("Where the end effector went, seen from above", x=0.01, ha="left", fontsize=11)
        panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
        for axes in panels[len(groups) :]:
            axes.set_axis_off()
        draw = partial(_draw_map, norm=LogNorm(0.5 / max(map(len, groups.values())), 1))
        images = [draw(axes, share, label) for axes, (label, share) in zip(panels, shares.items())]
        shares_as_numbers = FuncFormatter(lambda share, _: f"{share:.3g}" if share <= 1 else "")
        look = {"label": "share of episodes", "shrink": 0.7, "aspect": 15, "format": shares_as_numbers}
        bar = figure.colorbar(images[0], ax=list(panels), **look)
        bar.outline.set_visible(False)
    return figure


def _draw_map(axes, share: np.ndarray, label: str, norm: LogNorm):
    """Draws one map. The robot is at (0, 0), facing right. All episodes start in one cell, so shares span decades.

    Args:
        axes: Where to draw.
        share: [x, y]; x is forward, y to the robot's left.
        label: The policy.
        norm: Colour scale shared by all panels.
    """
    x, y = (np.array([0, SHAPE[axis]]) * CELL_M + ORIGIN_M[axis] for axis in (0, 1))
    shown = np.ma.masked_equal(share.T, 0)
    image = axes.imshow(shown, origin="lower", extent=(*x, *y), cmap="viridis_r", norm=norm)
    axes.set(xlabel="x, forward (m)", ylabel="y, to its left (m)")
    axes.set_title(wrapped(label, 24), fontsize=9)
    axes.label_outer()
    return image
