"""Finds suites, in this order: by path, in `$VGB_SUITE_PATH`, built-in, in plug-in packages."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.resources import data_dir

GROUP = "vla_gen_bench.suites"
ENDINGS = (".yaml", ".yml")


class Found(NamedTuple):
    """A suite file and its name in messages."""

    path: Path
    shown: str


def find_suite(name_or_path: str) -> Found:
    """Returns the file of a suite, given by name or path.

    Raises:
        UserError: unknown name (with a suggestion), or the plug-in of that name is broken.
    """
    path = Path(name_or_path).expanduser()
    if name_or_path.endswith(ENDINGS) or path.is_file():
        return Found(path, name_or_path)
    known = folder_suites()
    if name_or_path in known:  # avoids importing plug-ins
        return known[name_or_path]
    plugged, broken = plugin_suites()
    if name_or_path in plugged:
        return plugged[name_or_path]
    if name_or_path in broken:
        raise UserError(broken[name_or_path])
    notes = "".join(f"\n  not searched: {message}" for message in [*_missing_folders(), *broken.values()])
    raise UserError(f"unknown suite '{name_or_path}'{suggest(name_or_path, [*known, *plugged])}{notes}")


def folder_suites() -> dict[str, Found]:
    """Returns the suites in the folders of `$VGB_SUITE_PATH`, then the built-in ones; the first of each name wins."""
    known: dict[str, Found] = {}
    for folder in _own_folders():
        _add_folder(known, Path(folder).expanduser(), folder)
    _add_folder(known, data_dir() / "suites", "suites")
    return known


def plugin_suites() -> tuple[dict[str, Found], dict[str, str]]:
    """Returns the suites of installed packages, and a message for each plug-in that fails to load."""
    known: dict[str, Found] = {}
    broken: dict[str, str] = {}
    for entry in entry_points(group=GROUP):
        try:
            _add_plugin(known, entry)
        except Exception as error:  # a plug-in may raise anything, and must not break other suites
            broken[entry.name] = f"suite plug-in '{entry.name}' ({_origin(entry)}): {type(error).__name__}: {error}"
    return known, broken


def _own_folders() -> list[str]:
    return [folder for folder in os.environ.get("VGB_SUITE_PATH", "").split(os.pathsep) if folder]


def _missing_folders() -> list[str]:
    return [f"$VGB_SUITE_PATH: no folder {name}" for name in _own_folders() if not Path(name).expanduser().is_dir()]


def _add_folder(known: dict[str, Found], folder: Path, shown: str) -> None:
    """Adds the YAML files of `folder` under their names; a suite found earlier keeps its name."""
    for file in sorted(folder.glob("*.y*ml")):
        if file.suffix in ENDINGS:
            known.setdefault(file.stem, Found(file, f"{shown}/{file.name}"))


def _add_plugin(known: dict[str, Found], entry: EntryPoint) -> None:
    """The entry point names a package of YAML files, or an attribute that holds the path of a file or folder."""
    value = entry.load()
    path = Path(str(files(value) if isinstance(value, ModuleType) else value))
    if path.is_dir():
        return _add_folder(known, path, f"{_origin(entry)}:{path.name}")
    if not path.is_file():
        raise FileNotFoundError(f"{entry.value} gives {path}, which does not exist")
    known.setdefault(entry.name, Found(path, f"{_origin(entry)}:{path.name}"))


def _origin(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
