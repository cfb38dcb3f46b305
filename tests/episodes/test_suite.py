"""Suites as files: strict reading, lookup, composition, digests, and the `vgb suites` commands."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner

from vla_gen_bench import resources
from vla_gen_bench.cli.suites import suites
from vla_gen_bench.episodes import lookup as suite_lookup
from vla_gen_bench.episodes.shift import Shift
from vla_gen_bench.episodes.suite import load_suite, union
from vla_gen_bench.errors import UserError
from vla_gen_bench.resources import data_dir

ROOT = Path(__file__).resolve().parents[2]
WORLD = "rl4vla"
BUILT_IN = ("vision", "semantics", "execution", "all", "table1")
MINE = """
id: mine
version: "1"
scenarios:
  ind: {label: IND, dimension: ind}
  far: {label: Far, dimension: execution, shift: {layout: {pool: ring, displacement: 0.06}}}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a suite file and makes its folder the working directory, so that messages show short paths."""
    monkeypatch.chdir(tmp_path)

    def _write(text: str, name: str = "mine.yaml") -> str:
        (tmp_path / name).write_text(text)
        return name

    return _write


# ---- the default suites


def test_default_suites_have_the_rows_of_the_table():
    rows = {name: len(load_suite(name).scenarios) for name in BUILT_IN}
    assert rows == {"vision": 6, "semantics": 8, "execution": 4, "all": 6 + 8 + 4 - 2, "table1": 16}
    assert list(load_suite("all").scenarios) == list(load_suite("table1").scenarios)
    for id, row in load_suite("all").scenarios.items():
        published = load_suite("table1").scenarios[id]
        assert (row.label, row.dimension) == (published.label, published.dimension)


def test_default_protocol():
    for name in BUILT_IN:
        protocol = load_suite(name).protocol
        assert (protocol.episodes_per_seed, protocol.seeds, protocol.horizon) == (64, (0, 1, 2), 80)
        assert protocol.metric == "success_at_end"


def test_data_comes_from_the_checkout_else_from_the_package(tmp_path, monkeypatch):
    assert data_dir() == ROOT
    monkeypatch.setattr(resources, "PACKAGE", tmp_path / "site" / "vla_gen_bench")
    with pytest.raises(UserError, match="no suites/ beside .*reinstall vla-gen-bench"):
        data_dir()
    inside = tmp_path / "site" / "vla_gen_bench" / "_data" / "suites"
    inside.mkdir(parents=True)
    (inside / "vision.yaml").touch()
    assert data_dir() == inside.parent


# ---- mistakes


@pytest.mark.parametrize(
    "old,new,message",
    [
        ("layout:", "layuot:", "mine.yaml: scenarios.far.shift.layuot: unknown axis 'layuot'; did you mean 'layout'?"),
        ("pool: ring", "pool: rings", "mine.yaml: scenarios.far.shift.layout.pool: expected a name, got 'rings'; did"),
        ("displacement:", "distance:", "scenarios.far.shift.layout.distance: unknown severity 'distance'"),
        ("0.06", "0.6", "layout.displacement: expected a number from 0.005 to 0.1, got 0.6"),
        ("0.06", ".nan", "layout.displacement (line 6): expected a finite number, got '.nan'"),
        ("0.06", "yes", "layout.displacement: expected a number from 0.005 to 0.1, got True"),
        ("{layout:", "{effects: [{name: nois}], layout:", "shift.effects[0].name: expected a name, got 'nois'"),
        ("{layout:", "{effects: [noise, noise], layout:", "scenarios.far.shift.effects: effect 'noise' given twice"),
        ("{layout:", "{effects: noise, layout:", "far.shift.effects: expected a list of effects, got 'noise'"),
        ("{layout:", "{effects: [{name: reposition, step: 2.5}], layout:", "step: expected a whole number from 1 to"),
        (
            "{layout:",
            "{yaw: [train], layout:",
            "scenarios.far.shift.yaw: expected a list of degrees, each once, got ['train']",
        ),
        ("shift:", "shfit:", "mine.yaml: scenarios.far.shfit: unknown key 'shfit'; did you mean 'shift'?"),
        ("  far:", "  ind:", "mine.yaml: scenarios.ind: key given twice (line 6)"),
        ("  far:", "  f+r:", "mine.yaml: scenarios.f+r: a scenario id is made of letters, digits and _"),
        ("execution", "exec", "mine.yaml: scenarios.far.dimension: got 'exec'"),
        ("label: Far", "label: 5", "mine.yaml: scenarios.far.label: input should be a valid string, got 5"),
        ("label: Far", 'label: "Far\\n| x"', "mine.yaml: scenarios.far.label: string should match pattern"),
        ("label: Far", f"label: {'x' * 201}", "mine.yaml: scenarios.far.label: string should have at most 200"),
        ("  far:", '  "f\\nr":', "mine.yaml: scenarios.f r: a scenario id is made of letters"),
        ('"1"', "1", "mine.yaml: version: input should be a valid string, got 1"),
        ("id: mine", "id: ../../x", "mine.yaml: id: string should match pattern"),
        ("id: mine", "id: /tmp/x", "mine.yaml: id: string should match pattern"),
        ("id: mine", 'id: "a\\x1b[2J"', "mine.yaml: id (line 2): holds the control character"),
        ("id: mine", "id: mine\nprotocol: {horizon: 10000000}", "protocol.horizon: input should be less than or equal"),
        ("id: mine", "name: mine", "mine.yaml: name: unknown key 'name'"),
        ("id: mine", "", "mine.yaml: no id given; start with `id: mine`"),
        ("id: mine", "id: [", "mine.yaml: not valid YAML"),
        ("id: mine", "id: mine\nprotocol: {horizn: 80}", "mine.yaml: protocol.horizn: unknown key 'horizn'; did you"),
        ("id: mine", "id: mine\nprotocol: {horizon: 0}", "mine.yaml: protocol.horizon: input should be greater than"),
        ("id: mine", "id: mine\nprotocol: {seeds: [1, 1]}", "protocol.seeds: expected distinct seeds, at least one"),
        ("id: mine", "id: mine\nprotocol: {seeds: [1000000]}", "protocol.seeds: evaluation seeds are 0 to 999999"),
        ("id: mine", "id: mine\nprotocol: {metric: luck}", "mine.yaml: protocol.metric: input should be 'success_at_"),
        ("id: mine", "id: mine\ninclude: visoin", "mine.yaml: include: expected a list of suite names, got 'visoin'"),
        ("id: mine", "id: mine\ninclude: [visoin]", "unknown suite 'visoin'; did you mean 'vision'?"),
        ("id: mine", "id: mine\ninclude: [mine]", "mine.yaml: include: the suite includes itself"),
        ("id: mine", "id: mine\ninclude: [table1]", "mine.yaml: scenarios.ind: scenario 'ind' is already defined diff"),
        ("far: {", "far: {reference: {env: x}, ", "mine.yaml: scenarios.far: give shift or reference, not both"),
    ],
)
def test_mistakes_name_file_key_and_remedy(write, old, new, message):
    assert old in MINE
    with pytest.raises(UserError) as error:
        load_suite(write(MINE.replace(old, new, 1)))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "- 1", "id: mine", "id: mine\nscenarios: []", "id: mine\nscenarios: {a: }"])
def test_incomplete_files_are_user_errors(write, text):
    with pytest.raises(UserError, match="mine.yaml"):
        load_suite(write(text))


def test_an_anchor_that_holds_itself_is_a_user_error(write):
    with pytest.raises(UserError, match="nested too deeply"):
        load_suite(write("id: &loop [*loop]"))


def test_families_do_not_mix(write):
    text = MINE.replace("id: mine", "id: mine\ninclude: [table1]").replace("  ind: {label: IND, dimension: ind}\n", "")
    with pytest.raises(UserError, match="table1.*cannot share a suite"):
        load_suite(write(text))


def table1_with(old: str, new: str) -> str:
    text = (data_dir() / "suites" / "table1.yaml").read_text()
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    "old,new,message",
    [
        ("      keep_velocity: true\n", "", "reference.keep_velocity: not given; the reference has keep_"),
        ("keep_velocity: true", "keep_velocity: often", "reference.keep_velocity: cannot be 'often'; the"),
        ("keep_velocity:", "keep_velocty:", "reference.keep_velocty: unknown key 'keep_velocty'; did you mean 'keep_"),
        ("obj_set: train", "obj_set: trian", "reference.obj_set: got 'trian'"),
        ("Carrot-v1", "Carot-v1", "unknown reference environment 'PutOnPlateInScene25Carot-v1'; did you mean"),
        ("[0.95, 0.92, 1.0]", "[0.95, 0.92]", "reference.spawn_heights: cannot be [0.95, 0.92]; the reference has"),
    ],
)
def test_mistakes_in_reference_rows(write, old, new, message):
    with pytest.raises(UserError) as error:
        load_suite(write(table1_with(old, new)))
    assert message in str(error.value)


# ---- digests


def test_digest_follows_content_not_wording(write):
    first = load_suite(write(MINE)).digest()
    assert load_suite(write(MINE.replace("label: Far", "label: Farther"))).digest() == first
    assert load_suite(write(MINE + "# a comment\n")).digest() == first
    explicit = MINE.replace("shift: {layout", "shift: {table: train, layout")  # says what holds anyway
    assert load_suite(write(explicit)).digest() == first
    changes = [("0.06", "0.05"), ('"1"', '"2"'), ("far:", "away:"), ("id: mine", "id: mine\nprotocol: {horizon: 81}")]
    assert len({load_suite(write(MINE.replace(*change))).digest() for change in changes} | {first}) == 5


# ---- composition


def test_composed_scenario_has_both_shifts():
    (both,) = load_suite("all").select(["unseen_table + noise_weak"])
    assert (both.id, both.dimension) == ("unseen_table+noise_weak", "vision")
    assert both.shift.choice("table").pool == "unseen" and both.shift.effects[0].name == "noise"
    assert load_suite("all").select(["unseen_table+unseen_position"])[0].dimension == "mixed"
    assert load_suite("all").select(["ind + unseen_position"])[0].dimension == "execution"


def test_composition_refuses_one_axis_twice():
    with pytest.raises(UserError, match="combine 'unseen_object' with 'multi_object_ood': both set axis 'object'"):
        load_suite("all").select(["unseen_object + multi_object_ood"])
    with pytest.raises(UserError, match="'noise_weak' with 'noise_strong': both set effect 'noise'"):
        load_suite("all").select(["noise_weak + noise_strong"])
    with pytest.raises(UserError, match="both set axis 'table'"):
        Shift.parse({"table": "unseen"}, "a") | Shift.parse({"table": "train"}, "b")
    with pytest.raises(UserError, match="row of the reference"):
        load_suite("table1").select(["ind + unseen_table"])


def test_select():
    vision = load_suite("vision")
    assert [it.id for it in vision.select(None)] == [it.id for it in vision.select([])] == list(vision.scenarios)
    assert [it.id for it in vision.select(["noise_weak", "ind", "ind"])] == ["noise_weak", "ind"]
    with pytest.raises(UserError, match="suite 'vision': unknown scenario 'unseen_tabel'; did you mean 'unseen_table'"):
        vision.select(["ind + unseen_tabel"])


def test_union_has_each_scenario_once():
    assert union([load_suite("vision")]) == load_suite("vision")
    both = union([load_suite("vision"), load_suite("execution")])
    assert both.id == "vision+execution" and len(both.scenarios) == 6 + 4 - 1
    assert both.digest() == union([load_suite("vision"), load_suite("execution")]).digest()


def test_union_refuses_what_cannot_share_a_run(write):
    other = load_suite(write(MINE.replace("id: mine", "id: mine\nprotocol: {horizon: 81}")))
    with pytest.raises(UserError, match="'vision' and 'mine' have different protocols"):
        union([load_suite("vision"), other])
    with pytest.raises(UserError, match="suites 'vision' and 'table1' are of two families and cannot share a suite"):
        union([load_suite("vision"), load_suite("table1")])


# ---- lookup


def test_lookup_order(write, tmp_path, monkeypatch):
    """A path, then $VGB_SUITE_PATH, then the built-in suites."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "vision.yaml").write_text(MINE.replace("id: mine", "id: own"))
    assert load_suite("vision").id == "vision"
    monkeypatch.setenv("VGB_SUITE_PATH", os.pathsep.join(["/nowhere", str(own)]))
    assert load_suite("vision").id == "own"
    assert load_suite(write(MINE, "vision.yaml")).id == "mine"
    with pytest.raises(UserError, match="unknown suite 'kitchen'.*\n.*VGB_SUITE_PATH: no folder /nowhere"):
        load_suite("kitchen")


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Installs entry points of a package `acme_suites` that lies in a temporary folder."""
    package = tmp_path / "acme_suites"
    package.mkdir()
    code = "from pathlib import Path\nFILE = Path(__file__).parent / 'far.yaml'\nGONE = '/no'"
    (package / "__init__.py").write_text(code)
    (package / "far.yaml").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)

    def _plugin(**values: str) -> None:
        entries = [EntryPoint(name, value, suite_lookup.GROUP) for name, value in values.items()]
        monkeypatch.setattr(suite_lookup, "entry_points", lambda group: entries)

    yield _plugin
    sys.modules.pop("acme_suites", None)


def test_plugins_give_a_folder_or_a_file(plugin):
    plugin(acme="acme_suites")
    assert load_suite("far").id == "mine"
    plugin(acme="acme_suites:FILE")
    assert load_suite("acme").id == "mine"


def test_a_broken_plugin_is_named_and_breaks_nothing_else(plugin):
    plugin(acme="acme_suites:FILE", broken="no_such_module:FILE", gone="acme_suites:GONE")
    assert load_suite("acme").id == "mine" and load_suite("vision").id == "vision"
    with pytest.raises(UserError, match="suite plug-in 'broken' .no_such_module:FILE.: ModuleNotFoundError"):
        load_suite("broken")
    with pytest.raises(UserError, match="'gone'.*FileNotFoundError"):
        load_suite("gone")
    with pytest.raises(UserError, match="unknown suite 'kitchen'.*\n.*'broken'.*\n.*'gone'"):
        load_suite("kitchen")


def test_a_mistake_in_a_plugins_file_names_the_file(plugin, tmp_path):
    (tmp_path / "acme_suites" / "far.yaml").write_text(MINE.replace("layout", "layuot"))
    plugin(acme="acme_suites")
    with pytest.raises(UserError, match=r"acme_suites:acme_suites/far.yaml: scenarios.far.shift.layuot"):
        load_suite("far")


# ---- commands


def vgb(*arguments: str):
    return CliRunner().invoke(suites, arguments)


def test_list_names_suites_and_what_is_broken(plugin):
    plugin(acme="acme_suites:FILE", broken="no_such_module")
    result = vgb("list", "--json")
    found = json.loads(result.stdout)
    assert {"vision", "semantics", "execution", "all", "table1", "acme"} <= set(found["suites"])
    assert list(found["broken"]) == ["broken"]
    assert "broken: suite plug-in 'broken'" in vgb("list").stderr


def test_show():
    text = vgb("show", "execution").stdout
    assert "unseen_position" in text and "layout ring; yaw unseen" in text and load_suite("execution").digest() in text
    found = json.loads(vgb("show", "execution", "--scenario", "ind", "--world", WORLD, "--json").stdout)
    assert list(found["scenarios"]) == ["ind"] and found["protocol"]["episodes_per_seed"] == 64
    assert found["scenarios"]["ind"]["first"]["world"] == WORLD


def test_draw_prints_one_spec():
    arguments = ["draw", "execution", "--scenario", "object_reposition", "--index", "3", "--world", WORLD]
    found = json.loads(vgb(*arguments).stdout)
    assert found["index"] == 3 and found["effects"][0]["name"] == "reposition"
    trained = vgb("draw", "vision", "--scenario", "ind", "--seed", "1000000", "--world", WORLD)
    assert json.loads(trained.stdout)["seed"] == 1_000_000
    with pytest.raises(UserError, match="evaluation seeds"):
        CliRunner().invoke(suites, [*arguments, "--seed", "1000000"], catch_exceptions=False)


def test_suites_need_no_simulator_and_no_heavy_library():
    """`vgb suites show` has to answer at once."""
    heavy = "{'torch', 'mani_skill', 'sapien', 'gymnasium', 'pandas', 'scipy', 'matplotlib', 'numpy'}"
    code = (
        "import sys; from vla_gen_bench.episodes.suite import load_suite, draw; import vla_gen_bench.cli.suites\n"
        f"draw(load_suite('all').scenarios['multi_object_ood'], '{WORLD}', 0, 0)\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
