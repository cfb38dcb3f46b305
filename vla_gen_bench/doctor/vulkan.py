"""Finds Vulkan drivers by the loader's rules, and environment variables that hide one.

Source: "Driver interface to the Vulkan loader" of Khronos' Vulkan-Loader (docs/LoaderDriverInterface.md).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

ONLY = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")  # the first that is set replaces all default folders
ADDED = "VK_ADD_DRIVER_FILES"
SELECT, DISABLE = "VK_LOADER_DRIVERS_SELECT", "VK_LOADER_DRIVERS_DISABLE"
DEVICE = "VK_LOADER_DEVICE_SELECT"
BELOW = Path("vulkan/icd.d")


@dataclass(frozen=True)
class Drivers:
    """What the loader considers.

    Attributes:
        found: Driver descriptions (ICD manifests) it would read.
        absent: (variable, name) of files and folders that a variable names but that are missing or empty.
        left_out: (variable, file) of drivers found but filtered out.
        variables: The loader's variables that are set.
    """

    found: tuple[Path, ...]
    absent: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, Path], ...]
    variables: tuple[str, ...]

    @property
    def blame(self) -> str:
        """The change to the environment that may fix rendering; "" if no variable is at fault."""
        if self.absent:
            variable, name = self.absent[0]
            return f"{variable} names {name}, where there is no driver description: unset {variable}"
        if not self.found and self.left_out:
            variable, file = self.left_out[0]
            return f"{variable} leaves out {file.name}: unset {variable}"
        chosen = [name for name in (*ONLY, DEVICE) if name in self.variables]
        return f"{chosen[0]} chooses what the loader may use: unset {chosen[0]}" if chosen else ""


def find_drivers(environment: Mapping[str, str] | None = None) -> Drivers:
    """Returns what the Vulkan loader would find with these variables; None = those of this process."""
    env = {name: value for name, value in (environment or os.environ).items() if value}
    only = next((name for name in ONLY if name in env), None)
    named = [only] if only else [ADDED] if ADDED in env else []
    found: list[Path] = []
    absent = []
    for variable in named:
        for name in env[variable].split(os.pathsep):
            files = _manifests(Path(name))
            found += files
            absent += [] if files or not name else [(variable, name)]
    if only is None:
        found += [file for folder in _folders(env) for file in _manifests(folder / BELOW)]
    found = list(dict.fromkeys(found))
    left_out = [(variable, file) for file in found if (variable := _filtered(file, env))]
    kept = tuple(file for file in found if not _filtered(file, env))
    variables = tuple(name for name in (*ONLY, ADDED, SELECT, DISABLE, DEVICE) if name in env)
    return Drivers(kept, tuple(absent), tuple(left_out), variables)


def _folders(env: Mapping[str, str]) -> list[Path]:
    """Returns the folders the loader searches, in its order."""
    home = Path(env.get("HOME") or Path.home())
    configs = [env.get("XDG_CONFIG_HOME") or str(home / ".config")]
    configs += (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep) + ["/usr/local/etc", "/etc"]
    shares = [env.get("XDG_DATA_HOME") or str(home / ".local/share")]
    shares += (env.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(os.pathsep)
    return [Path(folder) for folder in configs + shares if folder]


def _manifests(place: Path) -> list[Path]:
    """Returns the file itself, or the .json files of a folder."""
    try:
        if place.is_dir():
            return sorted(file for file in place.glob("*.json") if file.is_file())
        return [place] if place.is_file() else []
    except OSError:
        return []


def _filtered(file: Path, env: Mapping[str, str]) -> str:
    """Returns the variable that filters out `file`, or ""; patterns ignore case."""
    select = _patterns(env.get(SELECT, ""))
    if select:  # what is selected is not disabled
        return "" if _matches(file, select) else SELECT
    return DISABLE if _matches(file, _patterns(env.get(DISABLE, ""))) else ""


def _patterns(text: str) -> list[str]:
    return [part.strip().lower() for part in text.split(",") if part.strip()]


def _matches(file: Path, patterns: list[str]) -> bool:
    return any(pattern == "~all~" or fnmatchcase(file.name.lower(), pattern) for pattern in patterns)
