"""The state of each part, on disk: what it was made from, how it ended, and its checkpoint's digest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vla_gen_bench.data import read_json, replace_file
from vla_gen_bench.episodes.spec import Frozen, digest_of
from vla_gen_bench.eval.open_log import has_rows
from vla_gen_bench.log.files import RUN_FILE
from vla_gen_bench.policies.identity import checkpoint_digest
from vla_gen_bench.study.engines import PRINTED_FILE
from vla_gen_bench.study.inputs import changed
from vla_gen_bench.study.parts import Part
from vla_gen_bench.train.run import CHECKPOINT, begun

RECORD_FILE, OLD = "part.json", "old"
Ending = Literal["running", "done", "failed", "interrupted"]
State = Literal["done", "changed", "failed", "interrupted", "running", "waiting", "blocked"]


class Record(Frozen):
    """A part's state as stored.

    Attributes:
        inputs: `inputs.inputs_of` the part when it last started.
        command: Arguments of `vgb`, without secrets.
        seconds: Wall time of all its attempts.
        attempts: How often it was started.
        error: Why it failed, one line.
        checkpoint: Digest of the checkpoint that a finished training wrote.
        stamp: `stamp_of` it, which saves hashing gigabytes again.
        version: Of this package.
    """

    status: Ending
    inputs: dict[str, Any]
    command: tuple[str, ...]
    started: str
    seconds: float = 0.0
    attempts: int = 1
    error: str = ""
    checkpoint: str | None = None
    stamp: str | None = None
    version: str = ""


@dataclass(frozen=True)
class Standing:
    """Where a part stands now.

    Attributes:
        state: "waiting": it can run once the parts it needs are done; "blocked": one of these failed or changed.
        note: Why, one line.
    """

    state: State
    note: str = ""
    seconds: float = 0.0


def read_record(part: Part) -> Record | None:
    """Returns a part's record, None if it never started; raises `UserError` for a damaged one."""
    path = part.notes / RECORD_FILE
    return read_json(path, Record) if path.exists() else None


def write_record(part: Part, record: Record) -> None:
    """Replaces a part's record atomically."""
    part.notes.mkdir(parents=True, exist_ok=True)
    replace_file(part.notes / RECORD_FILE, json.dumps(record.model_dump(mode="json"), indent=1) + "\n")


def product(part: Part) -> dict[str, str]:
    """Returns the fields of a record that identify what a finished part wrote; none for an evaluation."""
    if part.recipe is None:
        return {}
    return {"checkpoint": checkpoint_digest(str(part.out / CHECKPOINT)) or "", "stamp": stamp_of(part.out / CHECKPOINT)}


def stamp_of(folder: Path) -> str:
    """Returns a digest of names, sizes and times of a folder's files: equal if nothing was written since."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return digest_of([[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files])


def _tampered(part: Part, record: Record) -> bool:
    """Whether a finished training's checkpoint is there, and not what it wrote."""
    place = part.out / CHECKPOINT
    if record.checkpoint is None or not place.is_dir() or stamp_of(place) == record.stamp:
        return False
    return checkpoint_digest(str(place)) != record.checkpoint


def has_output(part: Part) -> bool:
    """Whether a part has results on disk, complete or not."""
    return begun(part.out) if part.recipe else has_rows(part.out)


def complete(part: Part) -> bool:
    """Whether what a finished part wrote is still there."""
    return (part.out / CHECKPOINT).is_dir() if part.recipe else (part.out / RUN_FILE).is_file()


def standings(parts: Mapping[str, Part], live: bool = False) -> dict[str, Standing]:
    """Returns where each part stands; `parts` lists what a part waits for before it.

    Args:
        live: Whether a process works on the study now.
    """
    found: dict[str, Standing] = {}
    checkpoints: dict[str, str] = {}
    for name, part in parts.items():
        record = read_record(part)
        found[name] = standing(part, record, found, checkpoints, live)
        if record and record.checkpoint and found[name].state == "done":
            checkpoints[name] = record.checkpoint
    return found


def standing(
    part: Part,
    record: Record | None,
    others: Mapping[str, Standing],
    checkpoints: Mapping[str, str],
    live: bool = False,
) -> Standing:
    """Returns where one part stands, given those before it.

    Args:
        checkpoints: Digests of the checkpoints of finished trainings.
    """
    stuck = [name for name in part.after if others[name].state in ("failed", "changed", "blocked")]
    ready = all(name in checkpoints for name in part.after)
    seconds = record.seconds if record else 0.0
    if record and ready and has_output(part) and (what := changed(part, record.inputs, checkpoints)):
        return Standing("changed", what, seconds)
    if record and ready and record.status == "done" and _tampered(part, record):
        return Standing("changed", f"{CHECKPOINT}/ is not what the training wrote", seconds)
    if record and ready and record.status == "done" and complete(part):
        return Standing("done", "", seconds)
    if stuck:
        return Standing("blocked", f"needs {stuck[0]}", seconds)
    if record is None or record.status == "done":
        return Standing("waiting", "", seconds)
    if record.status == "running" and not live:
        return Standing("interrupted", "", seconds)
    return Standing(record.status, record.error, seconds)


def move_aside(parts: Iterable[Part], folder: Path) -> Path | None:
    """Moves the output and records of parts to a new folder below `old`; returns it, None if there were none."""
    there = [place for part in parts for place in (part.out, part.notes) if place.exists()]
    if not there:
        return None
    number = next(number for number in range(1, 1_000_000) if not (folder / OLD / str(number)).exists())
    target = folder / OLD / str(number)
    for place in there:
        new = target / place.relative_to(folder)
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(place, new)
    return target


def last_line(part: Part) -> str:
    """Returns the last line a part printed, "" if none."""
    path = part.notes / PRINTED_FILE
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
