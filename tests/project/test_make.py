"""When `make setup` installs: its plan is read off `make --dry-run`, nothing runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The marks of an environment that is complete, newer than the files it was made from."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    (folder / ".extras-test").touch()
    return folder


def installs(environment: Path) -> bool:
    make = ["make", "--dry-run", "--no-print-directory", "-C", str(ROOT), "setup", f"VENV={environment}"]
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # of the make that runs the tests
    clean = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(make, capture_output=True, text=True, check=True, env=clean)
    return "pip install" in done.stdout


@pytest.mark.parametrize("served, again", [(str(ROOT), False), ("/somewhere/else", True), ("", True), (None, True)])
def test_an_environment_that_served_another_checkout_is_installed_anew(
    environment: Path, served: str | None, again: bool
) -> None:
    if served is not None:
        (environment / ".packages-installed").write_text(f"{served}\n")
    assert installs(environment) is again
