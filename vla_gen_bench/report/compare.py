"""The comparison: the content of a report in any format. docs/report.md defines every number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from vla_gen_bench.episodes.suite import Suite
from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.log.counts import count, count_by_scenario
from vla_gen_bench.report.contrasts import Contrast, contrasts_of
from vla_gen_bench.report.items import ItemRow, item_rows
from vla_gen_bench.report.load import Run
from vla_gen_bench.report.outcomes import Cell, cell_of, outcome_array
from vla_gen_bench.report.scenarios import ScenarioInfo
from vla_gen_bench.report.summaries import Summary, summaries_of

Found = TypeVar("Found")


@dataclass(frozen=True)
class Row:
    """One scenario. Per policy: a cell, a contrast (None at the baseline or without outcomes), counts of stages."""

    info: ScenarioInfo
    cells: tuple[Cell, ...]
    contrasts: tuple[Contrast | None, ...]
    stages: tuple[dict[str, int], ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything a report shows. Policies are in the order of `labels` throughout. Equal only to itself."""

    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    summaries: tuple[Summary, ...]
    baseline: int | None
    metric: str
    level: float
    items: tuple[ItemRow, ...] = ()

    @property
    def labels(self) -> list[str]:
        return [run.label for run in self.runs]

    @property
    def partial(self) -> bool:
        return any(run.defect() for run in self.runs)

    @cached_property
    def outcomes(self) -> np.ndarray:
        """See `outcome_array`; scenarios are in the order of `rows`."""
        return outcome_array(self.runs, [row.info.id for row in self.rows], self.metric)

    def dimensions(self) -> list[str]:
        """Returns the dimensions of the rows, in their order."""
        return list(dict.fromkeys(row.info.dimension for row in self.rows))


def once_per_comparison(function: Callable[[Comparison], Found]) -> Callable[[Comparison], Found]:
    """Decorates a function of a comparison whose result several parts of a report show; they must not change it."""
    found: WeakKeyDictionary[Comparison, Found] = WeakKeyDictionary()

    @wraps(function)
    def remembered(comparison: Comparison) -> Found:
        if comparison not in found:
            found[comparison] = function(comparison)
        return found[comparison]

    return remembered


def compare(
    runs: Sequence[Run],
    infos: Sequence[ScenarioInfo],
    baseline: int | None = None,
    metric: str = "success_at_end",
    level: float = 0.95,
    suite: Suite | None = None,
) -> Comparison:
    """Compares runs of one suite in one world.

    Args:
        runs: Checked by `load.check_comparable`.
        infos: The scenarios, in the order of the table.
        baseline: Position of the run that the others are compared with; None for no contrasts.
        metric: A key of `METRICS`.
        level: Confidence of every interval.
        suite: The runs' suite if known; some items are sampled again from it to map episodes to items.
    """
    outcomes = outcome_array(runs, [info.id for info in infos], metric)
    missing = [run.missing() for run in runs]
    counts = [count_by_scenario(run.episodes.values()) for run in runs]
    counted = [[each.get(info.id, count(())) for each in counts] for info in infos]
    cells = [
        [cell_of(each, missing[p][info.id], metric, level) for p, each in enumerate(counted[s])]
        for s, info in enumerate(infos)
    ]
    contrasts = [contrasts_of(outcomes, policy, baseline, cells, level) for policy in range(len(runs))]
    rows = tuple(
        Row(info, tuple(cells[s]), tuple(column[s] for column in contrasts), tuple(each.stages for each in counted[s]))
        for s, info in enumerate(infos)
    )
    summaries = summaries_of(outcomes, infos, cells, baseline, level)
    items = item_rows(runs, infos, suite, outcomes, baseline, level)
    return Comparison(tuple(runs), rows, summaries, baseline, metric, level, items)


def find_baseline(runs: Sequence[Run], name: str | None) -> int | None:
    """Returns the position of the run named `name` (label, policy or folder); None: the first. A single run has none.

    Raises:
        UserError: No run, or more than one, has this name.
    """
    if name is None:
        return 0 if len(runs) > 1 else None
    place = named_place(name, [(run.label, [run]) for run in runs], "runs")
    return place if len(runs) > 1 else None


def named_place(name: str, groups: Sequence[tuple[str, Sequence[Run]]], what: str) -> int:
    """Returns the position of the group of runs that `name` stands for: its label, or a policy or folder in it.

    Args:
        groups: (label, runs).
        what: What the groups are, for the messages of the errors.

    Raises:
        UserError: No group, or more than one, has this name.
    """
    known = [
        {label, *(part for run in runs for part in (run.policy, str(run.folder), str(run.folder.resolve())))}
        for label, runs in groups
    ]
    found = [place for place, parts in enumerate(known) if name.rstrip("/") in parts]
    if len(found) == 1:
        return found[0]
    labels = [label for label, _ in groups]
    if found:
        raise UserError(f"--baseline {name}: several {what} are called so; give one of: {', '.join(labels)}")
    raise UserError(f"--baseline {name}: not among the {what}{suggest(name, labels)}")
