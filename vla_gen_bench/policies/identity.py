"""Digests of third-party code: an edited policy or effect must not continue the log of the old one.

The code of this package is excluded because every session of a log records its version and git state.
"""

from __future__ import annotations

import ast
import hashlib
import os
import site
import sysconfig
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from vla_gen_bench.policies.importing import find_spec

READ_BYTES = 1 << 22
OWN_PACKAGE = __name__.partition(".")[0]
EFFECTS = "vla_gen_bench.effects"
SOURCES = frozenset(".py .pyx .so .pyd .yaml .yml .json .toml .cfg .ini .txt".split())
PROSE = frozenset("readme.md readme.rst readme.txt license license.md license.txt changelog.md".split())
OUTPUTS = ("run.json", "episodes.jsonl", "pyvenv.cfg")  # a folder with one of these is a log or an environment


def file_digests(path: Path) -> dict[str, str]:
    """Returns relative name -> SHA-256 of a file, or of every file below a folder."""
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    return {file.relative_to(path.parent).as_posix(): _sha256(file) for file in files}


def card_files(folder: Path, checkpoint: Path | None) -> dict[str, str]:
    """Returns relative name -> SHA-256 of the files in a card's folder, except its checkpoint.

    Hidden files, prose, compiled Python, logs, virtual environments and `runs/` are excluded: they can change while
    the policy stays the same.
    """
    files = [file for file in _below(folder) if checkpoint is None or not file.is_relative_to(checkpoint)]
    return {file.relative_to(folder).as_posix(): _sha256(file) for file in files}


def code_digests(reference: str) -> dict[str, str]:
    """Returns name -> SHA-256 of the source behind `module:attr`, found without importing it.

    Covers the module, or its full top-level package, and all modules they import that are neither installed nor in the
    standard library, plus neighbouring files their text names, such as "weights.npz". Imports by a computed name at run
    time are not found.
    """
    found: dict[str, str] = {}
    waiting, seen = [reference.partition(":")[0].partition(".")[0]], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name == OWN_PACKAGE:
            continue
        seen.add(name)
        for file, label in _module_files(name, installed=len(seen) == 1):
            found[label] = _sha256(file)
            if file.suffix == ".py":
                imports, named = _mentions(file)
                waiting.extend(sorted(imports))
                found |= {f"{label}: {item}": _sha256(path) for item, path in named.items()}
    return found


def option_files(options: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Returns option -> digests of the file or folder it names, for options that name one."""
    paths = {key: Path(value) for key, value in options.items() if isinstance(value, str) and _exists(value)}
    return {key: file_digests(path) for key, path in paths.items()}


def effect_plugins(names: Iterable[str]) -> dict[str, str]:
    """Returns effect -> "distribution version" and a code digest, for effects from plugins."""
    points = {point.name: point for point in entry_points(group=EFFECTS)}
    return {name: _plugin(points[name]) for name in sorted(set(names) & set(points))}


def distribution(point: EntryPoint) -> str:
    """Returns "name version" of the distribution that installed an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"


def _plugin(point: EntryPoint) -> str:
    files = sorted(code_digests(point.value).items())
    return f"{distribution(point)} {hashlib.sha256(repr(files).encode()).hexdigest()[:16]}"


def _module_files(name: str, installed: bool) -> Iterator[tuple[Path, str]]:
    """Yields the source files of a top-level module with their labels.

    Args:
        installed: Include modules in folders of installed packages; otherwise those yield nothing.
    """
    spec = find_spec(name, None)
    if spec is None:
        return
    roots = [Path(place) for place in spec.submodule_search_locations or []]
    origin = Path(spec.origin) if spec.origin else None
    if not installed and any(_is_installed(place) for place in [*roots, *filter(None, [origin])]):
        return
    for root in roots:
        yield from ((file, f"{name}/{file.relative_to(root).as_posix()}") for file in _below(root, SOURCES))
    if not roots and origin is not None and origin.is_file():
        yield origin, origin.name


def _below(folder: Path, suffixes: frozenset[str] | None = None) -> Iterator[Path]:
    """Yields the files below a folder that make up a policy, sorted."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(name for name in folders if _is_part(here / name))
        for name in sorted(files):
            file = here / name
            hidden = name.startswith(".") or name.lower() in PROSE or file.suffix == ".pyc"
            if not hidden and (suffixes is None or file.suffix in suffixes) and file.is_file():
                yield file


def _is_part(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in ("__pycache__", "runs"):
        return False
    return not any((folder / name).exists() for name in OUTPUTS)


def _mentions(file: Path) -> tuple[set[str], dict[str, Path]]:
    """Returns a source file's top-level imports and the files it names, relative to it or to the working directory."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(), {}
    imports: set[str] = set()
    named: dict[str, Path] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imports.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _may_be_a_file(node.value):
            text = node.value
            places = [place for place in (file.parent / text, Path(text)) if place.is_file()]
            named.update((text, place) for place in places[:1])
    return imports, named


def _may_be_a_file(text: str) -> bool:
    return 0 < len(text) < 200 and text.isprintable() and bool(Path(text).suffix) and not text.startswith("/")


def _exists(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):
        return False


def _is_installed(path: Path) -> bool:
    """Whether a module's file or folder belongs to an installed distribution or the standard library."""
    place = path.resolve()
    elsewhere = {"site-packages", "dist-packages"} & set(place.parts)  # another environment on the path
    return bool(elsewhere) or any(place.is_relative_to(home) for home in _homes())


@lru_cache(maxsize=1)
def _homes() -> frozenset[Path]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return frozenset(Path(home).resolve() for home in [*site.getsitepackages(), site.getusersitepackages(), *paths])


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
