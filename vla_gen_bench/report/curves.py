"""Training curves: a metric against samples and wall time; runs that differ only in the seed are averaged."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_gen_bench.data import read_text
from vla_gen_bench.errors import UserError, one_line, shown, suggest
from vla_gen_bench.report.drawing import legend_above, line_style, style
from vla_gen_bench.strict_yaml import read_yaml

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE_FILE, RECIPE_FILE = "curve.csv", "recipe.yaml"  # written by `vla_gen_bench.train.run`
WALL = "wall_s"
AMOUNTS = {"env_steps": "environment steps", "samples": "samples", "step": "optimiser steps"}  # all runs have the first
GRID = 200


@dataclass(frozen=True)
class Training:
    """A training folder.

    Attributes:
        recipe: Resolved; runs whose recipes differ only in the seed count as seeds of one recipe.
        folder: Its path.
        curve: The logged numbers; cells may be empty (NaN).
    """

    recipe: dict[str, Any]
    folder: Path
    curve: pandas.DataFrame

    @property
    def name(self) -> str:
        return str(self.recipe["name"])

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe without seed and note, flattened: dotted key -> value."""
        return _flat({key: value for key, value in self.recipe.items() if key not in ("seed", "note")})


def load_trainings(folders: Sequence[str]) -> list[Training]:
    """Reads training folders; raises `UserError` if `curve.csv` or `recipe.yaml` is missing or malformed."""
    return [_training(Path(folder)) for folder in folders]


def _training(folder: Path) -> Training:
    import pandas

    path = folder / CURVE_FILE
    if not path.exists():
        raise UserError(f"{folder}: no training run there ({CURVE_FILE} not found)")
    try:
        curve = pandas.read_csv(io.StringIO(read_text(path)))
    except ValueError as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{path}: not a table: {one_line(error)}") from None
    wrong = [name for name in curve.columns if not pandas.api.types.is_numeric_dtype(curve[name])]
    if wrong:
        raise UserError(f"{path}: column {shown(wrong[0])} holds something other than numbers")
    if WALL not in curve:
        raise UserError(f"{path}: no column '{WALL}'{suggest(WALL, curve.columns)}")
    recipe = read_yaml(folder / RECIPE_FILE)
    if not isinstance(recipe, dict) or not isinstance(recipe.get("name"), str):
        raise UserError(f"{folder / RECIPE_FILE}: no name given; runs are labelled with it")
    return Training(recipe, folder, curve)


def _flat(mapping: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        flat |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return flat


def grouped(runs: Sequence[Training]) -> dict[str, list[Training]]:
    """Returns label -> the seeds of one recipe, in the order given.

    Different recipes of one name get labels that show what they differ in.

    Raises:
        UserError: Two runs of one recipe have the same seed, so their spread means nothing.
    """
    groups: dict[str, list[Training]] = {}
    for run in runs:
        alike = groups.setdefault(repr(sorted(run.settings.items())), [])
        twin = next((other for other in alike if other.recipe.get("seed") == run.recipe.get("seed")), None)
        if twin is not None:
            raise UserError(
                f"{twin.folder} and {run.folder}: the same recipe with the same seed; leave one out, or train with "
                "another --set seed=N"
            )
        alike.append(run)
    firsts = [seeds[0] for seeds in groups.values()]
    return {
        _label(seeds[0], [first for first in firsts if first.name == seeds[0].name]): seeds for seeds in groups.values()
    }


def _label(run: Training, namesakes: Sequence[Training]) -> str:
    """Returns the name of `run`, with what distinguishes it from others of that name."""
    own, all_settings = run.settings, [other.settings for other in namesakes]
    keys = [key for key in sorted(set().union(*all_settings)) if len({str(s.get(key)) for s in all_settings}) > 1]
    return f"{run.name} ({', '.join(f'{key}={own.get(key)}' for key in keys)})" if keys else run.name


def points(run: Training, x: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns x and metric [N] of the rows that have both, x ascending.

    Raises:
        UserError: The run has no such column, or the column is empty.
    """
    for column in (x, metric):
        if column not in run.curve:
            raise UserError(f"{run.folder / CURVE_FILE}: no column '{column}'{suggest(column, run.curve.columns)}")
    rows = run.curve[[x, metric]].dropna().drop_duplicates(x, keep="last").sort_values(x)
    if rows.empty:
        raise UserError(f"{run.folder / CURVE_FILE}: column '{metric}' is empty")
    return rows[x].to_numpy(dtype=float), rows[metric].to_numpy(dtype=float)


def mean_curve(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], level: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Averages the curves of several seeds where all have values, by linear interpolation.

    Args:
        curves: (x, y) per seed, x ascending.
        level: Confidence.

    Returns:
        x [G], mean [G], and the half-width of Student's t interval over seeds [G]; NaN for a single seed. Empty if the
        curves have no stretch in common.
    """
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if len(curves) == 1:
        x, y = curves[0]
        return x, y, np.full(len(x), np.nan)
    if start > end:
        return np.empty(0), np.empty(0), np.empty(0)
    from scipy.stats import t

    grid = np.linspace(start, end, GRID)
    values = np.array([np.interp(grid, x, y) for x, y in curves])
    error = values.std(axis=0, ddof=1) / np.sqrt(len(curves))
    return grid, values.mean(axis=0), float(t.ppf((1 + level) / 2, len(curves) - 1)) * error


def curves_figure(
    trainings: Sequence[Training] | Mapping[str, Sequence[Training]], metric: str, level: float = 0.95
) -> Figure:
    """Draws the metric against the amount of training and against wall time.

    Thick lines: the mean over the seeds of a recipe, with a shaded interval. Thin lines: single seeds. Against wall
    time there is no mean of seeds whose times do not overlap, as on a machine that was busy for some of them.

    Args:
        trainings: Runs, grouped by recipe here; or the groups: label -> the seeds of one line.
        metric: A column of the curves.
        level: Confidence of the interval.

    Raises:
        UserError: Runs share no measure of the amount of training, or seeds of a recipe no stretch of it.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    groups = trainings if isinstance(trainings, Mapping) else grouped(trainings)
    runs = [run for seeds in groups.values() for run in seeds]
    amount = next((name for name in AMOUNTS if all(name in run.curve for run in runs)), None)
    if amount is None:
        raise UserError(f"the runs share none of the columns {', '.join(AMOUNTS)}; plot them apart")
    with style():
        figure = Figure(figsize=(10, 3.6 + 0.21 * -(-len(groups) // 4)), layout="none")
        panels = figure.subplots(1, 2, sharey=True)
        scale, unit = _time_unit(max(run.curve[WALL].max() for run in runs))
        for place, (name, seeds) in enumerate(groups.items()):
            label = f"{name} ({len(seeds)} seeds)" if len(seeds) > 1 else name
            for axes, x, factor in ((panels[0], amount, 1), (panels[1], WALL, scale)):
                found = [points(run, x, metric) for run in seeds]
                averaged = _draw_group(axes, [(x * factor, y) for x, y in found], place, label, level)
                if x == amount and not averaged:
                    raise UserError(f"the seeds of {name} have no stretch in common; give runs of similar length")
        panels[0].xaxis.set_major_formatter(EngFormatter(sep=""))
        panels[0].set(xlabel=AMOUNTS[amount], ylabel=metric.replace("_", " "))
        if all(run.curve[metric].dropna().between(0, 1).all() for run in runs):
            panels[0].set_ylim(-0.02, 1.02)  # the metric is a rate
        panels[1].set_xlabel(f"wall time, {unit}")
        several = any(len(seeds) > 1 for seeds in groups.values())
        interval = f", mean over seeds with {100 * level:g}% t intervals" if several else ""
        top = legend_above(figure, panels[0], f"Training: {metric.replace('_', ' ')}{interval}", per_row=4)
        width, height = figure.get_size_inches()
        figure.subplots_adjust(0.65 / width, 0.55 / height, 1 - 0.25 / width, 1 - top / height, wspace=0.08)
    return figure


def _draw_group(
    axes: Axes, curves: Sequence[tuple[np.ndarray, np.ndarray]], place: int, label: str, level: float
) -> bool:
    """Returns whether the curves have a mean; see `mean_curve`."""
    look = line_style(place)
    x, mean, half = mean_curve(curves, level)
    axes.plot(x, mean, label=label, markevery=max(1, len(x) // 8), markersize=4, linewidth=1.6, **look)
    if len(curves) > 1:
        axes.fill_between(x, mean - half, mean + half, color=look["color"], alpha=0.2, linewidth=0)
        for seed_x, seed_y in curves:
            axes.plot(seed_x, seed_y, color=look["color"], linewidth=0.5, alpha=0.6)
    axes.grid(color="#dddddd", linewidth=0.6)
    return len(x) > 0


def _time_unit(seconds: float) -> tuple[float, str]:
    return (1 / 3600, "hours") if seconds > 2 * 3600 else (1 / 60, "minutes") if seconds > 120 else (1, "seconds")
