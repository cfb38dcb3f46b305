"""Where the modules of a policy are found: its card's folder, what is installed, the working directory."""

from __future__ import annotations

import site
import sys
import sysconfig
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any


class _CardFolder:
    """Finds top-level modules in a card's folder before all others that are not installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if path is not None or "." in name:
            return None
        found = PathFinder.find_spec(name, [str(self.folder)])
        return None if found is None or found.loader is None or _has_installed(name) else found


_finder: _CardFolder | None = None
_added: list[str] = []  # entries of sys.path made by `look_in`
_left: set[str] = set()  # earlier ones


def look_in(folder: Path | None) -> None:
    """Makes the modules of a card's folder importable, and those of the working directory, as policies import lazily.

    Installed modules come first, then the card's folder, then the entries of `sys.path`, the working directory last.
    The folders of the policy before are no longer searched.

    Args:
        folder: The card's; None for a policy without one.
    """
    global _finder
    if _finder is not None:
        sys.meta_path.remove(_finder)
    _finder = None if folder is None else _CardFolder(folder)
    if _finder is not None:
        sys.meta_path.insert(0, _finder)
    wanted = [str(place) for place in (folder, Path.cwd()) if place is not None]
    for place in [place for place in _added if place not in wanted]:
        _added.remove(place)
        _left.add(place)
        if place in sys.path:
            sys.path.remove(place)
    for place in wanted:
        _left.discard(place)
        if place not in sys.path:  # there too, for processes that a policy starts
            sys.path.append(place)
            _added.append(place)


def find_spec(name: str, path: list[str] | None) -> Any:
    """Returns the spec of a module, None without one.

    Unlike `importlib.util.find_spec`, which imports the parent packages, this queries only the finders.
    """
    own = None if _finder is None else _finder.find_spec(name, path)
    if own is not None:
        return own
    if name in sys.modules:
        return sys.modules[name].__spec__
    specs = (finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for spec in specs if spec is not None), None)


def imported_from_elsewhere(name: str) -> str | None:
    """Returns the file of an imported top-level module if another policy's, of the same name, was imported before."""
    found, module = find_spec(name, None), sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None or found is None:
        return None
    stale = any(Path(file).parent in (Path(place), Path(place, name)) for place in _left)
    return file if stale or (found.origin is not None and not _same(found.origin, file)) else None


def _same(first: str, second: str) -> bool:
    return Path(first).resolve() == Path(second).resolve()


def _has_installed(name: str) -> bool:
    if name in sys.builtin_module_names or name in sys.stdlib_module_names:
        return True
    found = PathFinder.find_spec(name, [place for place in sys.path if place and is_installed(Path(place))])
    return found is not None and found.loader is not None


def is_installed(path: Path) -> bool:
    """Whether a module's file or folder belongs to an installed distribution or the standard library."""
    place = path.resolve()
    elsewhere = {"site-packages", "dist-packages"} & set(place.parts)  # another environment on the path
    return bool(elsewhere) or any(place.is_relative_to(home) for home in _homes())


@lru_cache(maxsize=1)
def _homes() -> frozenset[Path]:
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return frozenset(Path(home).resolve() for home in [*site.getsitepackages(), site.getusersitepackages(), *paths])
