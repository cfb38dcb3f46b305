"""tools/install-vulkan.sh in a made-up system: its files under VGB_ROOT, `apt-get` and `id` replaced by stubs."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "install-vulkan.sh"
BOOKWORM = 'ID=debian\nVERSION_CODENAME="bookworm"\n'
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

DEB822 = """\
Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main

# a comment
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/own.gpg
"""


@dataclass
class System:
    """A fake root folder and a PATH with stubs; `calls` is what apt-get was asked to do, one call per line."""

    folder: Path

    def write(self, path: str, text: str) -> None:
        file = self.folder / "root" / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def stub(self, name: str, body: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.folder / "bin"), "VGB_ROOT": str(self.folder / "root")}
        return subprocess.run(["/bin/sh", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True)

    @property
    def calls(self) -> str:
        log = self.folder / "calls"
        return log.read_text() if log.exists() else ""

    @property
    def added(self) -> str | None:
        file = self.folder / "root/etc/apt/sources.list.d/vgb-backports.sources"
        return file.read_text() if file.exists() else None


@pytest.fixture
def system(tmp_path: Path) -> System:
    """A Debian 12 without any apt source; root."""
    made = System(tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in ("awk", "cat"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    made.stub("id", "echo 0")
    made.stub("apt-get", f'echo "$@" >>{tmp_path}/calls')
    made.write("/etc/os-release", BOOKWORM)
    (tmp_path / "root/etc/apt/sources.list.d").mkdir(parents=True)
    return made


def test_without_root_it_says_what_to_install_and_calls_nothing(system: System) -> None:
    system.stub("id", "echo 1000")
    ran = system.run()
    assert ran.returncode == 2 and "this needs root" in ran.stderr
    assert "apt-get install mesa-vulkan-drivers" in ran.stderr and "dnf install" in ran.stderr
    assert system.calls == "" and system.added is None


@pytest.mark.parametrize("release", ["ID=fedora\n", 'ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME="noble"\n', None])
def test_on_another_system_it_says_what_to_install(system: System, release: str | None) -> None:
    file = system.folder / "root/etc/os-release"
    file.unlink() if release is None else file.write_text(release)
    ran = system.run()
    assert ran.returncode == 2 and "this is not a Debian system" in ran.stderr
    assert system.calls == ""


def test_without_apt_get_it_says_so(system: System) -> None:
    (system.folder / "bin/apt-get").unlink()
    ran = system.run()
    assert ran.returncode == 2 and "no apt-get" in ran.stderr


def test_backports_come_from_the_mirror_of_a_deb822_source(system: System) -> None:
    system.write("/etc/apt/sources.list.d/debian.sources", DEB822)
    system.write("/usr/share/keyrings/own.gpg", "key")
    assert system.run().returncode == 0
    assert system.added == (
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/own.gpg\n"
    )
    update, install = system.calls.splitlines()
    assert update.startswith("update")
    assert "-t bookworm-backports mesa-vulkan-drivers libvulkan1" in install


def test_backports_come_from_the_mirror_of_a_one_line_source(system: System) -> None:
    system.write(
        "/etc/apt/sources.list",
        "# deb http://old.example/debian bookworm main\n"
        "deb-src http://src.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/usr/share/keyrings/own.gpg] http://mirror.example/debian bookworm main contrib\n",
    )
    system.write("/usr/share/keyrings/own.gpg", "key")
    assert system.run().returncode == 0
    assert "URIs: http://mirror.example/debian\n" in system.added
    assert "Signed-By: /usr/share/keyrings/own.gpg\n" in system.added


def test_the_debian_keyring_signs_when_the_source_names_none(system: System) -> None:
    system.write("/etc/apt/sources.list", "deb http://mirror.example/debian bookworm main\n")
    system.write(KEYRING, "key")
    assert system.run().returncode == 0
    assert f"Signed-By: {KEYRING}\n" in system.added


def test_debians_own_source_wins_over_another_vendors_of_the_same_suite(system: System) -> None:
    system.write("/etc/apt/sources.list.d/a-vendor.list", "deb http://vendor.example/apt bookworm main\n")
    system.write("/etc/apt/sources.list.d/a-vendor.sources", DEB822.replace("mirror", "vendor2"))
    system.write("/etc/apt/sources.list.d/debian.sources", DEB822)
    assert system.run().returncode == 0
    assert "URIs: http://mirror.example/debian\n" in system.added


def test_a_disabled_source_is_not_taken(system: System) -> None:
    system.write("/etc/apt/sources.list.d/debian.sources", DEB822 + "Enabled: no\n")
    ran = system.run()
    assert ran.returncode == 2 and "no apt source for bookworm" in ran.stderr
    assert system.calls == "" and system.added is None


def test_backports_already_there_are_used_as_they_are(system: System) -> None:
    system.write("/etc/apt/sources.list.d/debian.sources", DEB822.replace("updates", "backports"))
    assert system.run().returncode == 0
    assert system.added is None and "-t bookworm-backports" in system.calls


def test_debian_13_installs_from_its_own_release(system: System) -> None:
    system.write("/etc/os-release", 'ID=debian\nVERSION_CODENAME="trixie"\n')
    assert system.run().returncode == 0
    assert system.added is None and "-t " not in system.calls


def test_a_failing_apt_get_ends_with_the_advice(system: System) -> None:
    system.write("/etc/apt/sources.list", "deb http://mirror.example/debian bookworm main\n")
    system.stub("apt-get", "echo 'E: no network' >&2; exit 100")
    ran = system.run()
    assert ran.returncode == 2
    assert "E: no network" in ran.stderr and "apt-get update failed" in ran.stderr


def test_advise_prints_the_reason_and_changes_nothing(system: System) -> None:
    ran = system.run("--advise", "it does not render")
    assert ran.returncode == 2 and "it does not render" in ran.stderr
    assert system.calls == ""
