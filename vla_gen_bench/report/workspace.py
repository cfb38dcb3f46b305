"""Where policies took the end effector: the numbers of the paper's Fig. 8 as a table, and as a map seen from above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_gen_bench.log.coverage import CELL_M, ORIGIN_M, SHAPE, covered, visits
from vla_gen_bench.report.blocks import Block, Line, Text
from vla_gen_bench.report.compare import Comparison, once_per_comparison
from vla_gen_bench.report.drawing import style, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLUMNS = {
    "cells_per_episode": ("cells per episode", "{:.1f}"),
    "cells": ("cells in all", "{:.0f}"),
    "outside_share": ("states outside the grid", "{:.1%}"),
    "orientation_spread_deg": ("orientation spread, degrees", "{:.1f}"),
    "episodes": ("episodes", "{:.0f}"),
}
PANELS_PER_ROW = 5
SIDE, GAP, LINE = 1.85, 0.2, 0.16  # inches: a map, the space beside it, a line of its title
LEFT, RIGHT, TOP, BOTTOM = 0.65, 1.15, 0.5, 0.5  # inches around all maps, their titles apart
LEAST_WIDTH = 5.0  # inches; the title over one map


@once_per_comparison
def coverage_rows(comparison: Comparison) -> dict[str, list[dict[str, Any]]] | None:
    """Returns label -> the `coverage` fields of its episodes that have one, None if there are none."""
    found = {run.label: [row.coverage for row in run.episodes.values() if row.coverage] for run in comparison.runs}
    return {label: rows for label, rows in found.items() if rows} or None


def coverage_block(rows: Mapping[str, Sequence[dict[str, Any]]]) -> Block:
    """Returns one row per policy: 2 cm cells visited, states outside the grid, spread of orientations."""
    numbers = {label: covered(group) for label, group in rows.items()}
    lines = [
        Line(label, tuple(Text(form.format(found[name])) for name, (_, form) in COLUMNS.items()))
        for label, found in numbers.items()
    ]
    return Block("Workspace covered", tuple(title for title, _ in COLUMNS.values()), (("", tuple(lines)),))


def workspace_figure(rows: Mapping[str, Sequence[dict[str, Any]]]) -> Figure:
    """Draws top-view maps: the share of a policy's episodes that entered a cell, at the height where most did."""
    from matplotlib.colors import LogNorm

    shares = {label: visits(group).max(axis=2) / len(group) for label, group in rows.items()}  # [x, y]
    across = min(len(shares), PANELS_PER_ROW)
    with style():
        figure, panels, height = _panels(across, -(-len(shares) // across), [wrapped(label, 24) for label in shares])
        norm = LogNorm(0.5 / max(map(len, rows.values())), 1)
        images = [_draw_map(axes, share, label, norm) for axes, (label, share) in zip(panels, shares.items())]
        for place, axes in enumerate(panels):
            _label(axes, place % across == 0, place + across >= len(shares), place < len(shares))
        _colour_scale(figure, images[0], LEFT + across * (SIDE + GAP), height)
    return figure


def _panels(across: int, down: int, titles: Sequence[str]) -> tuple[Figure, np.ndarray, float]:
    """Returns a figure laid out by hand (a layout engine takes a third of a report's time), its axes, their height."""
    from matplotlib.figure import Figure

    title = 0.1 + LINE * max(text.count("\n") + 1 for text in titles)
    between = title + 0.15
    inner = across * SIDE + (across - 1) * GAP, down * SIDE + (down - 1) * between
    width, height = max(LEAST_WIDTH, LEFT + inner[0] + RIGHT), TOP + title + inner[1] + BOTTOM
    figure = Figure(figsize=(width, height), layout="none")
    what = "Where the end effector went, seen from above"
    figure.suptitle(what, x=0.01, y=1 - 0.08 / height, ha="left", va="top", fontsize=11)
    sides = {"left": LEFT / width, "right": (LEFT + inner[0]) / width, "bottom": BOTTOM / height}
    spaces = {"wspace": GAP / SIDE, "hspace": between / SIDE, "top": (BOTTOM + inner[1]) / height}
    panels = figure.subplots(down, across, squeeze=False, gridspec_kw={**sides, **spaces})
    return figure, panels.ravel(), inner[1]


def _colour_scale(figure: Figure, image: AxesImage, left: float, height: float) -> None:
    """Draws the scale of all maps beside them, at `left`, along 70% of their `height`, inches."""
    from matplotlib.ticker import FuncFormatter

    width, tall = figure.get_size_inches()
    axes = figure.add_axes((left / width, (BOTTOM + 0.15 * height) / tall, 0.12 / width, 0.7 * height / tall))
    shares_as_numbers = FuncFormatter(lambda share, _: f"{share:.3g}" if share <= 1 else "")
    figure.colorbar(image, cax=axes, label="share of episodes", format=shares_as_numbers).outline.set_visible(False)


def _draw_map(axes: Axes, share: np.ndarray, label: str, norm: LogNorm) -> AxesImage:
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
    axes.set_title(wrapped(label, 24), fontsize=9)
    return image


def _label(axes: Axes, left: bool, bottom: bool, used: bool) -> None:
    """Labels the axes of a map at the left or the bottom of all maps, which have the same axes; hides unused ones."""
    if not used:
        return axes.set_axis_off()
    axes.set_ylabel("y, to its left (m)") if left else axes.set_yticks([])
    axes.set_xlabel("x, forward (m)") if bottom else axes.set_xticks([])
