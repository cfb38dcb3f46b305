"""`vgb doctor`: every line is right about this machine, and every line that is not ok names its fix."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from vla_gen_bench.assets.pack import PackStatus
from vla_gen_bench.doctor import checks as doctor
from vla_gen_bench.doctor import probe
from vla_gen_bench.doctor.checks import Check
from vla_gen_bench.doctor.vulkan import find_drivers


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_doctor_passes_here_and_names_the_device(cli) -> None:
    ran = cli("doctor", "--json")
    report = json.loads(ran.stdout)
    assert ran.exit_code == 0 and report["ok"], ran.stdout
    lines = {line["name"]: line for line in report["checks"]}
    assert {"python", "torch", "Vulkan loader", "rendering", "GPU simulation", "memory", "cache"} <= lines.keys()
    assert "ms" in lines["rendering"]["detail"]
    assert all(line["fix"] for line in report["checks"] if line["status"] != "ok")


def test_text_shows_each_fix_and_a_failure_exits_with_2(cli, monkeypatch) -> None:
    checks = [Check("disk", "ok", "fine"), Check("driver", "FAIL", "broken", "fix it")]
    monkeypatch.setattr(doctor, "run_checks", lambda: checks)
    ran = cli("doctor")
    assert ran.exit_code == 2
    assert ran.stdout.splitlines() == ["ok    disk    fine", "FAIL  driver  broken", "              fix: fix it"]


def test_a_warning_alone_exits_with_0() -> None:
    assert doctor.exit_code([Check("a", "warn", "b", "c")]) == 0


DRAWN = {"device": "llvmpipe", "frame_ms": 1.0, "first_frame_ms": 2.0}
LOADER = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES", "VK_LOADER_DRIVERS_SELECT")
LOADER += ("VK_LOADER_DRIVERS_DISABLE", "VK_LOADER_DEVICE_SELECT", "XDG_DATA_DIRS", "XDG_CONFIG_DIRS")


@pytest.fixture
def loader(monkeypatch):
    """Sets variables of the Vulkan loader, and no others of them."""

    def put(**variables: object) -> None:
        for name in LOADER:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return put


@pytest.fixture
def icds(tmp_path: Path) -> Path:
    """A folder of two driver descriptions, as XDG_DATA_DIRS would name it."""
    for name in ("lvp_icd.json", "nvidia_icd.json"):
        path = tmp_path / "vulkan/icd.d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return tmp_path


def test_a_variable_that_names_no_driver_is_to_be_unset(loader) -> None:
    loader(VK_ICD_FILENAMES="/nonexistent/nvidia_icd.json")
    lines = by_name(list(doctor.check_rendering()))
    assert lines["rendering"].status == "FAIL" and "rendering device" in lines["rendering"].detail
    for name in ("Vulkan drivers", "rendering"):
        assert lines[name].status == "FAIL"
        assert lines[name].fix.startswith(
            "VK_ICD_FILENAMES names /nonexistent/nvidia_icd.json, where there is no driver"
        )
        assert "unset VK_ICD_FILENAMES" in lines[name].fix
    assert "install-vulkan.sh" in lines["rendering"].fix


def test_drivers_are_found_where_the_loader_looks(loader, icds: Path) -> None:
    both = tuple(sorted((icds / "vulkan/icd.d").iterdir()))
    loader(VK_DRIVER_FILES=icds / "vulkan/icd.d", VK_ICD_FILENAMES="/nonexistent.json")
    assert find_drivers().found == both
    loader(VK_DRIVER_FILES=f"{both[0]}:/nonexistent.json")
    assert find_drivers().found == both[:1] and find_drivers().absent == (("VK_DRIVER_FILES", "/nonexistent.json"),)
    for name in ("XDG_DATA_DIRS", "XDG_CONFIG_DIRS"):
        loader(**{name: f"/nonexistent:{icds}"})
        assert set(both) <= set(find_drivers().found)
    loader(VK_ADD_DRIVER_FILES=both[1])
    assert find_drivers().found[0] == both[1]
    loader(VK_ADD_DRIVER_FILES=both[1], VK_DRIVER_FILES=both[0])
    assert find_drivers().found == both[:1]


def test_filters_of_the_loader_are_understood_and_blamed(loader, icds: Path) -> None:
    lavapipe, nvidia = sorted((icds / "vulkan/icd.d").iterdir())
    loader(VK_DRIVER_FILES=icds / "vulkan/icd.d", VK_LOADER_DRIVERS_SELECT="LVP*, intel*")
    assert find_drivers().found == (lavapipe,)
    loader(VK_DRIVER_FILES=icds / "vulkan/icd.d", VK_LOADER_DRIVERS_DISABLE="*lvp*")
    assert find_drivers().found == (nvidia,)
    loader(VK_DRIVER_FILES=lavapipe, VK_LOADER_DRIVERS_DISABLE="*")
    assert find_drivers().found == () and find_drivers().blame.endswith("unset VK_LOADER_DRIVERS_DISABLE")
    loader(VK_DRIVER_FILES=lavapipe, VK_LOADER_DEVICE_SELECT="0x10de:0x1")
    assert "unset VK_DRIVER_FILES" in find_drivers().blame


def test_nothing_fails_where_an_image_was_drawn(loader, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "run_probe", lambda what: DRAWN)
    monkeypatch.setattr(doctor, "SYSTEM_LIBRARIES", ("libnothing.so.9",))
    loader(VK_DRIVER_FILES="/nonexistent.json")
    lines = list(doctor.check_rendering())
    assert "FAIL" not in {line.status for line in lines}
    assert all(line.fix for line in lines if line.status == "warn")


def test_any_build_of_opencv_will_do(monkeypatch) -> None:
    there = {"opencv-python-headless": "4.9.0"}
    monkeypatch.setattr(doctor, "_version", there.get)
    monkeypatch.setattr(doctor, "requirements", lambda: ["opencv-python>=4.8"])
    (line,) = doctor.check_packages()
    assert line == Check("opencv-python", "ok", "4.9.0 (needs >=4.8), as opencv-python-headless")
    there["opencv-python-headless"] = "4.7"
    assert next(doctor.check_packages()).status == "FAIL"


@pytest.mark.parametrize(("version", "status"), [((3, 9), "FAIL"), ((3, 10), "ok"), ((3, 12), "ok"), ((3, 13), "FAIL")])
def test_pythons_without_a_build_of_mplib_are_refused(monkeypatch, version, status) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", version)
    (line,) = doctor.check_python()
    assert line.status == status and ("3.10 to 3.12" in line.fix) == (status == "FAIL")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
        ("raise SystemExit('no such device')", "no such device"),
        ("raise SystemExit(3)", "exit status 3"),
        ("print('not json')", "exit status 0"),
    ],
)
def test_a_probe_that_crashes_or_hangs_is_a_finding(monkeypatch, tmp_path: Path, body: str, expected: str) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\n{body}\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    assert expected in doctor.run_probe("render", limit_s=1)["error"]


def test_a_package_outside_its_range_or_absent_fails_with_the_pip_command(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "requirements", lambda: ["numpy>=999", "no-such-package>=1", "click"])
    old, absent, good = doctor.check_packages()
    assert (old.status, old.fix) == ("FAIL", "pip install 'numpy>=999'")
    assert (absent.status, absent.detail) == ("FAIL", "not installed, needs >=1")
    assert (good.status, good.fix) == ("ok", "")


def test_missing_system_libraries_are_named(monkeypatch) -> None:
    monkeypatch.setattr(doctor, "SYSTEM_LIBRARIES", ("libc.so.6", "libnothing.so.9"))
    monkeypatch.setattr(doctor, "run_probe", lambda what: {"error": "libnothing"})
    line = next(doctor.check_rendering())
    assert line.status == "FAIL" and line.detail == "not found: libnothing.so.9"
    assert probe._explained(ImportError("libnothing")) == "system libraries not found: libnothing.so.9"
    assert probe._explained(ValueError("x")) == "ValueError: x"


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ({"devices": 0}, "ok", "runs on the CPU"),
        ({"devices": 1, "error": "torch cannot", "fix": "install another"}, "warn", "torch cannot"),
        ({"error": "the driver crashed"}, "warn", "crashed"),
        ({"devices": 1, "name": "H100", "torch": "2.13"}, "ok", "physx_cuda on H100"),
    ],
)
def test_gpu_simulation_is_never_required(monkeypatch, answer: dict, status: str, words: str) -> None:
    monkeypatch.setattr(doctor, "run_probe", lambda what: answer)
    (line,) = doctor.check_gpu_simulation()
    assert line.status == status and words in line.detail and bool(line.fix) == (status != "ok")


def test_the_gpu_probe_downloads_nothing_without_a_device(monkeypatch) -> None:
    monkeypatch.setattr(probe, "cuda_devices", lambda: 0)
    assert probe.gpu() == {"devices": 0}


def test_an_unwritable_cache_fails(monkeypatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("VGB_CACHE", str(file / "cache"))
    (line,) = doctor.check_disk()
    assert line.status == "FAIL" and "VGB_CACHE" in line.fix


def test_a_cache_below_a_folder_of_another_user_fails_with_its_fix(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VGB_CACHE", str(tmp_path / "theirs/cache"))
    exists = Path.exists

    def refuse(path: Path) -> bool:
        if "theirs" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", refuse)
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    monkeypatch.setattr(
        "vla_gen_bench.assets.pack.pack_status", lambda world: PackStatus(world, "absent", Path("/p"), "why")
    )
    (line,) = doctor.check_disk()
    assert (line.status, line.fix) == ("FAIL", "set VGB_CACHE to a folder you can write to")


def test_a_read_only_cache_whose_packs_are_ready_is_usable(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VGB_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor.os, "access", lambda folder, mode: False)
    monkeypatch.setattr(
        "vla_gen_bench.assets.pack.pack_status", lambda world: PackStatus(world, "ready", Path("/p"), "verified")
    )
    (line,) = doctor.check_disk()
    assert line.status == "warn" and "read-only" in line.detail and line.fix


def test_little_disk_and_little_memory_warn(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VGB_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor, "LOW_DISK_GB", 1e9)
    monkeypatch.setattr(doctor, "LOW_MEMORY_GB", 1e9)
    assert [line.status for line in doctor.check_disk()] == ["warn"]
    assert by_name(list(doctor.check_machine()))["memory"].status == "warn"


@pytest.mark.parametrize(("state", "status"), [("ready", "ok"), ("absent", "ok"), ("corrupt", "FAIL")])
def test_the_builtin_pack_fails_only_when_damaged(monkeypatch, state: str, status: str) -> None:
    monkeypatch.setattr(
        "vla_gen_bench.assets.pack.pack_status", lambda world: PackStatus(world, state, Path("/p"), "why")
    )
    assert by_name(list(doctor.check_packs()))["pack builtin"].status == status


def test_an_absent_rl4vla_pack_warns_and_names_the_variable(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VGB_RL4VLA_DIR", str(tmp_path / "nowhere"))
    line = by_name(list(doctor.check_packs()))["pack rl4vla"]
    assert line.status == "warn" and "nowhere" in line.detail and "VGB_RL4VLA_DIR" in line.fix


def test_an_unreadable_pack_does_not_hide_the_other(monkeypatch) -> None:
    def pack_status(world: str) -> PackStatus:
        if world == "builtin":
            raise ValueError("not JSON")
        return PackStatus(world, "ready", Path("/p"), "whole")

    monkeypatch.setattr("vla_gen_bench.assets.pack.pack_status", pack_status)
    builtin, paper = doctor.check_packs()
    assert builtin.status == "FAIL" and "not JSON" in builtin.detail and builtin.fix
    assert paper.status == "ok"


def test_a_check_that_raises_is_a_line_not_the_end(monkeypatch) -> None:
    def check_disk():
        raise OSError("gone")
        yield

    (line,) = doctor._guarded(check_disk)
    assert line.status == "FAIL" and "OSError: gone" in line.detail


@pytest.mark.parametrize(("value", "expected"), [("", None), (" 3 ", 3), ("2,1", 2)])
def test_a_user_s_number_of_threads(monkeypatch, value: str, expected: int | None) -> None:
    from vla_gen_bench import runtime

    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert runtime.asked_threads() == expected


@pytest.mark.parametrize("value", ["auto", "0", "-1", "1.5"])
def test_a_number_of_threads_that_is_none_is_named(cli_process, monkeypatch, value: str) -> None:
    ran = cli_process("suites", "list", env={**os.environ, "OMP_NUM_THREADS": value})
    assert ran.exit_code == 2 and ran.stderr.startswith(f"error: OMP_NUM_THREADS='{value}': expected a number")
    assert ran.stderr.count("\n") == 1


def test_prepare_keeps_what_the_user_set(monkeypatch) -> None:
    from vla_gen_bench import runtime

    monkeypatch.setenv("LP_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    runtime.prepare(alone=True)
    assert "OMP_WAIT_POLICY" not in os.environ
    runtime.prepare()
    assert (os.environ["LP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("7", "PASSIVE")
