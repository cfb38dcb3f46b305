"""Manifests: digests of every episode a suite draws in a world, kept in git to reveal any change in the draws."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from vla_gen_bench.data import read_json, replace_file
from vla_gen_bench.episodes.catalog import load_catalog
from vla_gen_bench.episodes.draw import draw
from vla_gen_bench.episodes.shift import Scenario
from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.episodes.suite import Suite
from vla_gen_bench.errors import UserError, one_line


def manifest_of(suite: Suite, world: str) -> dict[str, Any]:
    """Returns the manifest of `suite` in `world`.

    It holds the digests of the suite and of the catalogue and, per scenario and seed, one digest over the episodes'
    spec digests ("episodes") and the spec digest of index 0 ("first").
    """
    seeds, count = suite.protocol.seeds, suite.protocol.episodes_per_seed
    return {
        "suite": suite.id,
        "world": world,
        "suite_digest": suite.digest(),
        "catalog_digest": load_catalog(world).digest(),
        "episodes_per_seed": count,
        "scenarios": {
            scenario.id: {str(seed): dict(_digests(scenario, world, seed, count)) for seed in seeds}
            for scenario in suite.scenarios.values()
        },
    }


def _digests(scenario: Scenario, world: str, seed: int, count: int) -> dict[str, str]:
    return _digests_of(scenario.model_dump_json(), world, seed, count)


@lru_cache(maxsize=None)
def _digests_of(scenario: str, world: str, seed: int, count: int) -> dict[str, str]:
    """Keyed by content: a scenario that several suites include is drawn once."""
    row = Scenario.model_validate_json(scenario)
    specs = [draw(row, world, seed, index).digest() for index in range(count)]
    return {"episodes": digest_of(specs), "first": specs[0]}


def manifest_path(suite: Suite, world: str) -> Path:
    """Returns the manifest's path: in `manifests/` next to the suite's file."""
    if suite.path is None:
        raise UserError(f"suite '{suite.id}' was not read from a file and has no manifest")
    return suite.path.parent / "manifests" / f"{suite.id}-{world}.json"


def write_manifest(suite: Suite, world: str) -> Path:
    """Writes the manifest and returns its path."""
    path = manifest_path(suite, world)
    text = json.dumps(manifest_of(suite, world), indent=1) + "\n"
    try:
        path.parent.mkdir(exist_ok=True)
        replace_file(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error}") from None
    return path


def check_manifest(suite: Suite, world: str) -> None:
    """Raises `UserError` with the first difference between the stored manifest and the current draws."""
    path = manifest_path(suite, world)
    fix = f"run `vgb suites manifest {suite.id} --world {world} --write` if the change is meant"
    if not path.exists():
        raise UserError(f"{path.name}: no such manifest; {fix}")
    stored = read_json(path, dict[str, Any], shown=path.name)
    difference = _difference(stored, manifest_of(suite, world), "")
    if difference:
        raise UserError(f"{path.name}: {one_line(difference)}; {fix}")


def _difference(stored: Any, drawn: Any, path: str) -> str:
    """Returns one difference as a phrase, "" for none; scenarios come first because they explain most."""
    if not (isinstance(stored, dict) and isinstance(drawn, dict)):
        return "" if stored == drawn else f"{path}: stored {stored}, drawn now {drawn}"
    keys = sorted({**stored, **drawn}, key=lambda key: key != "scenarios")
    found = (_difference(stored.get(key), drawn.get(key), f"{path}.{key}".lstrip(".")) for key in keys)
    return next(filter(None, found), "")
