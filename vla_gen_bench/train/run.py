"""The files that every training run keeps in its folder, and how it resumes after a kill.

recipe.yaml     the recipe as resolved
curve.csv       one row per logged step; columns are documented in docs/training.md
state.pt        the newest state to resume from; replaced atomically
checkpoint/     the newest weights in Hugging Face layout
tensorboard/    the same numbers as curve.csv, where tensorboard is installed
"""

from __future__ import annotations

import csv
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vla_gen_bench.errors import UserError, shown
from vla_gen_bench.log.files import RUN_FILE
from vla_gen_bench.log.guard import check_held
from vla_gen_bench.log.trackers import WANDB_FILE, wandb_curve
from vla_gen_bench.policies.identity import checkpoint_digests
from vla_gen_bench.policies.openvla.checkpoint.config_file import CONFIG_FILE
from vla_gen_bench.policies.openvla.checkpoint.hub import find_checkpoint
from vla_gen_bench.policies.openvla.checkpoint.saving import check_finite
from vla_gen_bench.resources import CHECKPOINT
from vla_gen_bench.strict_yaml import read_yaml
from vla_gen_bench.train.guard import INFO_FILE
from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.recipe import HARMLESS, RECIPE_FILE, Recipe, save_recipe
from vla_gen_bench.train.student import checkpoint_of

CURVE_FILE, STATE_FILE, TENSORBOARD = "curve.csv", "state.pt", "tensorboard"
MADE_FOLDERS = (CHECKPOINT, "checkpoints", "videos", TENSORBOARD)
FOREIGN = {INFO_FILE: "demonstrations", RUN_FILE: "an evaluation's log"}


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that do not affect what is learned.

    Attributes:
        fresh: Remove an earlier run in the folder instead of resuming it.
        wandb: Weights & Biases project that also receives the log.
    """

    fresh: bool = False
    wandb: str | None = None


def open_run(folder: Path, recipe: Recipe, fresh: bool = False) -> dict[str, Any] | None:
    """Starts a run in `folder`, or returns the state of an interrupted one.

    Args:
        fresh: Remove an earlier run's files.

    Raises:
        UserError: The folder holds a run of another recipe or without one, or something else; or removing it is
            refused because the starting checkpoint does not exist, or is inside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RECIPE_FILE).is_file():
        _clear(folder, recipe) if fresh else _check_same(folder, recipe)
    else:
        _check_empty(folder)
    save_recipe(recipe, folder)
    state_file = folder / STATE_FILE
    if not state_file.is_file():
        return None
    try:
        return torch.load(state_file, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle can raise anything
        raise UserError(f"{state_file}: cannot be read ({error}); remove it or give --fresh") from None


def open_shared_run(folder: Path, recipe: Recipe, processes: Processes, fresh: bool) -> dict[str, Any] | None:
    """Lets the first process `open_run`; all of them receive the state."""
    return processes.shared(open_run(folder, recipe, fresh) if processes.first else None)


def check_data(summary: str, state: Mapping[str, Any] | None, processes: Processes) -> None:
    """Makes sure that all processes read the same data, and a resumed run the data that it began with.

    Args:
        summary: Identifies the data this process read; saved as "data" in the state. Older states have none.

    Raises:
        UserError: Something was collected into the folders meanwhile, or they were replaced.
    """
    first = processes.shared(summary)
    if summary != first:
        raise UserError(f"data: one process read {summary}, the first one {first}; start when nothing writes there")
    began = state.get("data") if state else None
    if began not in (None, summary):
        raise UserError(f"data: the run began with {began}, the folders hold {summary}; restore them or give --fresh")


def _clear(folder: Path, recipe: Recipe) -> None:
    """Removes a run: the state first, so half a run cannot resume; the recipe last, because it marks the folder."""
    if recipe.model.checkpoint is not None:
        start = find_checkpoint(checkpoint_of(recipe.model.checkpoint), recipe.model.revision)
        if start.is_relative_to(folder.resolve()):
            raise UserError(
                f"{folder}: --fresh would remove the checkpoint that the run is to begin with, {start}; "
                "choose another --out"
            )
    for name in (STATE_FILE, CURVE_FILE, WANDB_FILE):
        (folder / name).unlink(missing_ok=True)
    for name in MADE_FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / RECIPE_FILE).unlink()


def _check_empty(folder: Path) -> None:
    """Refuses a folder of something else, and what is left of a run without its recipe: it may be any run's."""
    for file, content in FOREIGN.items():
        if (folder / file).exists():
            raise UserError(f"{folder}: holds {content}, no training run; choose another --out")
    for name in (STATE_FILE, CURVE_FILE, *MADE_FOLDERS):
        if (folder / name).exists():
            raise UserError(
                f"{folder}: holds {name} but no {RECIPE_FILE}, so no run can resume there; choose another --out, or "
                f"restore the {RECIPE_FILE}"
            )


def begun(folder: Path) -> bool:
    """Whether a run folder holds anything that was trained."""
    if any((folder / name).exists() for name in (STATE_FILE, CHECKPOINT)):
        return True
    curve = folder / CURVE_FILE
    return curve.is_file() and len(curve.read_bytes().splitlines()) > 1


def _check_same(folder: Path, recipe: Recipe) -> None:
    """Refuses to resume with another recipe once training has started; a run that never started is discarded."""
    if not begun(folder):
        return
    earlier = read_yaml(folder / RECIPE_FILE)
    if not isinstance(earlier, dict):
        raise UserError(
            f"{folder / RECIPE_FILE}: is no recipe: {shown(earlier)}; restore it, choose another --out or give --fresh"
        )
    for key, value in recipe.model_dump(mode="json").items():
        if key not in HARMLESS and not _same(earlier.get(key), value):
            raise UserError(
                f"{folder}: holds a run whose recipe differs in '{key}'; choose another --out or give --fresh"
            )


def _same(before: Any, now: Any) -> bool:
    """Whether two values of a recipe are equal, or name the same folders or checkpoints, however they are written."""
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(_same(before[key], now[key]) for key in now)
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_same, before, now))
    if before == now or not (isinstance(before, str) and isinstance(now, str)):
        return before == now
    first, second = _folder(before), _folder(now)
    if first is None or second is None:
        return False
    return first.samefile(second) or _same_weights(first, second)


def _folder(name: str) -> Path | None:
    """Returns the folder that a text of a recipe names, or of a policy's checkpoint; None for any other text."""
    try:
        folder = Path(checkpoint_of(name)).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a NUL
        return None


def _same_weights(before: Path, now: Path) -> bool:
    """Whether two folders are copies of one checkpoint; demonstrations are compared by `check_data`."""
    if not all((folder / CONFIG_FILE).is_file() for folder in (before, now)):
        return False
    first, second = (sorted(checkpoint_digests(folder).values()) for folder in (before, now))
    return first == second


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Replaces the state to resume from; if the disk is full, the earlier one stays.

    Raises:
        UserError: It cannot be written, the folder was removed meanwhile, or a number in it is not finite, so resuming
            would be pointless.
    """
    check_held(folder)
    check_finite(dict(_tensors(state)), str(folder / STATE_FILE))
    draft = folder / f"{STATE_FILE}.tmp"
    try:
        torch.save(dict(state), draft)
        draft.replace(folder / STATE_FILE)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        draft.unlink(missing_ok=True)
        what = f"cannot be written ({error}); is there room? the earlier state is kept"
        raise UserError(f"{folder / STATE_FILE}: {what}") from None


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yields the tensors of nested dicts and lists with their names."""
    if isinstance(state, torch.Tensor):
        yield name, state
    elif isinstance(state, (Mapping, list, tuple)):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from _tensors(value, f"{name}.{key}".lstrip("."))


class Curve:
    """Logs numbers to curve.csv, and to TensorBoard and W&B if requested.

    A resumed run drops the rows after its saved state, so the file reads as if the run had not been interrupted.

    Args:
        folder: The run folder.
        columns: All columns; a row may leave some empty. The first one increases.
        resumed_at: Value of the first column from which the run resumes; None = a new run.
        wandb: Project to log to; needs wandb installed.
    """

    def __init__(
        self, folder: Path, columns: tuple[str, ...], resumed_at: float | None = None, wandb: str | None = None
    ) -> None:
        self.path, self.columns = folder / CURVE_FILE, columns
        kept = [] if resumed_at is None else self._rows_until(resumed_at)
        draft = self.path.with_suffix(".tmp")
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(kept)
        draft.replace(self.path)
        self.elapsed_before = max((_number(row.get("wall_s")) for row in kept), default=0.0)
        self._began = time.monotonic()
        self._sinks = [sink for sink in (_tensorboard(folder, resumed_at), _wandb(folder, wandb)) if sink]

    def _rows_until(self, last: float) -> list[dict[str, str]]:
        """Returns the rows up to `last`; leaves out damaged ones, and columns that an earlier version lacks empty."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(line for line in file if "\0" not in line)
            rows = [row for row in reader if None not in row and None not in row.values()]  # cut by a full disk
        kept = [row for row in rows if 0 <= _number(row.get(self.columns[0]), -1.0) <= last]
        return [{key: row.get(key, "") for key in self.columns} for row in kept]

    @property
    def wall_s(self) -> float:
        """Seconds of training so far, including those before a resume."""
        return self.elapsed_before + time.monotonic() - self._began

    def log(self, **numbers: float) -> None:
        """Appends a row; `wall_s` is filled in.

        Raises:
            KeyError: A column was not declared.
            UserError: The run folder was removed meanwhile.
        """
        unknown = set(numbers) - set(self.columns)
        if unknown:
            raise KeyError(f"undeclared columns {sorted(unknown)}")
        check_held(self.path.parent)
        row = {"wall_s": round(self.wall_s, 2), **numbers}
        text = {key: "" if value is None else f"{value:.6g}" for key, value in row.items()}
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="").writerow(text)
        for sink in self._sinks:
            sink(int(numbers[self.columns[0]]), row)


def _number(text: str | None, otherwise: float = 0.0) -> float:
    """Returns the number in a cell, `otherwise` if it holds none."""
    try:
        value = float(text or "")
    except ValueError:
        return otherwise
    return value if math.isfinite(value) else otherwise


def _tensorboard(folder: Path, resumed_at: float | None) -> Any:
    """Returns a function that logs a row; hides rows that an earlier session logged after the state, as in the file."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    purged = None if resumed_at is None else int(resumed_at) + 1
    writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=purged)

    def sink(step: int, row: Mapping[str, float]) -> None:
        for key, value in row.items():
            if value is not None:
                writer.add_scalar(key, value, step)
        writer.flush()

    return sink


def _wandb(folder: Path, project: str | None) -> Any:
    """Returns a function that logs a row to W&B; the run's config is the recipe."""
    return wandb_curve(folder, project, read_yaml(folder / RECIPE_FILE)) if project else None
