"""Shared by all tests: the process environment, a cache that outlives the session, a way to run `vgb`."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from vla_gen_bench import runtime

ROOT = Path(__file__).resolve().parents[1]

runtime.prepare()  # Before any test module imports numpy, torch or SAPIEN.


def _cache() -> Path:
    """Returns a folder that keeps the generated assets between sessions, as long as their code is unchanged."""
    package = ROOT / "vla_gen_bench"
    sources = sorted((*(package / "assets").rglob("*.[pj][ys]*"), *(package / "episodes").rglob("catalog*.[pj][ys]*")))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"vgb-test-cache-{os.getuid()}-{digest}"


os.environ.setdefault("VGB_CACHE", str(_cache()))


@pytest.fixture(autouse=True)
def own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forgets what a test imported from its folders: each has policies of the same names, as processes of users do."""
    before, base = set(sys.modules), str(tmp_path_factory.getbasetemp())
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(base):
            del sys.modules[name]


@dataclass(frozen=True)
class Ran:
    """What a command printed and how it ended."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """`cli("suites", "list")` runs `vgb suites list` inside this process: heavy imports are paid once a session."""

    def run(*arguments: object) -> Ran:
        from vla_gen_bench.cli import main

        monkeypatch.setattr(sys, "argv", ["vgb", *map(str, arguments)])
        stdout, stderr = io.StringIO(), io.StringIO()
        code: object = 0
        with redirect_stdout(stdout), redirect_stderr(stderr):
            try:
                main()
            except SystemExit as stop:
                code = stop.code
        if isinstance(code, str):
            return Ran(1, stdout.getvalue(), stderr.getvalue() + code)
        return Ran(int(code or 0), stdout.getvalue(), stderr.getvalue())

    return run


@pytest.fixture
def cli_process() -> Callable[..., Ran]:
    """As `cli`, in a process of its own; for signals, import times and the environment. Keywords go to `run`."""

    def run(*arguments: object, **keywords: object) -> Ran:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "vla_gen_bench", *map(str, arguments)]
        keywords = {"env": environment, "timeout": 300} | keywords
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **keywords)
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The reference data of the project (recordings, the paper's assets), which a clone does not carry."""
    folder = Path(os.environ.get("VGB_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"needs the shared reference data: {folder} is not there (set VGB_SHARED to its folder)")
    return folder


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Names the fix beside a failure for want of a Vulkan driver: rendering is required, never skipped."""
    report = (yield).get_result()
    if report.failed and "failed to find a rendering device" in str(report.longrepr):
        from vla_gen_bench.doctor.checks import VULKAN_FIX

        report.sections.append(("No working Vulkan driver", VULKAN_FIX))
