"""Installs other projects' packages, each set in its own environment, for `make test-ecosystem`.

    python tools/ecosystem.py [FOLDER] [NAME ...]

FOLDER is `.ecosystem` next to this checkout, or $VGB_ECOSYSTEM. A set that fails to install is reported with pip's
last line and skipped; the tests that need it skip too, with a message.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("VGB_ECOSYSTEM") or ROOT / ".ecosystem")


@dataclass(frozen=True)
class Environment:
    """One environment.

    Attributes:
        python: Supported versions, best first.
        packages: Passed to pip.
        alone: Installed without dependencies, because their pins conflict.
        probe: A module whose import shows that the set works.
    """

    python: tuple[str, ...]
    packages: tuple[str, ...]
    probe: str
    alone: tuple[str, ...] = ()


ENVIRONMENTS = {
    "openpi": Environment(
        ("3.11", "3.12", "3.13", "3.10"),
        ("numpy", "msgpack", "websockets", "typing_extensions", "pillow", "dm-tree"),
        "openpi_client.websocket_client_policy",
        ("openpi-client==0.1.2",),
    ),
    "vla_eval": Environment(("3.11", "3.12", "3.13", "3.10"), ("vla-eval==0.8.0",), "vla_eval.connection"),
    "inspect": Environment(
        ("3.11", "3.12", "3.13"), ("inspect-robots==0.60.0", "inspect-robots-widowx==0.1.0"), "inspect_robots_widowx"
    ),
    "lerobot": Environment(
        ("3.12", "3.13"), ("lerobot[dataset,training]==0.6.1", "websockets", "msgpack"), "lerobot.datasets"
    ),
}


def python_of(name: str, folder: Path = FOLDER) -> Path:
    """Returns the path of an environment's interpreter, which may not exist."""
    return folder / name / "bin" / "python"


def interpreter(versions: tuple[str, ...]) -> str | None:
    """Returns a Python of one of these versions: this one, or one on the PATH."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version in versions:
        found = sys.executable if version == here else shutil.which(f"python{version}")
        if found and subprocess.run([found, "-c", "import ensurepip"], capture_output=True).returncode == 0:
            return found
    return None


def install(name: str, folder: Path = FOLDER) -> str | None:
    """Creates an environment unless it works already; returns the reason for a failure, None on success."""
    wanted, python = ENVIRONMENTS[name], python_of(name, folder)
    if python.exists() and _run([python, "-c", f"import {wanted.probe}"]) is None:
        return None
    base = interpreter(wanted.python)
    if base is None:
        return f"needs Python {' or '.join(wanted.python)}"
    steps = [[base, "-m", "venv", "--clear", folder / name]]
    if wanted.alone:
        steps.append([python, "-m", "pip", "install", "--quiet", "--no-deps", *wanted.alone])
    steps += [[python, "-m", "pip", "install", "--quiet", *wanted.packages], [python, "-c", f"import {wanted.probe}"]]
    return next((problem for step in steps if (problem := _run(step)) is not None), None)


def _run(command: list) -> str | None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return None if done.returncode == 0 else (lines[-1] if lines else f"exit status {done.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=FOLDER, type=Path)
    parser.add_argument("names", nargs="*", metavar="name", help=f"out of {', '.join(ENVIRONMENTS)}; all by default")
    given = parser.parse_args()
    if unknown := set(given.names) - set(ENVIRONMENTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    folder = given.folder.resolve()
    for name in given.names or ENVIRONMENTS:
        print(f"{name}: installing", flush=True)
        problem = install(name, folder)
        print(f"{name}: {'ready' if problem is None else f'NOT INSTALLED, its tests will skip: {problem}'}", flush=True)


if __name__ == "__main__":
    main()
