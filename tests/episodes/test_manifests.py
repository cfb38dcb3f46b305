"""Golden manifests: no default episode changes unseen."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from vla_gen_bench.cli.suites import suites
from vla_gen_bench.episodes.manifest import check_manifest, manifest_of, manifest_path
from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.episodes.suite import draw, load_suite
from vla_gen_bench.errors import UserError
from vla_gen_bench.resources import data_dir

SUITES = ("vision", "semantics", "execution", "all", "table1", "controls")
LARGE = ("robustness", "compositional")
CATALOGS = Path(__file__).resolve().parents[2] / "vla_gen_bench" / "episodes" / "catalogs"
WORLDS = sorted({file.stem for file in CATALOGS.glob("*.json")} - {"pretrain"})  # nothing is published of that one
TINY = """
id: tiny
version: "1"
protocol: {episodes_per_seed: 3, seeds: [5]}
scenarios:
  ind: {dimension: ind}
  far: {dimension: execution, shift: {layout: ring}}
"""


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", (*SUITES, *LARGE))
def test_episodes_are_those_of_the_manifest(name, world):
    """All of them, but the first of each row in the large suites of other worlds, which draw as `builtin` does."""
    if name not in LARGE or world == "builtin":
        check_manifest(load_suite(name), world)
        return
    suite = load_suite(name)
    stored = json.loads(manifest_path(suite, world).read_text())
    assert stored["suite_digest"] == suite.digest()
    firsts = {id: draw(row, world, 0, 0).digest() for id, row in suite.scenarios.items()}
    assert firsts == {id: seeds["0"]["first"] for id, seeds in stored["scenarios"].items()}


def test_no_stray_manifests():
    found = {file.stem for file in (data_dir() / "suites" / "manifests").glob("*.json")}
    assert found == {f"{name}-{world}" for name in (*SUITES, *LARGE) for world in WORLDS}


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    return str(tmp_path / "tiny.yaml")


def test_manifest_content(tiny):
    suite = load_suite(tiny)
    specs = [draw(suite.scenarios["far"], "rl4vla", 5, index).digest() for index in range(3)]
    manifest = manifest_of(suite, "rl4vla")
    assert manifest["scenarios"]["far"] == {"5": {"episodes": digest_of(specs), "first": specs[0]}}
    assert manifest["suite_digest"] == suite.digest()


def manifest(*arguments: str):
    return CliRunner().invoke(suites, ["manifest", *arguments, "--world", "rl4vla"], catch_exceptions=False)


def test_write_then_check(tiny):
    with pytest.raises(UserError, match="tiny-rl4vla.json: no such manifest; run `vgb suites manifest"):
        manifest(tiny, "--check")
    assert manifest(tiny, "--write").stdout.strip().endswith("manifests/tiny-rl4vla.json")
    assert "as stored" in manifest(tiny, "--check").stdout
    assert json.loads(manifest(tiny).stdout) == json.loads(manifest_path(load_suite(tiny), "rl4vla").read_text())


def test_check_names_what_changed(tiny):
    manifest(tiny, "--write")
    path = manifest_path(load_suite(tiny), "rl4vla")
    stored = json.loads(path.read_text())
    stored["scenarios"]["far"]["5"]["first"] = "0" * 16
    path.write_text(json.dumps(stored))
    with pytest.raises(UserError, match="scenarios.far.5.first: stored 0000000000000000, drawn now"):
        manifest(tiny, "--check")
    path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        manifest(tiny, "--check")


def test_changed_protocol_is_noticed(tiny):
    manifest(tiny, "--write")
    Path(tiny).write_text(TINY.replace("episodes_per_seed: 3", "episodes_per_seed: 4"))
    with pytest.raises(UserError, match="tiny-rl4vla.json: scenarios.ind.5.episodes"):
        manifest(tiny, "--check")
