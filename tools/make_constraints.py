"""Writes constraints.txt from the current environment: the dependencies of setup.cfg's requirements, pinned.

.venv/bin/python tools/make_constraints.py >constraints.txt
"""

from __future__ import annotations

from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
OLDEST = "3.10.20"
UNPINNED = {"setuptools", "pip"}  # part of every environment, not dependencies
HEADER = """\
# The versions this project is tested with, for `pip install --constraint constraints.txt`; `make setup` uses them, and
# setup.cfg has the wide ranges. Made by tools/make_constraints.py: the closure of the run-time and test requirements.
# torch: any build of the version fits; where pip offers a CPU build of it, that one is taken.
# A pin that has no build for Python 3.10 is left open there.
"""


def wanted() -> list[Requirement]:
    """Returns the run-time and test requirements of setup.cfg."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].split() + setup["options.extras_require"]["test"].split()
    return [Requirement(line) for line in lines]


def closure(requirements: list[Requirement]) -> dict[str, metadata.Distribution]:
    """Returns the installed distributions that `requirements` need, transitively, by normalised name."""
    todo, seen = list(requirements), {}
    while todo:
        requirement = todo.pop()
        for extra in requirement.extras | {""}:
            key = (canonicalize_name(requirement.name), extra)
            if key in seen:
                continue
            seen[key] = metadata.distribution(requirement.name)
            needs = map(Requirement, seen[key].requires or [])
            todo += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return {name: found for (name, _), found in seen.items()}


def pin(found: metadata.Distribution) -> str:
    """Returns `name==version` without a build label such as +cpu, with a marker for the Python versions it supports."""
    supported = SpecifierSet(found.metadata.get("Requires-Python") or "")
    marker = "" if OLDEST in supported else ' ; python_version >= "3.11"'
    return f"{found.metadata['Name']}=={found.version.split('+')[0]}{marker}"


if __name__ == "__main__":
    pins = [pin(found) for name, found in closure(wanted()).items() if name not in UNPINNED]
    print(HEADER + "\n".join(sorted(pins, key=str.lower)))
