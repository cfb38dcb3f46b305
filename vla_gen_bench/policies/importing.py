"""Finds a policy's module without importing anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def find_spec(name: str, path: list[str] | None) -> Any:
    """Returns the spec of a module, None without one.

    Unlike `importlib.util.find_spec`, which imports the parent packages, this queries only the finders.
    """
    if name in sys.modules:
        return sys.modules[name].__spec__
    specs = (finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for spec in specs if spec is not None), None)


def make_importable(folder: Path) -> None:
    """Appends `folder` to `sys.path` permanently, because policies import lazily. Installed modules take precedence."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
