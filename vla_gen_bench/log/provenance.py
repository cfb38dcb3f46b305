"""The provenance that a log records: versions, git state, hardware, backends."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import vla_gen_bench
from vla_gen_bench import runtime

PACKAGES = ("mani_skill", "sapien", "torch", "numpy", "gymnasium", "opencv-python")
SECRET = re.compile(r"(?i)(.*_)?(api_?key|password|secret|(hf|api|auth|access)_token)|token")  # not `pad_token`
HIDDEN = "(hidden)"
DECISIVE = ("mani_skill", "sapien")  # a different version may change every trajectory


def versions() -> dict[str, str | None]:
    """Returns the versions of this package, Python and the packages that determine the simulation."""
    found: dict[str, str | None] = {"vla-gen-bench": vla_gen_bench.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def git_state() -> dict[str, Any] | None:
    """Returns {"commit", "dirty"} of the checkout that contains this package, None outside one."""
    folder = Path(vla_gen_bench.__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def hardware() -> dict[str, Any]:
    """Returns CPU model, cores available to this process, memory in GiB and platform."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": _cpu_model(),
        "cores": runtime.usable_cores(),
        "memory_gib": round(pages / 2**30, 1),
        "platform": platform.platform(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a policy's options for a log, which is passed on to others: keys and passwords are hidden."""
    return {name: HIDDEN if SECRET.fullmatch(name) else value for name, value in options.items()}


def _shown(argument: str) -> str:
    """Hides the value of a secret in `KEY=VALUE`, as `--policy-option` takes it."""
    head, equals, rest = argument.partition("=")
    if head.startswith("--") and equals:
        return f"{head}={_shown(rest)}"
    return f"{head}={HIDDEN}" if equals and SECRET.fullmatch(head) else argument


def session(command: list[str] | None = None) -> dict[str, Any]:
    """Returns an entry of the header's `sessions`, which describe who wrote rows into the log."""
    return {
        "command": command if command is not None else ["vgb", *map(_shown, sys.argv[1:])],
        "versions": versions(),
        "git": git_state(),
        "hardware": hardware(),
    }
