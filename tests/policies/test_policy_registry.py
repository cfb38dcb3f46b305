"""How policies are found, described and built. Plugins here are real distributions in a folder on `sys.path`."""

import json
import re
import shutil
import sys
import warnings

import click.testing
import pytest

from vla_gen_bench.cli.policies import policies as command
from vla_gen_bench.errors import UserError
from vla_gen_bench.policies import registry
from vla_gen_bench.policies.card import load_card
from vla_gen_bench.policies.registry import list_policies, load_policy, parse_options, resolve
from vla_gen_bench.policies.simple import HoldPolicy, RandomPolicy
from vla_gen_bench.resources import data_dir

POLICY_MODULE = '''
import os
os.environ["{name}_IMPORTED"] = "yes"
import numpy as np
from vla_gen_bench.policies import ActionSpec

class Policy:
    """Stands still.

    More about it.
    """
    def __init__(self, temperature=1.0, checkpoint=None, chunk=1):
        self.temperature, self.checkpoint, self.action_spec = temperature, checkpoint, ActionSpec(chunk=chunk)
    def reset(self, instructions, seeds): pass
    def act(self, observation): return np.zeros((len(observation), self.action_spec.chunk, 7), np.float32)

class Seer(Policy):
    privileged = True

class Wrong(Policy):
    def act(self, observation): return np.zeros((len(observation), 7))

class Raises:
    def __init__(self): raise RuntimeError("no weights\\nhere")

def needs_url(url, *, port=8000): return Policy()
def anything(**options): return Policy()
'''
CARD = """
name: {name}
title: Acme
summary: Stands still
factory: {module}:Policy
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on `sys.path`; path and modules are as before afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in set(sys.modules) - before:
        if not name.startswith("vla_gen_bench"):
            del sys.modules[name]


def write_module(folder, name):
    (folder / f"{name}.py").write_text(POLICY_MODULE.replace("{name}", name))


def write_plugin(site, distribution, version, **points):
    """Installs the metadata of a distribution with entry points name=value ("_" in a name stands for "-")."""
    info = site / f"{distribution}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines = [f"{name.replace('_', '-')} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[vla_gen_bench.policies]", *lines]) + "\n")


def write_card(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.yaml").write_text(text)
    return folder


def listing(name):
    return [row for row in list_policies() if row.name == name]


def error_of(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def invoke(*args):
    return click.testing.CliRunner().invoke(command, args)


# --- built-in cards ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["expert", "hold", "random"])
def test_built_in_cards_are_valid_and_listed(name):
    card = resolve(name)
    (row,) = listing(name)
    assert (card.name, card.source.kind, row.source) == (name, "built-in", "built-in")
    assert row.privileged == card.privileged == (name == "expert")
    assert re.fullmatch("[0-9a-f]{16}", card.digest())


def test_names_load_their_policy_with_the_kwargs_of_the_card():
    assert isinstance(load_policy("hold"), HoldPolicy)
    random = load_policy("random")
    assert isinstance(random, RandomPolicy) and random.action_spec.high[0] == 0.02


def test_options_go_before_the_kwargs_of_the_card():
    assert load_policy("random", translation=0.01, chunk=4).action_spec.high[:1] == (0.01,)


def test_an_unknown_name_is_an_error_with_a_suggestion():
    assert "unknown policy 'randm'; did you mean 'random'?" in error_of(resolve, "randm")


def test_an_unknown_option_names_the_accepted_ones():
    text = error_of(load_policy, "random", translatin=0.1)
    assert text.startswith("policy 'random': no option 'translatin'; did you mean 'translation'?")
    assert text.endswith("(accepted: translation, rotation, chunk)")


# --- plugins ----------------------------------------------------------------------------------------------------------


def test_plugins_are_listed_without_importing_them(site, monkeypatch):
    monkeypatch.delenv("acme_vla_IMPORTED", raising=False)
    write_module(site, "acme_vla")
    write_plugin(site, "acme_vla", "0.3", acme="acme_vla:Policy")
    (row,) = listing("acme")
    assert (row.source, row.privileged, row.problem) == ("acme_vla 0.3", None, None)
    assert "acme_vla" not in sys.modules
    assert load_policy("acme", temperature=0.5).temperature == 0.5
    assert "acme_vla" in sys.modules


def test_the_card_of_a_plugin_comes_from_its_factory(site):
    write_module(site, "acme_vla")
    write_plugin(site, "acme_vla", "0.3", acme="acme_vla:Policy [vision]", acme_seer="acme_vla:Seer")
    card = resolve("acme")
    assert card.label == "policy 'acme' (acme_vla 0.3)"
    assert (card.summary, card.privileged) == ("Stands still.", False)
    assert resolve("acme-seer").privileged is True


def test_the_digest_of_a_plugin_changes_with_its_version(site):
    write_module(site, "acme_vla")
    write_plugin(site, "acme_vla", "0.3", acme="acme_vla:Policy")
    old = resolve("acme").digest()
    shutil.rmtree(site / "acme_vla-0.3.dist-info")
    write_plugin(site, "acme_vla", "0.4", acme="acme_vla:Policy")
    assert resolve("acme").digest() != old


def test_a_broken_plugin_is_named_with_its_error_and_breaks_nothing_else(site):
    (site / "broken_vla.py").write_text("import sys\nsys.exit('no CUDA')\n")
    write_plugin(site, "broken_vla", "1.0", broken="broken_vla:Policy", gone="gone_vla.deep:Policy", bad="just words")
    assert listing("broken")[0].problem is None  # only importing would tell
    assert listing("gone")[0].problem == "no module 'gone_vla'"
    assert listing("bad")[0].problem == "'just words' is not module:attr"
    text = error_of(load_policy, "broken")
    assert (
        text
        == "policy 'broken' (broken_vla 1.0): cannot import 'broken_vla:Policy': SystemExit: no CUDA (broken_vla.py:2)"
    )
    assert "policy 'bad' (broken_vla 1.0): 'just words' is not module:attr" == error_of(resolve, "bad")
    assert "No module named 'gone_vla'" in error_of(resolve, "gone")
    assert isinstance(load_policy("hold"), HoldPolicy)


def test_a_failing_import_inside_a_plugin_is_located_there(site):
    (site / "acme_vla.py").write_text("\n\nimport gone_library\n")
    write_plugin(site, "acme_vla", "0.3", acme="acme_vla:Policy")
    assert error_of(resolve, "acme").endswith("No module named 'gone_library' (acme_vla.py:3)")


def test_submodules_are_looked_for_without_importing_their_packages(site):
    (site / "acme_pkg").mkdir()
    (site / "acme_pkg" / "__init__.py").write_text("raise RuntimeError('imported')")
    (site / "acme_pkg" / "inner.py").write_text("")
    write_plugin(site, "acme_pkg", "1", here="acme_pkg.inner:Policy", away="acme_pkg.outer:Policy")
    assert listing("here")[0].problem is None
    assert listing("away")[0].problem == "no module 'acme_pkg.outer'"


def test_a_built_in_policy_wins_over_a_plugin_of_its_name_with_a_warning(site):
    write_module(site, "acme_vla")
    write_plugin(site, "acme_vla", "0.3", random="acme_vla:Policy")
    with pytest.warns(
        UserWarning, match="policy 'random' comes from the built-in policy, acme_vla 0.3; the built-in policy is used"
    ):
        assert resolve("random").source.kind == "built-in"
    assert [row.problem for row in listing("random")] == [None, "name taken by the built-in policy"]


def test_of_two_plugins_the_first_by_distribution_wins_with_a_warning(site):
    write_module(site, "acme_vla")
    write_plugin(site, "zeta", "1", acme="acme_vla:Seer")
    write_plugin(site, "acme_vla", "0.3", acme="acme_vla:Policy")
    with pytest.warns(UserWarning, match="acme_vla 0.3 is used"):
        assert resolve("acme").source.distribution == "acme_vla 0.3"


def test_a_line_end_in_a_reference_stays_on_one_line():
    assert error_of(load_policy, "acme_vla:Policy\n") == (
        "policy 'acme_vla:Policy\\n': 'acme_vla:Policy\\n' is not module:attr"
    )


def test_an_unambiguous_name_gives_no_warning(site):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve("random")


# --- module:attr ------------------------------------------------------------------------------------------------------


def test_a_module_in_the_working_directory_can_be_named(site, tmp_path, monkeypatch):
    write_module(tmp_path, "my_policy")
    monkeypatch.chdir(tmp_path)
    assert load_policy("my_policy:Policy", temperature=0.2).temperature == 0.2
    assert resolve("my_policy:Seer").privileged is True


@pytest.mark.parametrize(
    ("ref", "text"),
    [
        (
            "no_such_module:Policy",
            "cannot import 'no_such_module:Policy': ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("acme_vla:Polcy", "module 'acme_vla' has no attribute 'Polcy'"),
        ("acme_vla:np", "'acme_vla:np' is a module; expected a class or function"),
        ("policies/nowhere", "no such folder with a card.yaml"),
        ("acme_vla:Raises", "acme_vla:Raises raised RuntimeError: no weights here (acme_vla.py:"),
        ("acme_vla:needs_url", "needs --policy-option url=..."),
        ("builtins:dict", "dict has no method reset(); expected reset(), act(), action_spec"),
    ],
)
def test_a_bad_reference_is_one_line_that_names_the_policy(site, ref, text):
    write_module(site, "acme_vla")
    found = error_of(load_policy, ref)
    assert text in found and f"policy '{ref}'" in found and "\n" not in found


def test_factories_may_be_functions_with_keyword_only_or_any_options(site):
    write_module(site, "acme_vla")
    assert load_policy("acme_vla:needs_url", url="ws://x", port=1)
    assert load_policy("acme_vla:anything", whatever=1)
    assert "(accepted: url, port)" in error_of(load_policy, "acme_vla:needs_url", urll=1)


# --- cards by path ----------------------------------------------------------------------------------------------------


def test_a_folder_with_a_card_finds_its_module_beside_it(site, tmp_path):
    folder = write_card(tmp_path / "mine", CARD.format(name="mine", module="beside") + "kwargs: {temperature: 0.7}")
    write_module(folder, "beside")
    for ref in (folder, folder / "card.yaml"):
        assert resolve(str(ref)).label == "policy 'mine'"
        assert load_policy(str(ref)).temperature == 0.7


def test_the_checkpoint_reaches_the_factory_and_the_digest(site, tmp_path):
    write_module(site, "acme_vla")
    folder = write_card(tmp_path / "mine", CARD.format(name="mine", module="acme_vla") + "checkpoint: weights")
    assert "checkpoint: no file or folder" in error_of(load_policy, str(folder))
    (folder / "weights" / "deep").mkdir(parents=True)
    (folder / "weights" / "deep" / "a.bin").write_bytes(b"1")
    assert load_policy(str(folder)).checkpoint == folder / "weights"
    digest = resolve(str(folder)).digest()
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert resolve(str(moved)).digest() == digest
    (moved / "weights" / "deep" / "a.bin").write_bytes(b"2")
    assert resolve(str(moved)).digest() != digest


def test_a_built_in_card_finds_its_checkpoint_from_any_working_directory(site, tmp_path, monkeypatch):
    """As in a checkout and in a wheel: what differs between them is `data_dir`, the folder of all cards."""
    write_module(site, "acme_vla")
    folder = write_card(
        tmp_path / "policies" / "mine", CARD.format(name="mine", module="acme_vla") + "checkpoint: weights"
    )
    monkeypatch.setattr(registry, "data_dir", lambda: tmp_path)
    monkeypatch.chdir(site)
    expected = f"{folder / 'card.yaml'}: checkpoint: no file or folder '{folder / 'weights'}'; see the README.md"
    assert error_of(load_policy, "mine").startswith(expected)
    assert listing("mine")[0].problem.startswith(expected)
    (folder / "weights").mkdir()
    assert load_policy("mine").checkpoint == folder / "weights"
    assert listing("mine")[0].problem is None


def test_another_checkpoint_can_be_given_where_the_cards_own_is_missing(site, tmp_path):
    write_module(site, "acme_vla")
    folder = write_card(tmp_path / "mine", CARD.format(name="mine", module="acme_vla") + "checkpoint: weights")
    assert load_policy(str(folder), checkpoint="other").checkpoint == "other"
    assert "checkpoint: no file or folder" in error_of(resolve(str(folder)).digest)
    assert len(resolve(str(folder)).digest(own_checkpoint=False)) == 16


def test_promises_of_the_card_are_kept(site, tmp_path):
    write_module(site, "acme_vla")
    text = CARD.format(name="mine", module="acme_vla") + "action_spec: {chunk: 8}\n"
    folder = write_card(tmp_path / "mine", text)
    assert "its card says action_spec.chunk: 8, the policy says 1" in error_of(load_policy, str(folder))
    assert load_policy(str(write_card(folder, text + "kwargs: {chunk: 8}"))).action_spec.chunk == 8


def test_a_policy_for_one_world_is_refused_in_another(tmp_path):
    card = load_card(write_card(tmp_path / "a", CARD.format(name="a", module="m") + "worlds: [rl4vla]") / "card.yaml")
    card.check_world("rl4vla")
    assert error_of(card.check_world, "builtin") == "policy 'a' acts in rl4vla, not in world 'builtin'"


@pytest.mark.parametrize(
    ("addition", "text"),
    [
        ("sumary: x", "card.yaml: sumary: unknown key 'sumary'; did you mean 'summary'?"),
        ("training: {dta: [x]}", "card.yaml: training.dta: unknown key 'dta'; did you mean 'data'?"),
        ("action_spec: {chunks: 2}", "card.yaml: action_spec.chunks: unknown key 'chunks'; did you mean 'chunk'?"),
        ("privileged: perhaps", "card.yaml: privileged: input should be a valid boolean"),
        ("checkpoint: /etc/passwd", "must be relative to the card's folder"),
        ("title: twice", "card.yaml: title: key given twice"),
        ("links: [", "card.yaml: not valid YAML"),
    ],
)
def test_a_mistake_in_a_card_is_named_by_file_and_key(tmp_path, addition, text):
    folder = write_card(tmp_path / "a", CARD.format(name="a", module="m") + addition)
    assert text in error_of(resolve, str(folder))


def test_a_broken_built_in_card_is_a_row_and_breaks_nothing_else(tmp_path, monkeypatch):
    write_card(tmp_path / "policies" / "good", CARD.format(name="good", module="json"))
    write_card(tmp_path / "policies" / "other", CARD.format(name="renamed", module="json"))
    write_card(tmp_path / "policies" / "torn", "name: [")
    monkeypatch.setattr(registry, "data_dir", lambda: tmp_path)
    rows = {row.name: row.problem for row in list_policies() if row.source == "built-in"}
    assert rows["good"] is None
    assert "name: is 'renamed'; expected 'other', the folder's name" in rows["other"]
    assert "not valid YAML" in rows["torn"]


# --- policies/README.md -----------------------------------------------------------------------------------------------


def readme_block(language):
    """Returns the only fenced block of that language in policies/README.md."""
    text = (data_dir() / "policies" / "README.md").read_text()
    (block,) = re.findall(rf"```{language}\n(.*?)```", text, re.S)
    return block


def test_the_ten_line_policy_of_the_readme_passes_its_check(site):
    (site / "my_policy.py").write_text(readme_block("python"))
    result = invoke("check", "my_policy:Reach")
    assert result.exit_code == 0 and "note   timing" in result.output


def test_the_card_of_the_readme_is_valid(tmp_path):
    card = load_card(write_card(tmp_path / "acme", readme_block("yaml")) / "card.yaml", "built-in")
    assert (card.params, card.action_spec.execute, card.training.saw_unseen) == (7541237184, 4, False)


# --- options and commands ---------------------------------------------------------------------------------------------


def test_options_are_typed_as_yaml():
    pairs = ["a=3", "b=0.6", "c=true", "d=null", "e=[1, 2]", "f=x=y", "g='3'"]
    assert parse_options(pairs) == {"a": 3, "b": 0.6, "c": True, "d": None, "e": [1, 2], "f": "x=y", "g": "3"}


@pytest.mark.parametrize("pairs", [["a"], ["=3"], ["a b=3"], ["a=1", "a=2"], ["a=[1"]])
def test_a_malformed_option_is_an_error(pairs):
    assert error_of(parse_options, pairs).startswith(f"--policy-option {pairs[-1]}: ")


def test_list_prints_every_policy_and_flags_broken_ones(site):
    write_plugin(site, "gone_vla", "2.0", gone="gone_vla:Policy")
    text = invoke("list").output
    assert re.search(r"^gone +gone_vla 2.0 +\? +\? +BROKEN: no module 'gone_vla' *$", text, re.M)
    assert re.search(r"^random +built-in +none +no +Independent", text, re.M)
    rows = {row["name"]: row for row in json.loads(invoke("list", "--json").output)}
    assert rows["gone"]["problem"] == "no module 'gone_vla'" and rows["hold"]["problem"] is None


def test_show_prints_the_card():
    assert "summary      Holds the end effector still" in invoke("show", "hold").output
    data = json.loads(invoke("show", "hold", "--json").output)
    assert data["factory"] == "vla_gen_bench.policies.simple:HoldPolicy" and len(data["digest"]) == 16


def test_check_prints_a_line_per_check_and_exits_with_0():
    result = invoke("check", "random", "--policy-option", "chunk=4", "--batch", "5")
    assert result.exit_code == 0
    assert "ok     batch of 5: float32 [5, 4, 7], finite, within limits" in result.output.splitlines()


def test_check_exits_with_2_where_a_check_fails(site):
    write_module(site, "acme_vla")
    write_plugin(site, "acme_vla", "0.3", acme="acme_vla:Wrong")
    result = invoke("check", "acme")
    assert result.exit_code == 2
    assert "policy 'acme' (acme_vla 0.3): act() returned float64 [1, 7]; expected float32 [1, K, 7]" in result.output


def test_user_errors_of_the_commands_are_left_to_the_root():
    assert isinstance(invoke("check", "randm").exception, UserError)
