"""Several training seeds of each policy: tables over seeds and episodes together, by the statistics of every report.

A seed's checkpoint adds rows, not episodes: each scenario has one row per seed, and all rows share the episode ids. So
the bootstrap resamples ids jointly for all seeds, and the permutation test sums an id's differences over them: episodes
are the independent units, never (seed, episode) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_
from typing import Any

from vla_gen_bench.episodes.suite import Suite
from vla_gen_bench.errors import UserError, printable
from vla_gen_bench.log.suites import find_suite_of
from vla_gen_bench.report.blocks import Block, Document, Line, Text
from vla_gen_bench.report.compare import Comparison, compare, named_place
from vla_gen_bench.report.formats import csv_lines
from vla_gen_bench.report.load import Run, check_comparable, scenario_ids
from vla_gen_bench.report.notes import few_notes, partial_notes
from vla_gen_bench.report.outcomes import METRICS, chosen_metric
from vla_gen_bench.report.scenarios import ScenarioInfo, describe, title_of
from vla_gen_bench.report.summaries import CONTROL, FLIPS, MEAN, RESAMPLES, Summary
from vla_gen_bench.report.table import best_places, estimate_text, summary_label, title

OVERALL = "ood"


@dataclass(frozen=True)
class SeedComparison:
    """Policies compared over their training seeds; the first one is the baseline.

    Attributes:
        infos: The scenarios, in the order of the table.
        seeds: Names of the training seeds, the same for all policies.
        runs: Of each policy, its runs in the order of `seeds`, or its single run.
        suite: The runs' suite, None if it was not found.
        by_scenario: Its summaries are the mean of each scenario over the seeds, in the order of `infos`.
        by_dimension: Its summaries are the means and drops of each dimension over its scenarios and the seeds.
    """

    infos: tuple[ScenarioInfo, ...]
    seeds: tuple[str, ...]
    runs: tuple[tuple[Run, ...], ...]
    suite: Suite | None
    by_scenario: Comparison
    by_dimension: Comparison

    def scenario_summaries(self) -> dict[str, Summary]:
        """Returns scenario id -> its mean over seeds."""
        means = {summary.dimension: summary for summary in self.by_scenario.summaries if summary.dimension != OVERALL}
        return {info.id: means[_own_dimension(info)] for info in self.infos}


def compare_seeds(
    policies: Mapping[str, Sequence[Run]],
    seeds: Sequence[str],
    metric: str | None = None,
    level: float = 0.95,
    *,
    suite_name: str | None = None,
    allow_partial: bool = True,
) -> SeedComparison:
    """Compares policies over training seeds.

    Args:
        policies: Label -> the runs of its seeds, in the order of `seeds`; or a single run, which is compared with every
            seed of the others. The first policy is the baseline.
        seeds: Names of the seeds.
        metric: A key of `METRICS`; None = the suite's.
        level: Confidence of every interval.
        suite_name: The runs' suite, if it is not found automatically.
        allow_partial: Accept missing and errored episodes, and mark the numbers they affect.

    Raises:
        UserError: The runs cannot be compared, as in a report, or a policy lacks a seed.
    """
    groups = [tuple({run.folder: run for run in group}.values()) for group in policies.values()]
    for label, group in zip(policies, groups):
        if len(group) not in (1, len(seeds)):
            raise UserError(
                f"{label} has {len(group)} training seeds and another policy {len(seeds)}: every policy needs one run "
                "for each training seed, or a single run; leave some out"
            )
    runs = [run for group in groups for run in group]
    check_comparable(runs, allow_partial)
    _check_same_episodes(runs)
    policies = {label: [*group] * (len(seeds) // len(group)) for label, group in zip(policies, groups)}
    suite = find_suite_of(runs[0].header, suite_name)
    infos, chosen = describe(scenario_ids(runs), suite), chosen_metric(metric, suite)
    joined = [_joined(label, group) for label, group in policies.items()]
    rows = [replace(_plain(info), id=_row(info.id, place)) for info in infos for place in range(len(seeds))]
    alone = [replace(row, dimension=_own_dimension(info)) for row, info in zip(rows, _each(infos, len(seeds)))]
    found = [compare(joined, some, 0, chosen, level) for some in (alone, rows)]
    return SeedComparison(tuple(infos), tuple(seeds), tuple(groups), suite, *found)


def _check_same_episodes(runs: Sequence[Run]) -> None:
    """Raises `UserError` if a complete run has other episodes than another, or an incomplete one has more."""
    whole = [run for run in runs if not run.defect()]
    first = max(whole or runs, key=lambda run: len(run.episodes))
    for run in runs:
        odd = run.episodes.keys() - first.episodes.keys()
        if odd or (whole and not run.defect() and run.episodes.keys() != first.episodes.keys()):
            raise UserError(
                f"{run.folder} and {first.folder}: not the same episodes, so training seeds cannot be compared by "
                "them; evaluate all with the same --episodes, --seeds and --scenario"
            )


def _each(infos: Sequence[ScenarioInfo], times: int) -> list[ScenarioInfo]:
    return [info for info in infos for _ in range(times)]


def _plain(info: ScenarioInfo) -> ScenarioInfo:
    """Without what would make rows of items or of severities of it."""
    return replace(info, shift=None, sweep=None, level=None, parts=())


def _row(scenario: str, place: int) -> str:
    return f"{scenario} | {place}"


def _own_dimension(info: ScenarioInfo) -> str:
    return f"scenario {info.id}"


def _joined(label: str, runs: Sequence[Run]) -> Run:
    """Returns one run in which every seed's episodes are those of scenarios of their own."""
    episodes = {
        (_row(scenario, place), *rest): row
        for place, run in enumerate(runs)
        for (scenario, *rest), row in run.episodes.items()
    }
    renamed = {key: replace(row, scenario=key[0]) for key, row in episodes.items()}
    named = (run.planned.renamed(partial(_row, place=place)) for place, run in enumerate(runs))
    planned = reduce(or_, named)
    problems = tuple(dict.fromkeys(problem for run in runs for problem in run.problems))
    return replace(runs[0], label=printable(label), episodes=renamed, planned=planned, problems=problems)


def grouped(runs: Sequence[Run], baseline: str | None) -> tuple[dict[str, list[Run]], list[str]]:
    """Returns label -> its runs, in the order given, the baseline first; and names for their places.

    Args:
        runs: Of `load_runs` with `repeat_labels`.
        baseline: A label, or a policy or folder of one label only; None for the first.

    Raises:
        UserError: No label, or more than one, is the baseline, or no label has several runs.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.label, []).append(run)
    if not any(len(group) > 1 for group in groups.values()):
        raise UserError("--over-seeds needs several runs of one policy: give them one label, as in sft=RUN sft=RUN")
    names = [f"run {place + 1}" for place in range(max(map(len, groups.values())))]
    first = next(iter(groups)) if baseline is None else _baseline(groups, baseline)
    return {first: groups.pop(first), **groups}, names


def _baseline(groups: Mapping[str, Sequence[Run]], name: str) -> str:
    if printable(name) in groups:
        return printable(name)
    return [*groups][named_place(name, [*groups.items()], "policies")]


# ---- as tables ------------------------------------------------------------------------------------------------


def seeds_lines(comparison: SeedComparison) -> Iterator[dict[str, Any]]:
    """Yields each seed's scenarios (kind: its name), their means (`mean over seeds`), then means and drops.

    A seed's p is not corrected: the tests of a comparison over seeds are those of the means.
    """
    scenarios = {_own_dimension(info): info for info in comparison.infos}
    runs = dict(zip(comparison.by_dimension.labels, comparison.runs))
    for line in csv_lines(comparison.by_dimension):
        if line["kind"] == "scenario":
            id, place = line["scenario"].rsplit(" | ", 1)
            its = runs[line["policy"]]
            run = its[int(place) % len(its)]  # a single run stands for every seed
            yield line | {"kind": comparison.seeds[int(place)], "scenario": id, "run": str(run.folder), "p_holm": ""}
        elif not line["kind"].startswith("stage "):
            yield line | {"run": ""}
    for line in csv_lines(comparison.by_scenario):
        info = scenarios.get(line["dimension"])
        if info and line["kind"] == MEAN:
            names = {"dimension": info.dimension, "scenario": info.id, "label": info.label}
            yield line | names | {"kind": "mean over seeds", "run": ""}


def seeds_document(comparison: SeedComparison, notes: Sequence[str] = ()) -> Document:
    """Returns the tables: rates over seeds and episodes, differences from the first policy. `notes` come last."""
    rates = _block("Success rates", comparison, comparison.by_dimension.labels, _rates(comparison))
    labels = comparison.by_dimension.labels
    others = range(1, len(labels))
    apart = _block(f"Difference from {labels[0]}", comparison, labels[1:], lambda of, _: _differences(of, others))
    blocks = (rates, apart) if len(labels) > 1 else (rates,)
    count = len(comparison.seeds)
    name = f"{title(comparison.by_dimension)}, over {count} training seeds"
    return Document(name, blocks, (*_notes(comparison), *notes))


Cells = Callable[[Summary, ScenarioInfo | None], tuple[Text, ...]]


def _block(name: str, comparison: SeedComparison, columns: Sequence[str], cells: Cells) -> Block:
    means, count = comparison.scenario_summaries(), len(comparison.seeds)
    sections = []
    for dimension in dict.fromkeys(info.dimension for info in comparison.infos):
        lines = [
            Line(info.label, cells(means[info.id], info), scenario=info.id)
            for info in comparison.infos
            if info.dimension == dimension
        ]
        sections.append((title_of(dimension), (*lines, *_summaries(comparison, dimension, count, cells))))
    overall = _summaries(comparison, OVERALL, count, cells)
    sections += [("All shifted scenarios", overall)] if overall else []
    return Block(name, tuple(columns), tuple(sections))


def _summaries(comparison: SeedComparison, dimension: str, count: int, cells: Cells) -> tuple[Line, ...]:
    """Returns the lines of a dimension's means and drops; `rows` counts scenarios, as in the report on one seed."""
    found = [summary for summary in comparison.by_dimension.summaries if summary.dimension == dimension]
    return tuple(Line(summary_label(replace(of, rows=of.rows // count)), cells(of, None), summary=True) for of in found)


def _rates(comparison: SeedComparison) -> Cells:
    fair = [not any(run.header.policy.privileged for run in group) for group in comparison.runs]
    rows = {row.info.id: row for row in comparison.by_dimension.rows}

    def cells(of: Summary, info: ScenarioInfo | None) -> tuple[Text, ...]:
        best = best_places([estimate.value for estimate in of.estimates], fair) if of.kind == MEAN else []
        texts = [estimate_text(of.kind, estimate, place in best) for place, estimate in enumerate(of.estimates)]
        if of.kind != MEAN:
            return tuple(texts)
        ids = [info.id] if info else [each.id for each in comparison.infos if _counts_in(of.dimension, each)]
        seeds = range(len(comparison.seeds))

        def shown(place: int, text: Text) -> Text:
            each = [_mean([rows[_row(id, seed)].cells[place].rate for id in ids]) for seed in seeds]
            several = len(comparison.runs[place]) > 1
            return replace(text, note=f"{text.note} ({', '.join(each)})".strip()) if several else text

        return tuple(shown(place, text) for place, text in enumerate(texts))

    return cells


def _counts_in(dimension: str, info: ScenarioInfo) -> bool:
    """Whether a scenario counts in the mean of a dimension, or in that of all shifted scenarios."""
    return info.dimension not in ("ind", CONTROL) if dimension == OVERALL else info.dimension == dimension


def _mean(rates: Sequence[float | None]) -> str:
    known = [rate for rate in rates if rate is not None]
    return f"{round(sum(known) / len(known), 9):.3f}" if known and len(known) == len(rates) else "-"


def _differences(of: Summary, others: Sequence[int]) -> tuple[Text, ...]:
    found = [of.differences[other] for other in others]
    return tuple(Text("-") if one is None else estimate_text(of.kind, one, signed=True) for one in found)


def _notes(comparison: SeedComparison) -> list[str]:
    count = len(comparison.seeds)
    percent = f"{100 * comparison.by_dimension.level:g}%"
    what = METRICS[comparison.by_dimension.metric]
    single = any(len(group) == 1 for group in comparison.runs)
    labelled = zip(comparison.by_dimension.labels, comparison.runs)
    given = [replace(run, label=label) for label, group in labelled for run in group]
    return [
        f"Rate: {what}, the mean over {count} training seeds; in brackets that of each: {', '.join(comparison.seeds)}.",
        *(["Without brackets: a single run, compared with every seed of the others."] if single else ()),
        f"Intervals ({percent}): percentiles of {RESAMPLES} bootstrap samples of the episode ids, drawn jointly for "
        "all seeds, rows and policies (fixed seed). "
        "They cover the choice of episodes, not the choice of training seeds.",
        *([_differences_note()] if len(comparison.runs) > 1 else ()),
        *few_notes(comparison.by_dimension),
        *partial_notes(replace(comparison.by_dimension, runs=given)),
    ]


def _differences_note() -> str:
    return (
        f"Differences: the same episodes and the same training seeds, paired. Tests: sign flips over the episode ids "
        f"({FLIPS:,} flips), an id's differences summed over the seeds. Primary tests: the means of the dimensions, "
        "corrected by Holm over the dimensions of each pair of policies; secondary: the rows, corrected over the rows. "
        "The mean of all shifted scenarios summarises them; its p is not corrected. * < 0.05, ** < 0.01, *** < 0.001."
    )
