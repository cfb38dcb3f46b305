"""A study as data: arms, evaluations and questions, read from a strict YAML file."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from vla_gen_bench.bounds import EPISODES, EVALUATION_SEED, MOST_SEEDS
from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.strict_yaml import parse, read_yaml
from vla_gen_bench.train.recipe import flat, given_twice

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)]  # names folders, too
Seed = Annotated[int, Field(ge=0, strict=True)]
Several = Field(min_length=1, max_length=MOST_SEEDS)
Seeds = Annotated[tuple[Seed, ...], Several]
EvaluationSeed = Annotated[int, Field(ge=EVALUATION_SEED.low, le=EVALUATION_SEED.high, strict=True)]
EvaluationSeeds = Annotated[tuple[EvaluationSeed, ...], Several]
DATA_KEYS = ("data", "grounding.scenes")  # of a recipe: what `data` stands for
OWN_KEYS = ("seed", "name", "trainer")  # of a recipe: the study sets them


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    for key in options:
        if not key.isidentifier():
            raise ValueError(f"'{key}' is no name of a policy's argument")
        if key == "checkpoint":
            raise ValueError("'checkpoint' is no option here: a trained arm has its own, a policy names it itself")
    return options


Options = Annotated[dict[str, Any], AfterValidator(_check_options)]


class Arm(Frozen):
    """A policy to compare: trained by the study, or given.

    Attributes:
        recipe: File, or name of a policy or preset, as for `vgb train`.
        start: The arm whose checkpoint of the same training seed (or of its only one) this one starts from.
        data: Demonstrations of the trainer sft, or the scenes of grounding.
        set: Changes of the recipe, as for `vgb train --set`: {optimiser.lr: 1.0e-4}.
        seeds: Training seeds; None = the study's.
        policy: Instead of a recipe: a policy that is not trained here, as for `vgb eval --policy`.
        checkpoint: Its weights, as for `vgb eval --checkpoint`.
        options: Arguments of the policy in every evaluation, as for `vgb eval --policy-option`.
    """

    recipe: str | None = None
    start: str | None = None
    data: tuple[str, ...] = ()
    set: dict[str, Any] = {}
    seeds: Seeds | None = None
    policy: str | None = None
    checkpoint: str | None = None
    options: Options = {}

    @property
    def trained(self) -> bool:
        return self.recipe is not None

    @model_validator(mode="after")
    def _one_of(self) -> Arm:
        if (self.recipe is None) == (self.policy is None):
            raise ValueError("give either recipe (trained here) or policy (as it is)")
        if self.policy is not None and (self.start or self.data or self.set or self.seeds):
            raise ValueError("start, data, set and seeds are of a recipe; a policy is evaluated as it is")
        if self.recipe is not None and self.checkpoint is not None:
            raise ValueError("checkpoint is of a policy; set: {model.checkpoint: ...} names a recipe's")
        if twice := given_twice(self.set):
            raise ValueError(f"set: {twice}")
        for key in flat(self.set):
            if key in OWN_KEYS:
                raise ValueError(f"set: '{key}' is the study's own; training seeds are named by 'seeds'")
            if self.data and key in DATA_KEYS:
                raise ValueError(f"set: '{key}' and data both name what to learn from")
            if self.start and key in ("model.checkpoint", "model.size"):
                raise ValueError(f"set: '{key}' and start both name the model to start from")
        return self


class Evaluation(Frozen):
    """An evaluation of arms; None = as `vgb eval` does.

    Attributes:
        suite: Name or file, or several.
        scenarios, world, episodes, seeds: As for `vgb eval`.
        options: Arguments of every arm's policy; an arm's own options win.
    """

    suite: str | tuple[str, ...]
    scenarios: tuple[str, ...] | None = Field(None, min_length=1)
    world: str = "builtin"
    episodes: int | None = Field(None, ge=EPISODES.low, le=EPISODES.high, strict=True)
    seeds: EvaluationSeeds | None = None
    options: Options = {}

    @property
    def suites(self) -> tuple[str, ...]:
        return (self.suite,) if isinstance(self.suite, str) else self.suite


class Question(Frozen):
    """What is compared.

    Attributes:
        ask: The question, a heading of the page.
        arms: The first one is the baseline.
        evaluations: Names; None = all.
    """

    ask: str = Field(min_length=1, max_length=300)
    arms: tuple[str, ...] = Field(min_length=2)
    evaluations: tuple[str, ...] | None = Field(None, min_length=1)


class Study(Frozen):
    """A declared study.

    Attributes:
        name: Names its folder.
        note: Shown below the title.
        seeds: Training seeds of every arm that names none.
        curves: Columns of curve.csv to draw; None = the trainer's main one.
    """

    name: Name
    title: str = Field("", max_length=300)
    note: str = ""
    seeds: Seeds = (0,)
    arms: dict[Name, Arm] = Field(min_length=1)
    evaluations: dict[Name, Evaluation] = Field(min_length=1)
    questions: dict[Name, Question] = Field(min_length=1)
    curves: tuple[str, ...] | None = Field(None, min_length=1)

    def seeds_of(self, arm: str) -> tuple[int | None, ...]:
        """Returns an arm's training seeds; (None,) for a policy that is not trained here."""
        chosen = self.arms[arm]
        return (chosen.seeds or self.seeds) if chosen.trained else (None,)

    def evaluations_of(self, question: str) -> tuple[str, ...]:
        """Returns the names of a question's evaluations."""
        return self.questions[question].evaluations or tuple(self.evaluations)

    def compared(self) -> list[tuple[str, str]]:
        """Returns the (evaluation, arm) pairs that some question needs, in the order of the file."""
        needed = {
            (e, arm) for q, question in self.questions.items() for e in self.evaluations_of(q) for arm in question.arms
        }
        return [(e, arm) for e in self.evaluations for arm in self.arms if (e, arm) in needed]

    def start_seed(self, arm: str, seed: int) -> int:
        """Returns the training seed of the arm that `arm` starts from with `seed`."""
        seeds = self.seeds_of(str(self.arms[arm].start))
        return seed if seed in seeds else int(seeds[0] or 0)


def read_study(path: Path) -> Study:
    """Reads and checks a study.

    Raises:
        UserError: Unreadable, unknown keys, values out of range, unknown names, arms that start from each other, or
            something that no question needs.
    """
    study = parse(Study, read_yaml(path), f"{path}:")
    _check_names(study, path)
    _check_starts(study, path)
    _check_needed(study, path)
    return study


def _known(names: Iterable[str], known: Iterable[str], where: str, kind: str) -> None:
    names, known = list(names), list(known)
    for name in names:
        if name not in known:
            raise UserError(f"{where}: unknown {kind} '{name}'{suggest(name, known)}")
        if names.count(name) > 1:
            raise UserError(f"{where}: {kind} '{name}' is given twice")


def _check_names(study: Study, path: Path) -> None:
    for name, arm in study.arms.items():
        _known([arm.start] if arm.start else [], study.arms, f"{path}: arms.{name}.start", "arm")
        if arm.start and not study.arms[arm.start].trained:
            raise UserError(
                f"{path}: arms.{name}.start: '{arm.start}' is not trained here; name its weights with "
                "set: {model.checkpoint: ...}"
            )
    for name, question in study.questions.items():
        _known(question.arms, study.arms, f"{path}: questions.{name}.arms", "arm")
        _known(question.evaluations or (), study.evaluations, f"{path}: questions.{name}.evaluations", "evaluation")
    every = [(name, study.seeds_of(name)) for name in study.arms]
    for where, seeds in [*every, *((name, one.seeds or ()) for name, one in study.evaluations.items())]:
        if len(set(seeds)) < len(seeds):
            raise UserError(f"{path}: {where}: seeds: a seed is given twice in {list(seeds)}")


def _check_starts(study: Study, path: Path) -> None:
    """Refuses circles, and starts that have another number of seeds."""
    try:
        TopologicalSorter({name: [arm.start] for name, arm in study.arms.items() if arm.start}).prepare()
    except CycleError as error:
        circle = " starts from ".join(reversed(error.args[1]))
        raise UserError(f"{path}: arms: {circle}; one of them must start from a checkpoint") from None
    for name, arm in study.arms.items():
        if arm.start is None:
            continue
        ours, theirs = study.seeds_of(name), study.seeds_of(arm.start)
        lost = [seed for seed in ours if seed not in theirs]
        if lost and len(theirs) > 1:
            raise UserError(
                f"{path}: arms.{name}: no seed {lost[0]} of '{arm.start}', which it starts from (its seeds: "
                f"{list(theirs)}); give both the same seeds, or '{arm.start}' a single one"
            )


def _check_needed(study: Study, path: Path) -> None:
    """Refuses what no question needs: it would cost hours and appear nowhere."""
    compared = study.compared()
    starts = {arm.start for arm in study.arms.values()}
    for name in study.arms:
        if name not in starts and name not in {arm for _, arm in compared}:
            raise UserError(f"{path}: arms.{name}: no question compares it, and no arm starts from it; leave it out")
    for name in study.evaluations:
        if name not in {evaluation for evaluation, _ in compared}:
            raise UserError(f"{path}: evaluations.{name}: no question uses it; leave it out")
    for name, question in study.questions.items():
        several = [set(study.seeds_of(arm)) for arm in question.arms if study.arms[arm].trained]
        if several and not set.intersection(*several):
            raise UserError(
                f"{path}: questions.{name}: its arms share no training seed; comparisons are paired by seed"
            )
