"""The wheel: what it carries, and that it works outside the repository, as does an editable install.

Both are installed into environments that see the heavy packages of this one through a .pth file: nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = [name for name in ("suites", "policies", "leaderboard") if any((ROOT / name).glob("*"))]
SOURCES = (*DATA, "vla_gen_bench", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
HEAVY = ("torch", "mani_skill", "sapien", "pandas", "scipy", "matplotlib", "statsmodels", "trimesh")
SKIPPED = shutil.ignore_patterns("__pycache__", "*.egg-info")


def run(*command: object, cwd: Path) -> str:
    """Runs a command without this process's Python settings; returns its standard output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree: building in the tree itself would leave files there that end up in the next wheel."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        origin = ROOT / name
        if origin.is_dir():
            shutil.copytree(origin, copy / name, ignore=SKIPPED)
        elif origin.is_file():
            shutil.copy(origin, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=folder)
    (built,) = folder.glob("vla_gen_bench-*.whl")
    return built


def environment_with(requirement: list[object], folder: Path) -> Path:
    """Makes an environment in `folder` with one package installed; returns its `bin`."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    Path(site, "heavy.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *requirement, cwd=folder)
    return folder / "bin"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_with([wheel], tmp_path_factory.mktemp("env"))


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def tree(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_every_package_folder_is_listed() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = {name for name in setup["options"]["packages"].split() if "._data." not in name}
    found = {
        Path(name).parent.as_posix().replace("/", ".") for name in tree(ROOT / "vla_gen_bench") if name.endswith(".py")
    }
    assert listed == found, "setup.cfg [options] packages and the folders with Python files differ"


def test_every_data_folder_is_listed() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    mapped = {line.split("=")[1].strip() for line in setup["options"]["package_dir"].split("\n") if line}
    assert mapped == set(DATA), "setup.cfg [options] packages and package_dir lack a data folder, or name an empty one"


def test_the_wheel_carries_all_code_and_package_data(contents: set[str]) -> None:
    assert tree(ROOT / "vla_gen_bench") <= contents
    assert "vla_gen_bench/episodes/catalogs/rl4vla.json" in contents


@pytest.mark.parametrize("folder", DATA)
def test_the_wheel_carries_the_data_folders(contents: set[str], folder: str) -> None:
    # A third-party policy's sources are an example to copy, not data; the leaderboard's logs are large.
    left_out = ("policies/example_plugin/", "leaderboard/logs/")
    files = {name for name in tree(ROOT / folder) if not name.startswith(left_out)}
    assert {f"vla_gen_bench/_data/{name}" for name in files} == {
        name for name in contents if name.startswith(f"vla_gen_bench/_data/{folder}/")
    }


def test_the_wheel_carries_nothing_else(contents: set[str]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in contents} == {"vla_gen_bench"}
    assert not [name for name in contents if "test" in Path(name).name and name.endswith(".py")]
    assert any(name.endswith("licenses/LICENSE") for name in contents)


def test_the_wheel_works_outside_the_repository(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import vla_gen_bench; print(vla_gen_bench.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed.parent))
    assert "Usage: vgb" in run(installed / "vgb", "--help", cwd=tmp_path)
    listed = run(installed / "vgb", "suites", "list", cwd=tmp_path)
    assert all(suite in listed for suite in ("vision", "semantics", "execution", "table1"))
    assert "expert" in run(installed / "vgb", "policies", "list", cwd=tmp_path)


def test_an_editable_install_works_outside_the_repository(source: Path, tmp_path: Path) -> None:
    commands = environment_with(["--editable", source], tmp_path / "env")
    where = run(commands / "python", "-c", "import vla_gen_bench; print(vla_gen_bench.__file__)", cwd=tmp_path)
    assert where.startswith(str(source))
    assert "execution" in run(commands / "vgb", "suites", "list", cwd=tmp_path)


def test_help_imports_nothing_heavy(installed: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys\nfrom vla_gen_bench.cli import main\nsys.argv = ['vgb', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))"
    )
    assert json.loads(run(installed / "python", "-c", code, cwd=tmp_path).splitlines()[-1]) == []
