"""What the result of a part follows from: resolved recipe, arguments, digests. Equal inputs: the part is finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vla_gen_bench.doctor.backend import SIMULATIONS
from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.errors import shown
from vla_gen_bench.eval.evaluate import identity_of, simulator_identity
from vla_gen_bench.policies.digests import file_digests
from vla_gen_bench.policies.identity import checkpoint_digest
from vla_gen_bench.policies.registry import resolve
from vla_gen_bench.study.parts import SIMULATING, Part, data_of, local_start
from vla_gen_bench.train.demos.image_cache import CACHE, unstamped
from vla_gen_bench.train.guard import INFO_FILE
from vla_gen_bench.train.recipe import HARMLESS, Recipe, flat

DRAFT = ".tmp"
LATER = ("backend.", "effects.", "world.", "simulator.")  # keys that records of earlier versions may lack


def inputs_of(part: Part, checkpoints: Mapping[str, str]) -> dict[str, Any]:
    """Returns the inputs as plain data, {"recipe optimiser.lr": 0.001, "data": ...}.

    Args:
        checkpoints: Digests of the checkpoints of finished trainings; all that `part` waits for must be there.
    """
    start = next((checkpoints[name] for name in part.after), None)
    found = _of_evaluation(part, start) if part.recipe is None else _of_training(part.recipe, start, part.backend)
    return json.loads(json.dumps(found))  # as it is read again


def _of_training(recipe: Recipe, start: str | None, backend: str | None) -> dict[str, Any]:
    data = {key: value for key, value in recipe.canonical().items() if key not in HARMLESS}
    found = {f"recipe {key}": value for key, value in flat(data).items()}
    local = local_start(recipe)
    if start is not None:
        found["recipe model.checkpoint"] = None  # its path, which may move; the digest counts
    found |= {"start": start or (checkpoint_digest(str(local)) if local else None), "data": _data(recipe)}
    return found | (_of_simulation(recipe.world, backend) if recipe.trainer in SIMULATING else {})


def _of_simulation(world: str, backend: str | None) -> dict[str, Any]:
    where = {"backend": {"simulation": SIMULATIONS[backend]}} if backend else {}
    return flat({**simulator_identity(world), **where})


def _of_evaluation(part: Part, checkpoint: str | None) -> dict[str, Any]:
    request, suite = part.request, part.suite
    assert request is not None and suite is not None
    if checkpoint is not None:
        request = replace(request, checkpoint=None)  # the digest counts, not the path
    identity = identity_of(request, suite, resolve(request.policy), part.backend)
    if checkpoint is not None:
        identity["policy"]["checkpoint"] = checkpoint
    protocol = {
        "scenarios": [scenario.id for scenario in suite.select(request.scenarios)],
        "episodes": request.episodes or suite.protocol.episodes_per_seed,
        "seeds": list(request.seeds or suite.protocol.seeds),
    }
    return flat({**identity, **protocol})


def _data(recipe: Recipe) -> dict[str, str]:
    return {folder: data_digest(Path(folder)) if Path(folder).is_dir() else folder for folder in data_of(recipe)}


def data_digest(folder: Path, everything: bool = False) -> str:
    """Returns a digest of a data set: the content of its metadata, names and sizes of its other, large files.

    Args:
        everything: Count decoded images (FOLDER/cache) and drafts too, as earlier versions did. Training writes them.
    """
    meta = (folder / INFO_FILE).parent
    sizes = {
        unstamped(file.relative_to(folder).as_posix()): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.is_relative_to(meta) and (everything or not _is_derived(file, folder))
    }
    return digest_of([file_digests(meta) if meta.is_dir() else {}, sizes])


def _is_derived(file: Path, folder: Path) -> bool:
    return file.is_relative_to(folder / CACHE) or file.suffix == DRAFT


def changed(part: Part, before: Mapping[str, Any], checkpoints: Mapping[str, str]) -> str:
    """Returns the first difference between the inputs that a part's record holds and those of now, "" for none.

    Args:
        before: `Record.inputs`, perhaps written by an earlier version.
        checkpoints: As for `inputs_of`.
    """
    now = inputs_of(part, checkpoints)
    before = {**before, **_data_of_record(before, now)}
    unknown = {key for key in before.keys() ^ now.keys() if key.startswith(LATER)}
    return change(*({key: side[key] for key in side if key not in unknown} for side in (before, now)))


def _data_of_record(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {"data": ...} of a record as this version digests data; {} if the record has none."""
    if not isinstance(before.get("data"), dict) or before["data"] == now.get("data"):
        return {}
    present = now.get("data") or {}
    return {
        "data": {folder: _as_digested_now(folder, old, present.get(folder)) for folder, old in before["data"].items()}
    }


def _as_digested_now(folder: str, old: str, now: str | None) -> str:
    same = now is not None and Path(folder).is_dir() and old == data_digest(Path(folder), everything=True)
    return str(now) if same else old


def change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Returns the first difference between two inputs in words, "" for none."""
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            return f"{key} was {shown(before.get(key))}, now {shown(now.get(key))}"
    return ""
