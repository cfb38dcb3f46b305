"""What a study found: for each question, curves and comparisons of the logs that are complete."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vla_gen_bench.errors import UserError
from vla_gen_bench.report.api import report_of
from vla_gen_bench.report.blocks import Document
from vla_gen_bench.report.curves import curves_figure, load_trainings
from vla_gen_bench.report.load import load_runs
from vla_gen_bench.report.seeds import compare_seeds, seeds_document
from vla_gen_bench.study.declaration import Study
from vla_gen_bench.study.ledger import Standing
from vla_gen_bench.study.parts import Part, evaluation_name, training_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 0.95
MAIN_CURVE = {"sft": "val_loss", "grounding": "loss"}  # of other trainers: success


@dataclass(frozen=True)
class Comparison:
    """One evaluation's answer to a question.

    Attributes:
        evaluation: Its name.
        over_seeds: Tables over several training seeds; None for a single one.
        by_seed: Training seed ("" for none) -> the tables of `vgb report` on that seed, and the command.
        missing: Names of the parts without results that it lacks.
    """

    evaluation: str
    over_seeds: Document | None
    by_seed: dict[str, tuple[Document, str]]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a study knows about a question.

    Attributes:
        ask: The question.
        curves: Name -> figure.
        remarks: What could not be drawn or compared, and why.
        comparisons: One per evaluation.
    """

    ask: str
    curves: dict[str, Figure]
    remarks: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


def answers_of(study: Study, parts: Mapping[str, Part], found: Mapping[str, Standing]) -> dict[str, Answer]:
    """Returns an answer for each question, from the parts that are done."""
    done = {name for name, one in found.items() if one.state == "done"}
    return {name: _answer(study, name, parts, done) for name in study.questions}


def _answer(study: Study, name: str, parts: Mapping[str, Part], done: set[str]) -> Answer:
    remarks: list[str] = []
    curves = dict(_curves(study, name, parts, done, remarks))
    comparisons = []
    for evaluation in study.evaluations_of(name):
        try:
            comparisons.append(_comparison(study, name, evaluation, parts, done))
        except UserError as error:
            remarks.append(f"{evaluation}: {error}")
    return Answer(study.questions[name].ask, curves, tuple(remarks), tuple(comparisons))


# ---- curves ---------------------------------------------------------------------------------------------------


def _curves(
    study: Study, question: str, parts: Mapping[str, Part], done: set[str], remarks: list[str]
) -> Iterator[tuple[str, Figure]]:
    """Yields a figure for each trainer and metric: trainers count their steps differently."""
    arms = [arm for arm in study.questions[question].arms if study.arms[arm].trained]
    runs = {arm: [part for seed in study.seeds_of(arm) if (part := training_name(arm, seed)) in done] for arm in arms}
    trainers = {arm: str(getattr(parts[names[0]].recipe, "trainer", "")) for arm, names in runs.items() if names}
    for trainer in dict.fromkeys(trainers.values()):
        folders = {arm: [str(parts[name].out) for name in runs[arm]] for arm, its in trainers.items() if its == trainer}
        for metric in study.curves or (MAIN_CURVE.get(trainer, "success"),):
            try:
                groups = {arm: load_trainings(given) for arm, given in folders.items()}
                yield f"curves-{question}-{trainer}-{metric}", curves_figure(groups, metric, LEVEL)
            except UserError as error:
                remarks.append(f"no curve of {metric} for {', '.join(folders)}: {error}")


# ---- comparisons ----------------------------------------------------------------------------------------------


def _comparison(study: Study, question: str, evaluation: str, parts: Mapping[str, Part], done: set[str]) -> Comparison:
    arms = study.questions[question].arms
    names = {arm: {seed: evaluation_name(evaluation, arm, seed) for seed in study.seeds_of(arm)} for arm in arms}
    missing = tuple(name for its in names.values() for name in its.values() if name not in done)
    there = {arm: {seed: name for seed, name in its.items() if name in done} for arm, its in names.items()}
    there = {arm: its for arm, its in there.items() if its}
    if len(there) < 2:
        raise UserError(f"nothing to compare yet; missing: {', '.join(missing)}")
    seeds = _shared(there)
    if not seeds:
        raise UserError(f"no training seed is complete for all arms; missing: {', '.join(missing)}")
    folders = {seed: {arm: parts[its.get(seed) or its[None]].out for arm, its in there.items()} for seed in seeds}
    by_seed = {"" if seed is None else str(seed): _report(given) for seed, given in folders.items()}
    over = None
    if len(seeds) > 1:
        loaded = [load_runs([f"{arm}={place}" for arm, place in given.items()]) for given in folders.values()]
        policies = {arm: [runs[place] for runs in loaded] for place, arm in enumerate(there)}
        over = seeds_document(compare_seeds(policies, [str(seed) for seed in seeds], None, LEVEL))
    return Comparison(evaluation, over, by_seed, missing)


def _shared(there: Mapping[str, Mapping[int | None, str]]) -> list[int | None]:
    """Returns the training seeds that all trained arms have; [None] if none is trained here."""
    trained = [its for its in there.values() if None not in its]
    if not trained:
        return [None]
    return [seed for seed in trained[0] if all(seed in its for its in trained)]


def _report(folders: Mapping[str, Path]) -> tuple[Document, str]:
    """Returns the tables of `vgb report`, and the command that prints them."""
    names = [f"{arm}={folder}" for arm, folder in folders.items()]
    report = report_of(load_runs(names), None, None, LEVEL, None, True)
    return report.tables(), shlex.join(["vgb", "report", *names])
