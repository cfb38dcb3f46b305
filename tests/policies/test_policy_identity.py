"""A policy's digest covers its code: an edit is another policy, a move or a new log beside it is the same one."""

import sys

import pytest

from vla_gen_bench.policies import identity
from vla_gen_bench.policies.registry import resolve

MODULE = '''
import numpy as np
import {helper}
from vla_gen_bench.policies import ActionSpec

class Policy:
    """Stands still."""
    action_spec = ActionSpec()
    weights = "weights.npz"
    def reset(self, instructions, seeds): pass
    def act(self, observation): return np.zeros((len(observation), 1, 7), np.float32)
'''
CARD = "name: acme\ntitle: Acme\nsummary: Stands still\nfactory: {module}:Policy\n"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on `sys.path` and the working directory; the modules imported from it are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if not name.startswith("vla_gen_bench"):
            del sys.modules[name]


def write_policy(folder, module, helper):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(MODULE.replace("{helper}", helper))
    (folder / f"{helper}.py").write_text("SPEED = 1\n")


def test_the_digest_of_a_module_changes_with_its_source(site):
    write_policy(site, "one_module", "one_helper")
    old = resolve("one_module:Policy").digest()
    assert resolve("one_module:Policy").digest() == old
    (site / "unrelated.py").write_text("x = 1\n")
    assert resolve("one_module:Policy").digest() == old
    (site / "one_module.py").write_text((site / "one_module.py").read_text() + "# slower\n")
    assert resolve("one_module:Policy").digest() != old


def test_the_digest_of_a_module_changes_with_what_it_imports_beside_it(site):
    write_policy(site, "two_module", "two_helper")
    old = resolve("two_module:Policy").digest()
    (site / "two_helper.py").write_text("SPEED = 2\n")
    assert resolve("two_module:Policy").digest() != old


def test_the_digest_of_a_module_changes_with_a_file_it_names(site):
    write_policy(site, "three_module", "three_helper")
    (site / "weights.npz").write_bytes(b"old")
    old = resolve("three_module:Policy").digest()
    (site / "weights.npz").write_bytes(b"new")
    assert resolve("three_module:Policy").digest() != old


def test_the_digest_of_a_package_covers_all_its_source(site):
    write_policy(site / "acme_pack", "policy", "four_helper")
    (site / "four_helper.py").write_text("")
    (site / "acme_pack/__init__.py").write_text("")
    (site / "acme_pack/deep").mkdir()
    (site / "acme_pack/deep/net.py").write_text("WIDTH = 1\n")
    old = resolve("acme_pack.policy:Policy").digest()
    (site / "acme_pack/deep/net.py").write_text("WIDTH = 2\n")
    assert resolve("acme_pack.policy:Policy").digest() != old


def test_the_digest_of_a_card_folder_covers_its_files_but_not_its_logs(site):
    folder = site / "acme_card"
    write_policy(folder, "five_module", "five_helper")
    (folder / "card.yaml").write_text(CARD.format(module="five_module"))
    (folder / "table.bin").write_bytes(b"1")
    old = resolve(str(folder)).digest()
    (folder / "README.md").write_text("How it came about.\n")
    (folder / "log").mkdir()
    (folder / "log/run.json").write_text("{}")
    (folder / "log/video.mp4").write_bytes(b"")
    assert resolve(str(folder)).digest() == old
    (folder / "table.bin").write_bytes(b"2")
    changed = resolve(str(folder)).digest()
    assert changed != old
    (folder / "five_helper.py").write_text("SPEED = 2\n")
    assert resolve(str(folder)).digest() not in (old, changed)


def test_an_imported_package_that_is_installed_is_left_to_its_version(site):
    found = identity.code_digests("numpy:array")
    assert "numpy/__init__.py" in found  # the policy's own package, wherever it lies
    write_policy(site, "six_module", "six_helper")
    assert set(identity.code_digests("six_module:Policy")) == {"six_module.py", "six_helper.py"}


@pytest.mark.parametrize(
    ("name", "digest"),
    [("hold", "f6a6aafb1eabe378"), ("openvla-ppo", "efe8c945361973fa")],  # the latter as published on the leaderboard
)
def test_digests_of_built_in_policies_are_those_of_published_logs(name, digest):
    assert resolve(name).digest() == digest


def test_a_file_that_an_option_names_is_part_of_the_identity(site):
    (site / "w.bin").write_bytes(b"1")
    old = identity.option_files({"weights": "w.bin", "scale": 2, "mode": "w"})
    assert set(old) == {"weights"}
    (site / "w.bin").write_bytes(b"2")
    assert identity.option_files({"weights": "w.bin"}) != old


def test_an_effect_plugin_is_named_by_version_and_code(site):
    (site / "acme_effect.py").write_text("class Blur:\n    kind = 'image'\n")
    info = site / "acme_effects-0.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme_effects\nVersion: 0.2\n")
    (info / "entry_points.txt").write_text("[vla_gen_bench.effects]\nblur = acme_effect:Blur\n")
    old = identity.effect_plugins(["blur", "noise"])
    assert set(old) == {"blur"} and old["blur"].startswith("acme_effects 0.2 ")
    (site / "acme_effect.py").write_text("class Blur:\n    kind = 'image'\n    radius = 3\n")
    assert identity.effect_plugins(["blur"]) != old
