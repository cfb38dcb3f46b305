"""`vgb doctor`: reports what this machine can run, one line per check, with a fix for each problem.

Checks that may crash (a Vulkan driver, CUDA) run in a child process with a time limit: see `probe.py`.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from vla_gen_bench import runtime
from vla_gen_bench.doctor.vulkan import Drivers, find_drivers

Status = Literal["ok", "warn", "FAIL"]

PROBE_LIMIT_S = 90.0
WHY_NOT_NEWER = "mani_skill needs mplib 0.1.1, which has no build for a newer one"
# Packages that provide one module under several names: any of them is enough.
ALTERNATIVES = {
    "opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
}
LOW_DISK_GB = 2.0
LOW_MEMORY_GB = 2.0
# Needed by OpenCV (a dependency of ManiSkill) and SAPIEN, absent from minimal systems.
SYSTEM_LIBRARIES = ("libGL.so.1", "libgthread-2.0.so.0", "libX11.so.6")

VULKAN_FIX = (
    "install a Vulkan driver: Debian 12 as root: `sh tools/install-vulkan.sh` in the repository (Mesa from "
    "bookworm-backports); Debian 13, Ubuntu 24.04 or newer: `apt-get install mesa-vulkan-drivers libvulkan1`; "
    "Fedora: `dnf install mesa-vulkan-drivers vulkan-loader`; NVIDIA: the vendor driver with its Vulkan ICD; "
    "Mesa must be 24 or newer"
)
LIBRARIES_FIX = (
    "Debian, Ubuntu: `apt-get install libgl1 libglib2.0-0 libx11-6`; Fedora: `dnf install libglvnd-glx glib2 libX11`"
)


@dataclass(frozen=True)
class Check:
    """One line of the report. `fix` is empty exactly when `status` is "ok"."""

    name: str
    status: Status
    detail: str
    fix: str = ""


def run_checks() -> list[Check]:
    """Runs every check; one that raises becomes a FAIL line with its exception."""
    groups: tuple[Callable[[], Iterator[Check]], ...] = (
        check_python,
        check_packages,
        check_rendering,
        check_gpu_simulation,
        check_machine,
        check_disk,
        check_packs,
    )
    return [line for group in groups for line in _guarded(group)]


def exit_code(checks: list[Check]) -> int:
    """Returns 2 if a check failed, else 0: warnings do not count."""
    return 2 if any(check.status == "FAIL" for check in checks) else 0


def as_json(checks: list[Check]) -> str:
    return json.dumps({"ok": exit_code(checks) == 0, "checks": [asdict(check) for check in checks]}, indent=1)


def _guarded(group: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(group())
    except Exception as error:  # A crashing check is a finding too and must not stop the report.
        name = group.__name__.removeprefix("check_").replace("_", " ")
        return [Check(name, "FAIL", f"the check raised {type(error).__name__}: {error}", "report this as a bug")]


# ---- Python and packages -----------------------------------------------------------------------------------


def check_python() -> Iterator[Check]:
    detail = f"{platform.python_version()} ({sys.executable})"
    if (3, 10) <= sys.version_info < (3, 13):  # noqa: UP036  - the only place that reports it
        yield Check("python", "ok", detail)
    else:
        yield Check(
            "python", "FAIL", detail, f"use Python 3.10 to 3.12 ({WHY_NOT_NEWER}): make setup PYTHON=python3.12"
        )


def requirements() -> list[str]:
    """Returns the run-time requirements: from setup.cfg in a checkout, else from the installed package."""
    setup = Path(__file__).resolve().parents[2] / "setup.cfg"
    if setup.is_file():
        parser = ConfigParser()
        parser.read(setup)
        return parser["options"]["install_requires"].split()
    return [line for line in metadata.requires("vla-gen-bench") or [] if "extra ==" not in line]


def check_packages() -> Iterator[Check]:
    from packaging.requirements import Requirement

    for requirement in map(Requirement, requirements()):
        name, fix = requirement.name, f"pip install '{requirement}'"
        builds = {build: _version(build) for build in (name, *ALTERNATIVES.get(name, ()))}
        there = {build: version for build, version in builds.items() if version}
        if not there:
            yield Check(name, "FAIL", f"not installed, needs {requirement.specifier}", fix)
            continue
        fits = [build for build in there if requirement.specifier.contains(there[build], prereleases=True)]
        build = (fits or list(there))[0]
        detail = f"{there[build]} (needs {requirement.specifier})" + (f", as {build}" if build != name else "")
        yield Check(name, "ok" if fits else "FAIL", detail, "" if fits else fix)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


# ---- Rendering ---------------------------------------------------------------------------------------------


def missing_libraries() -> list[str]:
    """Returns those of `SYSTEM_LIBRARIES` that the dynamic loader cannot load."""
    return [name for name in SYSTEM_LIBRARIES if not _loads(name)]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def check_rendering() -> Iterator[Check]:
    """Renders a test image, then checks what rendering depends on. If the image rendered, none of those can FAIL."""
    result = run_probe("render")
    drawn = "error" not in result
    missing = missing_libraries()
    if missing:
        yield Check("system libraries", "warn" if drawn else "FAIL", f"not found: {', '.join(missing)}", LIBRARIES_FIX)
    else:
        yield Check("system libraries", "ok", ", ".join(SYSTEM_LIBRARIES))
    if _loads("libvulkan.so.1"):
        yield Check("Vulkan loader", "ok", "libvulkan.so.1")
    else:
        # Not fatal: SAPIEN ships its own loader.
        yield Check("Vulkan loader", "warn", "libvulkan.so.1 not found; SAPIEN uses its bundled one", VULKAN_FIX)
    drivers = find_drivers()
    yield _drivers(drivers, drawn)
    yield _rendering(result, drivers)


def _drivers(drivers: Drivers, drawn: bool) -> Check:
    names = ", ".join(path.name for path in drivers.found) or "no driver description (ICD) found"
    chosen = f" ({', '.join(drivers.variables)} set)" if drivers.variables else ""
    if drivers.found and not drivers.absent:
        return Check("Vulkan drivers", "ok", names + chosen)
    return Check("Vulkan drivers", "warn" if drawn else "FAIL", names + chosen, drivers.blame or VULKAN_FIX)


def _rendering(result: dict[str, Any], drivers: Drivers) -> Check:
    if "error" in result:
        fix = f"{drivers.blame}; if that does not help: {VULKAN_FIX}" if drivers.blame else VULKAN_FIX
        return Check("rendering", "FAIL", result["error"], fix)
    detail = "{device}: a frame in {frame_ms:.1f} ms, the first in {first_frame_ms:.0f} ms".format(**result)
    return Check("rendering", "ok", detail)


def check_gpu_simulation() -> Iterator[Check]:
    """A machine without a GPU is fine: simulation then runs on its CPU cores."""
    result = run_probe("gpu")
    if result.get("devices") == 0:
        yield Check("GPU simulation", "ok", "no CUDA device: simulation runs on the CPU")
    elif "error" in result:
        fix = result.get("fix", "use the CPU (the default), or fix the CUDA driver")
        yield Check("GPU simulation", "warn", result["error"], fix)
    else:
        yield Check("GPU simulation", "ok", f"physx_cuda on {result['name']}, torch {result['torch']}")


def run_probe(what: str, limit_s: float = PROBE_LIMIT_S) -> dict[str, Any]:
    """Runs `python -m vla_gen_bench.doctor.probe <what>` and returns its answer.

    Returns:
        The probe's JSON output, or `{"error": ...}` if it failed, died by a signal, or took longer than `limit_s`.
    """
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])  # Also works in a checkout that is not installed.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "vla_gen_bench.doctor.probe", what]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {limit_s:.0f} s"}
    if done.returncode < 0:
        return {"error": f"the driver crashed: killed by {signal.Signals(-done.returncode).name}"}
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        return {"error": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}


# ---- Machine, disk, packs ----------------------------------------------------------------------------------


def check_machine() -> Iterator[Check]:
    cores = runtime.usable_cores()
    yield Check("CPU", "ok", f"{cores} cores usable, {platform.machine()}")
    total, free = memory_gb()
    detail = f"{free:.1f} GB free of {total:.1f} GB"
    if free < LOW_MEMORY_GB:
        yield Check("memory", "warn", detail, "close other programs or use --workers 1: a worker takes about 1 GB")
    else:
        yield Check("memory", "ok", detail)


def memory_gb() -> tuple[float, float]:
    """Returns total and available memory in GB (10^9 bytes), from /proc/meminfo."""
    lines = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
    return int(lines["MemTotal"]) * 1024 / 1e9, int(lines["MemAvailable"]) * 1024 / 1e9


def check_disk() -> Iterator[Check]:
    from vla_gen_bench.assets.folders import cache_dir
    from vla_gen_bench.assets.pack import pack_status

    cache = cache_dir()
    nearest = next(folder for folder in (cache, *cache.parents) if _is_there(folder))
    free = shutil.disk_usage(nearest).free / 1e9
    detail = f"{cache}: {free:.1f} GB free"
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        if pack_status("builtin").state == "ready":
            detail = f"{cache} is read-only: its packs can be used, nothing can be added to it"
            yield Check("cache", "warn", detail, "set VGB_CACHE to a folder you can write to if it must grow")
            return
        yield Check(
            "cache", "FAIL", f"{nearest} is not a writable folder", "set VGB_CACHE to a folder you can write to"
        )
    elif free < LOW_DISK_GB:
        yield Check("cache", "warn", detail, "free some space, or set VGB_CACHE to a folder on another disk")
    else:
        yield Check("cache", "ok", detail)


def _is_there(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:  # below a folder of another user
        return False


def check_packs() -> Iterator[Check]:
    fix = "`vgb assets fetch builtin`, or unset VGB_BUILTIN_DIR"
    yield _pack("builtin", fine=("ready", "absent"), bad="FAIL", fix=fix)
    fix = "needed for `--world rl4vla` only: `vgb assets fetch rl4vla`, or set VGB_RL4VLA_DIR to a folder that holds it"
    yield _pack("rl4vla", fine=("ready",), bad="warn", fix=fix)


def _pack(world: str, fine: tuple[str, ...], bad: Status, fix: str) -> Check:
    """Returns the check of one asset pack: ok in the states `fine`, else `bad`."""
    from vla_gen_bench.assets.pack import pack_status

    name = f"pack {world}"
    try:
        pack = pack_status(world)
    except Exception as error:  # the manifest is unreadable
        return Check(name, bad, f"{type(error).__name__}: {error}", fix)
    if pack.state in fine:
        return Check(name, "ok", f"{pack.root}: {pack.detail}")
    return Check(name, bad, f"{pack.state}: {pack.root}: {pack.detail}", fix)
