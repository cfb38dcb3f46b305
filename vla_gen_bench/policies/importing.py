"""Where a policy's module is found, without importing anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def find_spec(name: str, path: list[str] | None) -> Any:
    """Returns the spec of a module, None without one.

    As `importlib.util.find_spec`, which would import the parent packages; this asks the finders alone.
    """
    if name in sys.modules:
        return sys.modules[name].__spec__
    specs = (finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for spec in specs if spec is not None), None)


def make_importable(folder: Path) -> None:
    """Appends `folder` to `sys.path`, for good: policies import lazily. Installed modules go first."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
