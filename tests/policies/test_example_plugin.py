"""The example plugin as a third party would use it: built, installed beside our wheel, run outside the repository."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "policies" / "example_plugin"
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", "runs", "results", ".*_cache"
)


def run(*command, cwd):
    """Runs a command without this process's Python settings; returns stdout, fails with all output on an error."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(source, scratch):
    """Builds from a copy, so that nothing stale from the tree gets in and nothing is left behind in it."""
    copy = shutil.copytree(source, scratch / f"{source.name}_source", ignore=NOT_COPIED)
    wheels = scratch / f"{source.name}_wheel"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(
        *pip,
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
        wheels,
        copy,
        cwd=scratch,
    )
    (wheel,) = wheels.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Returns the bin folder of a fresh venv with both wheels; torch and the simulator come from this environment."""
    if not (ROOT / "setup.cfg").is_file():
        pytest.skip("needs a checkout: there is no setup.cfg beside tests/")
    scratch = tmp_path_factory.mktemp("plugin")
    wheels = [build_wheel(ROOT, scratch), build_wheel(PLUGIN, scratch)]
    venv.create(scratch / "venv", with_pip=False, symlinks=True)
    binaries = scratch / "venv" / "bin"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", binaries / "python")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", *wheels, cwd=scratch)
    # Only now, so that pip does not take a vla-gen-bench of the present environment for an installed one.
    (site_packages,) = (scratch / "venv" / "lib").glob("python*/site-packages")
    (site_packages / "heavy.pth").write_text(
        sysconfig.get_path("purelib") + "\n" + sysconfig.get_path("platlib") + "\n"
    )
    return binaries


def test_both_packages_come_from_their_wheels(installed, tmp_path):
    code = "import vla_gen_bench, vgb_example_policy as p; print(vla_gen_bench.__file__); print(p.__file__)"
    for line in run(installed / "python", "-c", code, cwd=tmp_path).splitlines():
        assert line.startswith(str(installed.parent))


def test_the_plugin_is_listed_beside_the_built_in_policies(installed, tmp_path):
    rows = {row["name"]: row for row in json.loads(run(installed / "vgb", "policies", "list", "--json", cwd=tmp_path))}
    assert rows["example-servo"]["source"] == "vgb-example-policy 0.1.0"
    assert rows["example-servo"]["problem"] is None
    assert {"hold", "random", "expert"} <= set(rows)
    assert "example-servo" in run(installed / "vgb", "policies", "list", cwd=tmp_path)


def test_the_plugin_passes_its_check(installed, tmp_path):
    lines = run(installed / "vgb", "policies", "check", "example-servo", cwd=tmp_path).splitlines()
    assert lines[0] == "ok     loaded: vgb_example_policy.servo:ServoPolicy from vgb-example-policy 0.1.0"
    assert not [line for line in lines if line.startswith("FAILED")]
    assert "ok     batch independence: an episode acts the same alone and in a batch" in lines


def test_the_tests_of_the_plugin_pass(installed, tmp_path):
    tests = shutil.copytree(PLUGIN / "tests", tmp_path / "tests", ignore=NOT_COPIED)
    run(installed / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, cwd=tmp_path)


def test_the_plugin_is_evaluated_in_the_simulator(installed, tmp_path):
    protocol = ("--suite", "execution", "--scenario", "ind", "--episodes", "1", "--seeds", "0", "--workers", "1")
    out = tmp_path / "out"
    text = run(installed / "vgb", "eval", "--policy", "example-servo", *protocol, "--out", out, "--json", cwd=tmp_path)
    result = json.loads(text)
    assert result["policy"] == "example-servo"
    assert (result["scenarios"]["ind"]["episodes"], result["scenarios"]["ind"]["errors"]) == (1, 0)
    assert len(list(out.rglob("episodes.jsonl"))) == 1


EFFECTS = """
id: plugged
version: "1"
protocol: {episodes_per_seed: 1, seeds: [0], horizon: 3}
scenarios:
  ind: {dimension: ind}
  all_four:
    dimension: vision
    shift:
      effects: [{name: example-camera, degrees: 8}, example-deadband, {name: example-nudge, step: 2}, example-stripes]
"""


def test_the_effects_of_the_plugin_are_evaluated_and_replayed(installed, tmp_path):
    (tmp_path / "plugged.yaml").write_text(EFFECTS)
    out = tmp_path / "out"
    protocol = ("--suite", "plugged.yaml", "--out", out, "--workers", 1)
    run(installed / "vgb", "eval", "--policy", "hold", *protocol, cwd=tmp_path)
    rows = [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    code = "from pathlib import Path; from vla_gen_bench.eval.replay import replay_episode as again; "
    code += "done = again(Path('out'), 'all_four/0/0'); print(done.same, done.exact)"
    assert run(installed / "python", "-c", code, cwd=tmp_path).split() == ["True", "True"]
