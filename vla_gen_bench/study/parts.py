"""A study's parts: one training or one evaluation each, what it waits for, and the `vgb` command that does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from vla_gen_bench.assets.world import get_world
from vla_gen_bench.doctor.backend import choose_backend
from vla_gen_bench.episodes.suite import Suite, load_suite, union
from vla_gen_bench.errors import UserError, shown
from vla_gen_bench.eval.evaluate import Request, check_workers
from vla_gen_bench.log.provenance import without_secrets
from vla_gen_bench.policies.card import Card
from vla_gen_bench.policies.openvla.checkpoint.hub import HUB_ID
from vla_gen_bench.policies.registry import check_options, resolve
from vla_gen_bench.policies.sensing import sensors_of
from vla_gen_bench.study.declaration import Arm, Evaluation, Study
from vla_gen_bench.train.demos import lerobot_reader
from vla_gen_bench.train.recipe import RECIPE_FILE, Recipe, load_recipe, recipe_file, trainer_of
from vla_gen_bench.train.run import CHECKPOINT
from vla_gen_bench.train.student import checkpoint_of

TRAINERS = {
    "sft": ("sft.trainer", "SftRecipe"),
    "grounding": ("grounding.trainer", "GroundingRecipe"),
    "ppo": ("rl.ppo", "PpoRecipe"),
    "grpo": ("rl.grpo", "GrpoRecipe"),
    "dpo": ("rl.dpo", "DpoRecipe"),
}
SIMULATING = ("ppo", "grpo", "dpo")
TRAINED_POLICY = "openvla"  # what loads a checkpoint that `vgb train` wrote


@dataclass(frozen=True)
class Effort:
    """How parts run on this machine; none of it is part of what a study states.

    Attributes:
        workers: Simulator processes of evaluations and of RL; None = one per core.
        num_envs: Parallel episodes of an evaluation's worker; None = as `vgb eval` chooses.
        processes: Processes of supervised training; None = one.
        here: Whether this machine runs them, which then decides where physics runs; not the nodes of a cluster.
    """

    workers: int | None = None
    num_envs: int | None = None
    processes: int | None = None
    here: bool = True


@dataclass(frozen=True)
class Part:
    """One node of the graph.

    Attributes:
        name: "train/ARM/SEED", "eval/EVALUATION/ARM/SEED", or "eval/EVALUATION/ARM" for a policy not trained here.
        arm, seed: The arm, and its training seed if it has one.
        after: Names of the parts whose checkpoints it needs.
        out: The run folder or log folder it writes.
        notes: Where its state, its recipe and what it printed are kept.
        command: Arguments of `vgb`.
        recipe: Of a training.
        request, suite: Of an evaluation.
        backend: Where physics runs, "cpu" or "gpu"; None if the part simulates nothing, or is not run here.
    """

    name: str
    arm: str
    seed: int | None
    after: tuple[str, ...]
    out: Path
    notes: Path
    command: tuple[str, ...]
    evaluation: str | None = None
    recipe: Recipe | None = None
    request: Request | None = None
    suite: Suite | None = None
    backend: str | None = None

    @property
    def public_command(self) -> tuple[str, ...]:
        """The command for files that are passed on to others: keys and passwords are hidden."""
        if self.request is None:
            return self.command
        return eval_command(replace(self.request, options=without_secrets(self.request.options)))

    @property
    def world(self) -> str:
        return self.recipe.world if self.recipe else self.request.world if self.request else "builtin"


def parts_of(study: Study, path: Path, folder: Path, effort: Effort | None = None) -> dict[str, Part]:
    """Returns the parts of a study by name, each after those it needs.

    Args:
        path: The study's file, for messages.
        folder: The study's folder.
        effort: How they run.

    Raises:
        UserError: A recipe, suite, policy, checkpoint, world or data folder cannot be used. Nothing has run then.
    """
    effort = effort or Effort()
    trainings = [
        part
        for name in study.arms
        if study.arms[name].trained
        for part in _trainings(study, name, path, folder, effort)
    ]
    suites = {name: _suite(one, f"{path}: evaluations.{name}") for name, one in study.evaluations.items()}
    evaluations = [
        part
        for evaluation, arm in study.compared()
        for part in _evaluations(study, evaluation, arm, suites[evaluation], path, folder, effort)
    ]
    parts = {part.name: part for part in [*trainings, *evaluations]}
    order = TopologicalSorter({name: part.after for name, part in parts.items()}).static_order()
    return {name: parts[name] for name in order}


def training_name(arm: str, seed: int | None) -> str:
    """Returns the name of a training part."""
    return f"train/{arm}/{seed}"


def evaluation_name(evaluation: str, arm: str, seed: int | None) -> str:
    """Returns the name of an evaluation part."""
    return f"eval/{evaluation}/{arm}" + ("" if seed is None else f"/{seed}")


# ---- trainings ------------------------------------------------------------------------------------------------


def _trainings(study: Study, name: str, path: Path, folder: Path, effort: Effort) -> Iterator[Part]:
    arm, where = study.arms[name], f"{path}: arms.{name}"
    file = recipe_file(str(arm.recipe), f"{where}.recipe:")
    trainer = trainer_of(file)
    if trainer not in TRAINERS:
        raise UserError(f"{file}: trainer: {shown(trainer)}; known: {', '.join(TRAINERS)}")
    module, kind = TRAINERS[str(trainer)]
    recipes = getattr(import_module(f"vla_gen_bench.train.{module}"), kind)
    fixed = {**arm.set, **_data(arm, str(trainer), where), "name": name}  # what `set` nests does not replace the data
    for seed in study.seeds_of(name):
        after, changes = (), {**fixed, "seed": seed}
        if arm.start:
            after = (training_name(arm.start, study.start_seed(name, int(seed or 0))),)
            changes |= {"model.checkpoint": str(folder / after[0] / CHECKPOINT), "model.size": None}
        recipe = _recipe(file, recipes, changes, where)
        _check_sources(recipe, bool(arm.start), where)
        part = training_name(name, seed)
        notes = folder / "parts" / part
        command = ("train", str(trainer), "--recipe", str(notes / RECIPE_FILE), "--out", str(folder / part))
        command += _train_options(str(trainer), effort)
        backend = _backend(recipe, effort, where)
        yield Part(part, name, seed, after, folder / part, notes, command, recipe=recipe, backend=backend)


def _recipe(file: Path, kind: type[Recipe], changes: dict[str, Any], where: str) -> Recipe:
    try:
        return load_recipe(file, kind, changes)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _data(arm: Arm, trainer: str, where: str) -> dict[str, Any]:
    if not arm.data:
        return {}
    if trainer == "sft":
        return {"data": list(arm.data)}
    if trainer == "grounding" and len(arm.data) == 1:
        return {"grounding.scenes": arm.data[0]}
    takes = "one folder of scenes" if trainer == "grounding" else "no data: it learns from its own episodes"
    raise UserError(f"{where}.data: trainer {trainer} takes {takes}")


def _train_options(trainer: str, effort: Effort) -> tuple[str, ...]:
    if trainer in SIMULATING:
        return () if effort.workers is None else ("--workers", str(effort.workers))
    return () if effort.processes is None else ("--processes", str(effort.processes))


def _check_sources(recipe: Recipe, started: bool, where: str) -> None:
    """Raises `UserError` if what a training reads is not there: better now than after hours."""
    get_world(recipe.world)
    for folder in data_of(recipe):
        if not Path(folder).is_dir() and not lerobot_reader.HUB_ID.match(folder):
            raise UserError(f"{where}: data {folder}: no such folder; collect it with 'vgb collect' or 'vgb scenes'")
    if recipe.trainer == "sft" and not data_of(recipe):
        raise UserError(f"{where}: no data; name demonstrations (vgb collect) under data")
    start = recipe.model.checkpoint
    if start is not None and not started and local_start(recipe) is None and not HUB_ID.match(start):
        raise UserError(f"{where}: checkpoint '{start}': no such folder or policy, and not an id on the hub")


def data_of(recipe: Recipe) -> list[str]:
    """Returns the data sets or scenes that a training reads: folders, or ids on the hub."""
    grounding = getattr(recipe, "grounding", None)
    scenes = [grounding.scenes] if grounding is not None else []
    more = [given for name in ("held_out", "development") if isinstance(given := getattr(recipe, name, None), str)]
    return [*getattr(recipe, "data", ()), *scenes, *more]


def local_start(recipe: Recipe) -> Path | None:
    """Returns the folder of the checkpoint that a training starts from; None if it is new or on the hub."""
    given = recipe.model.checkpoint
    folder = None if given is None else Path(checkpoint_of(given)).expanduser()
    return folder if folder is not None and folder.is_dir() else None


def _backend(recipe: Recipe, effort: Effort, where: str) -> str | None:
    """Returns where the physics of a training runs; raises `UserError` if the recipe wants a GPU in vain."""
    if recipe.trainer not in SIMULATING or not effort.here:
        return None
    try:
        return _chosen(getattr(recipe, "simulation", "cpu"), "simulation: gpu", "give set: {simulation: cpu}")
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


@cache
def _chosen(*wanted: str) -> str:
    """Returns `choose_backend` of this machine; asked once, because trying a GPU takes seconds."""
    return choose_backend(*wanted)


# ---- evaluations ----------------------------------------------------------------------------------------------


def _suite(evaluation: Evaluation, where: str) -> Suite:
    try:
        get_world(evaluation.world)
        suite = union([load_suite(name) for name in evaluation.suites])
        suite.select(evaluation.scenarios)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return suite


def _evaluations(
    study: Study, evaluation: str, name: str, suite: Suite, path: Path, folder: Path, effort: Effort
) -> Iterator[Part]:
    arm, chosen = study.arms[name], study.evaluations[evaluation]
    options = {**chosen.options, **arm.options}
    for seed in study.seeds_of(name):
        part = evaluation_name(evaluation, name, seed)
        after = (training_name(name, seed),) if arm.trained else ()
        checkpoint = str(folder / after[0] / CHECKPOINT) if after else arm.checkpoint
        request = Request(
            policy=TRAINED_POLICY if arm.trained else str(arm.policy),
            suites=chosen.suites,
            checkpoint=checkpoint,
            scenarios=chosen.scenarios,
            world=chosen.world,
            episodes=chosen.episodes,
            seeds=chosen.seeds,
            options=options,
            out=folder / part,
            workers=effort.workers,
            num_envs=effort.num_envs,
        )
        backend = _chosen(request.backend) if effort.here else None
        check_workers(backend, request.workers)
        _check_policy(request, f"{path}: arms.{name}")
        command = eval_command(request)
        yield Part(
            part, name, seed, after, folder / part, folder / "parts" / part, command, evaluation, None, request, suite,
            backend,
        )  # fmt: skip


def _check_policy(request: Request, where: str) -> None:
    try:
        card = resolve(request.policy)
        card.check_world(request.world)
        sensors_of(card, get_world(request.world), None, request.arguments)
        if _imports_safely(card):
            check_options(card, request.arguments)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _imports_safely(card: Card) -> bool:
    """Whether a policy's factory may be imported here; code in a card's folder is left to its evaluation."""
    return card.source.kind != "folder" or card.factory.startswith(f"{__name__.partition('.')[0]}.")


def eval_command(request: Request) -> tuple[str, ...]:
    """Returns the arguments of `vgb` that make a request."""
    numbers: Mapping[str, Any] = {
        "--episodes": request.episodes, "--workers": request.workers, "--num-envs": request.num_envs,
    }  # fmt: skip
    words = ["eval", "--policy", request.policy]
    words += ["--checkpoint", request.checkpoint] if request.checkpoint is not None else []
    for key, value in request.options.items():
        words += ["--policy-option", f"{key}={_flow(value)}"]
    for suite in request.suites:
        words += ["--suite", str(suite)]
    for scenario in request.scenarios or ():
        words += ["--scenario", scenario]
    words += ["--world", request.world]
    words += ["--seeds", ",".join(map(str, request.seeds))] if request.seeds else []
    words += [word for option, value in numbers.items() if value is not None for word in (option, str(value))]
    return (*words, "--out", str(request.out))


def _flow(value: Any) -> str:
    """Returns a value as YAML on one line, as `--policy-option` reads it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 20, allow_unicode=True)
    return text.removesuffix("...\n").strip()
