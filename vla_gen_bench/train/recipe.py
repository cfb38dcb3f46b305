"""Recipes: a training run as data. Unknown keys are errors; every run keeps its own copy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, model_validator

from vla_gen_bench.data import replace_file
from vla_gen_bench.episodes.spec import Frozen, digest_of
from vla_gen_bench.errors import UserError, one_line, shown, suggest
from vla_gen_bench.resources import data_dir
from vla_gen_bench.strict_yaml import parse, parse_yaml, read_yaml

RECIPE_FILE = "recipe.yaml"
HARMLESS = ("checkpoint_every_s", "note")  # keys of a recipe that change nothing that is learned
NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.:+-]*$"  # folders are named after recipes
DEEPEST_BASE = 20
R = TypeVar("R", bound="Recipe")


class ModelChoice(Frozen):
    """The model to start from: a new one of a size, or a checkpoint.

    Attributes:
        size: Name of a size in `policies/openvla/sizes`, initialised from the recipe's seed.
        checkpoint: Folder, policy name or hub id; `revision` is its commit on the hub.
        decoding, attention, chunk: "autoregressive", or "parallel" with K actions (OFT).
        head: Output of a parallel model: "tokens", or continuous actions ("l1", supervised training only).
        unnorm_key, image_path: As in `OpenVLAPolicy`.

    None = from the checkpoint; a new model, or a checkpoint without the value, uses the defaults of `Acting`.
    """

    size: str | None = None
    checkpoint: str | None = None
    revision: str | None = None
    decoding: Literal["autoregressive", "parallel"] | None = None
    attention: Literal["causal", "bidirectional"] | None = None
    chunk: int | None = Field(None, ge=1)
    head: Literal["tokens", "l1"] | None = None
    unnorm_key: str | None = None
    image_path: Literal["pil", "tensor", "tensor-bf16"] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> ModelChoice:
        if (self.size is None) == (self.checkpoint is None):
            raise ValueError("give either size (a new model) or checkpoint")
        return self


class Adapter(Frozen):
    """LoRA on the reference's module list (`lora.add_lora`)."""

    rank: int = Field(32, ge=1)
    alpha: float = Field(16.0, gt=0)


class Optimiser(Frozen):
    """AdamW.

    Attributes:
        lr: Peak learning rate.
        warmup: Steps of a linear rise from zero.
        schedule: After the warm-up: "constant", "cosine" or "linear" down to `floor` times `lr` at the end.
        weight_decay: On matrices only: not on biases, norms and embeddings of tokens or positions.
        clip: Maximum gradient norm; None = no clipping.
    """

    lr: float = Field(gt=0)
    warmup: int = Field(0, ge=0)
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    floor: float = Field(0.0, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.01, ge=0)
    clip: float | None = Field(None, gt=0)

    def rate(self, step: int, steps: int, first: int = 0) -> float:
        """Returns the learning rate of `step` (from 0) of `steps`; the `first` ones have a schedule of their own."""
        import math

        step, steps = (step, first) if step < first else (step - first, steps - first)
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        part = min(1.0, (step - self.warmup) / max(1, steps - self.warmup))
        fall = {"constant": 0.0, "linear": part, "cosine": 0.5 * (1 - math.cos(math.pi * part))}[self.schedule]
        return self.lr * (1 - (1 - self.floor) * fall)


class Recipe(Frozen):
    """Settings shared by all trainers.

    Attributes:
        name: Name of the resulting policy and label of its curves.
        trainer: The trainer that reads this recipe.
        world: World name.
        seed: Seeds weights, batches and episodes.
        model, adapter, optimiser: See their classes; without an adapter all weights are trained.
        precision: "float32", or "bfloat16" for autocast with float32 master weights.
        checkpoint_every_s: Minimum seconds between two saved states; they are saved with a row of the curve.
    """

    name: str = Field(pattern=NAME_PATTERN, max_length=100)
    trainer: str
    note: str = ""
    world: str = "builtin"
    seed: int = Field(0, ge=0)
    model: ModelChoice
    adapter: Adapter | None = None
    optimiser: Optimiser
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpoint_every_s: float = Field(120.0, gt=0)

    def digest(self) -> str:
        """Returns 16 hex digits of a digest over the entire recipe."""
        return digest_of(self.canonical())


def recipe_file(name: str, where: str = "--recipe") -> Path:
    """Returns the path of a recipe: `name` itself, recipe.yaml of a policy, or one of the files in its `recipes`.

    Args:
        where: What named it, for messages.

    Raises:
        UserError: No such recipe exists.
    """
    if Path(name).suffix in (".yaml", ".yml") or Path(name).is_file():
        return Path(name)
    policies = data_dir() / "policies"
    known = {path.parent.name: path for path in policies.glob("*/recipe.yaml")}
    known |= {path.stem: path for path in policies.glob("*/recipes/*.yaml") if path.stem != "common"}  # only a base
    if name not in known:
        raise UserError(f"{where} {name}: no file, and no policy with a recipe of that name{suggest(name, known)}")
    return known[name]


def trainer_of(path: Path) -> Any:
    """Returns the name of the trainer that a recipe file, or its `base`, is written for; raises as `load_recipe`."""
    return _with_base(path).get("trainer")


def load_recipe(path: Path, kind: type[R], changes: dict[str, Any] | None = None) -> R:
    """Reads a recipe.

    Args:
        path: A YAML file; its key `base` may name another file, which provides the omitted keys.
        kind: The trainer's recipe class.
        changes: Dotted keys that override the file: {"optimiser.lr": 1e-4}.

    Raises:
        UserError: Unreadable, unknown keys, values out of range, or written for another trainer.
    """
    data = _with_base(path)
    for key, value in (changes or {}).items():
        _set(data, key.split("."), value, f"{path}: {key}")
    wanted = kind.model_fields["trainer"].annotation
    if data.get("trainer") not in getattr(wanted, "__args__", (data.get("trainer"),)):
        raise UserError(f"{path}: trainer: {data.get('trainer')!r}; this command takes {wanted.__args__[0]!r}")
    return parse(kind, data, f"{path}:")


def _with_base(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Returns a recipe's plain data, merged over its `base`, if it names one: a path relative to its folder."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping")
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise UserError(f"{path}: base: expected the name of a file, got {shown(base)}")
    place = (path.parent / base).resolve()
    if len(above) >= DEEPEST_BASE:
        raise UserError(f"{path}: base: more than {DEEPEST_BASE} recipes upon each other")
    if place in above:
        raise UserError(f"{path}: base: {base} is based on this recipe itself")
    return _merged(_with_base(place, (*above, path.resolve())), data)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Returns `below` overridden by `above`; mappings are merged, everything else is replaced."""
    both = {key: _merged(below[key], value) for key, value in above.items() if _are_mappings(below.get(key), value)}
    return {**below, **above, **both}


def _are_mappings(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def parse_changes(pairs: list[str] | tuple[str, ...], option: str = "--set") -> dict[str, Any]:
    """Reads `--set key.path=value` options, or another `option` of that form; values are YAML.

    Raises:
        UserError: Not of that form, or a setting is given twice.
    """
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UserError(f"{option} {pair}: expected key.path=value")
        if twice := given_twice([*changes, key]):
            raise UserError(f"{option} {one_line(pair, 80)}: {twice}")
        changes[key] = parse_yaml(value, f"{option} {one_line(pair, 80)}")
    return changes


def with_options(changes: dict[str, Any], options: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """Returns the changes of `--set` and of options that stand for a setting each.

    Args:
        options: Option -> the setting it stands for, and its value; None = not given.

    Raises:
        UserError: An option and `--set` give the same setting.
    """
    given = {option: pair for option, pair in options.items() if pair[1] is not None}
    for option, (key, _) in given.items():
        if key in flat(changes):
            raise UserError(f"{option} and --set {key} give the same setting; leave one out")
    return changes | dict(given.values())


def given_twice(keys: Iterable[str]) -> str:
    """Returns what is wrong with dotted keys if one is given twice, or lies within another; "" if all is well."""
    seen: list[str] = []
    for key in keys:
        other = next(
            (other for other in seen if f"{key}.".startswith(f"{other}.") or other.startswith(f"{key}.")), None
        )
        if other is not None:
            return f"'{key}' is given twice" if key == other else f"'{key}' is given twice, also by '{other}'"
        seen.append(key)
    return ""


def flat(data: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Returns nested mappings as one, with dotted keys; an empty mapping stays a value."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{before}{key}.") if nested else {f"{before}{key}": value}
    return found


def save_recipe(recipe: Recipe, folder: Path) -> None:
    """Replaces recipe.yaml atomically with the resolved recipe."""
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    replace_file(folder / RECIPE_FILE, text)


def _set(data: dict[str, Any], keys: list[str], value: Any, where: str) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise UserError(f"{where}: '{key}' is no mapping")
    data[keys[-1]] = value
