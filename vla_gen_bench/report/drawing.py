"""Figure style and saving: colours for every common colour vision, hatches and markers for print, SVG and PNG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from vla_gen_bench.errors import UserError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, distinguishable with every common colour blindness; light colours last.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "---", "ooo", "+++")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
INK = "#222222"
ENDINGS = (".svg", ".png")
SETTINGS = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titley": 1.0,  # no axis has ticks above it, and looking for some takes a fifth of the time to draw
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",  # keep text as text: smaller, searchable files
    "svg.hashsalt": "vgb",  # the same report gives the same file
    "font.family": "sans-serif",
    "text.parse_math": False,  # a $ in a label is a dollar sign
}


@contextmanager
def style() -> Iterator[None]:
    """Context in which figures are drawn and saved in this project's style."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        yield


def bar_style(place: int) -> dict:
    """Returns colour and hatch of the policy at `place`; pairs repeat after 64 policies."""
    hatch = HATCHES[(place + place // len(COLOURS)) % len(HATCHES)]
    return {"color": COLOURS[place % len(COLOURS)], "hatch": hatch, "edgecolor": INK, "linewidth": 0.5}


def line_style(place: int) -> dict:
    """Returns colour, marker and dashes of the policy at `place`."""
    marker = MARKERS[(place + place // len(COLOURS)) % len(MARKERS)]
    return {"color": COLOURS[place % len(COLOURS)], "marker": marker, "linestyle": LINES[place % len(LINES)]}


def wrapped(label: str, width: int = 12) -> str:
    """Wraps the label to lines of about `width` characters."""
    return "\n".join(textwrap.wrap(label, width, break_long_words=False)) or label


def base_marks(axes: Axes, x: np.ndarray, values: np.ndarray, width: float, place: int) -> None:
    """Underlines bars in their policy's colour, so zero-height bars are visible; skips those without episodes."""
    shown = x[np.isfinite(values)]
    look = {"colors": COLOURS[place % len(COLOURS)], "linewidth": 3, "clip_on": False, "zorder": 3}
    axes.hlines(np.zeros(len(shown)), shown - width / 2, shown + width / 2, **look)


def legend_above(
    figure: Figure,
    axes: Axes,
    title: str,
    per_row: int = 5,
    entries: tuple[Sequence[Artist], Sequence[str]] | None = None,
) -> float:
    """Puts a title over the figure, with a legend below it; returns the height of both in inches.

    Args:
        figure, title: The figure and its title.
        axes: The axes whose legend is used, unless `entries` are given.
        per_row: Labels per line.
        entries: Handles and labels.
    """
    handles, labels = entries or axes.get_legend_handles_labels()
    labels = [textwrap.shorten(label, 40, placeholder="…") for label in labels]
    columns = min(len(labels), per_row)
    height = figure.get_figheight()
    figure.suptitle(title, x=0.01, y=1 - 0.08 / height, ha="left", va="top", fontsize=11)
    figure.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(0.005, 1 - 0.32 / height), ncols=columns, frameon=False
    )
    return 0.5 + 0.21 * -(-len(labels) // columns)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes NAME.svg and NAME.png and returns their paths; raises `UserError` if that fails."""
    return [save_as(figure, folder / f"{name}{ending}") for ending in ENDINGS]


def save_as(figure: Figure, path: Path) -> Path:
    """Writes one file, .svg or .png by its name, and returns its path; raises `UserError` if that fails."""
    if path.suffix not in ENDINGS:
        raise UserError(f"{path}: images end in {' or '.join(ENDINGS)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".svg":
            path.write_text(svg_of(figure), encoding="utf-8")
        else:
            with style():
                figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); write somewhere else") from None
    return path


_SVG: WeakKeyDictionary[Figure, str] = WeakKeyDictionary()


def svg_of(figure: Figure) -> str:
    """Returns a finished figure as an SVG document, rendered once and shared by the file and the page."""
    if figure not in _SVG:
        file = io.StringIO()
        with style():
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        _SVG[figure] = file.getvalue()
    return _SVG[figure]


def beside(count: int) -> tuple[list[float], float]:
    """Returns the offsets of `count` adjacent bars around 0, and the width of one; few bars stay narrow."""
    width = min(0.8, 0.3 + 0.12 * count) / count
    return [(place - (count - 1) / 2) * width for place in range(count)], width
