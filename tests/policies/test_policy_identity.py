"""A policy's digest covers its code: an edit is another policy, a move or a new log beside it is the same one."""

import hashlib
import json
import sys

import pytest

from vla_gen_bench.policies import digests, identity
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


def test_the_digest_of_a_package_covers_weights_that_it_finds_by_listing_its_folder(site):
    write_policy(site / "acme_globs", "policy", "seven_helper")
    (site / "seven_helper.py").write_text("")
    (site / "acme_globs/__init__.py").write_text("")
    (site / "acme_globs/weights").mkdir()
    weights = site / "acme_globs/weights/part-1.npz"
    weights.write_bytes(b"old")
    old = resolve("acme_globs.policy:Policy").digest()
    weights.write_bytes(b"new")
    new = resolve("acme_globs.policy:Policy").digest()
    weights.rename(weights.with_name("part-2.npz"))
    assert len({old, new, resolve("acme_globs.policy:Policy").digest()}) == 3


def test_outputs_and_prose_in_a_package_are_no_part_of_it(site):
    write_policy(site / "acme_noisy", "policy", "eight_helper")
    (site / "eight_helper.py").write_text("")
    old = resolve("acme_noisy.policy:Policy").digest()
    for name in (
        "README.md",
        "train.log",
        ".hidden",
        "wandb/run-1/x.json",
        "runs/p/run.json",
        "__pycache__/policy.pyc",
    ):
        file = site / "acme_noisy" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    assert resolve("acme_noisy.policy:Policy").digest() == old


@pytest.mark.parametrize("text", ["weights/*.npz", "**/*.npz", "weights"])
def test_the_digest_of_a_lone_module_covers_files_that_a_pattern_or_a_folder_names(site, text):
    (site / "nine_module.py").write_text(f"FILES = {text!r}\n")
    (site / "weights").mkdir()
    (site / "weights/a.npz").write_bytes(b"old")
    (site / "weights/notes.txt").write_text("how it went")
    old = identity.code_digests("nine_module:Policy")
    assert set(old) == {"nine_module.py", "nine_module.py: weights/a.npz"}
    (site / "weights/a.npz").write_bytes(b"new")
    assert identity.code_digests("nine_module:Policy") != old


def test_texts_that_name_no_file_are_passed_over(site):
    (site / "ten_module.py").write_text(
        "A = ['*', 'a * b.', '**x.y', '.', '..', '/', '', '../*.npz', 'x\\0y', 'ten_module']\n"
    )
    assert set(identity.code_digests("ten_module:Policy")) == {"ten_module.py"}


def test_code_named_as_text_is_part_of_what_names_it(site):
    (site / "eleven_effect.py").write_text("APPLY = 'eleven_impl:Blur'\n")
    (site / "eleven_impl.py").write_text("RADIUS = 1\n")
    assert set(identity.code_digests("eleven_effect:SPEC")) == {"eleven_effect.py", "eleven_impl.py"}


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer", "post_processor", "added_tokens"])
@pytest.mark.parametrize("place", ["card", "option", "base"])
def test_every_part_of_a_tokenizer_file_is_in_the_identity(site, place, part):
    folder = site / "acme_tokens"
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"w")
    tokenizer = {"normalizer": None, "pre_tokenizer": None, "post_processor": None, "added_tokens": [], "model": {}}
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "twelve_module.py").write_text("")
    (folder / "card.yaml").write_text(CARD.format(module="twelve_module") + "checkpoint: checkpoint\n")
    (site / "adapter").mkdir()
    (site / "adapter/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(checkpoint)}))
    digest = {
        "card": lambda: resolve(str(folder)).digest(),
        "option": lambda: identity.checkpoint_digests(checkpoint),
        "base": lambda: identity.checkpoint_digests(site / "adapter"),
    }[place]
    old = digest()
    (checkpoint / "tokenizer.json").write_text(json.dumps({**tokenizer, part: [{"type": "Lowercase"}]}))
    assert digest() != old


def test_a_large_file_is_read_once_and_again_when_it_changes(site, monkeypatch):
    monkeypatch.setenv("VGB_CACHE", str(site / "cache"))
    monkeypatch.setattr(digests, "REMEMBERED_BYTES", 1)
    file = site / "w.bin"
    file.write_bytes(b"old")
    assert digests.sha256_of(file) == hashlib.sha256(b"old").hexdigest() and not (site / "cache").exists()  # just made
    monkeypatch.setattr(digests, "SETTLED_S", -1e9)
    assert digests.sha256_of(file) == hashlib.sha256(b"old").hexdigest()
    (memory,) = (site / "cache/digests").iterdir()
    memory.write_text("0" * 64)
    assert digests.sha256_of(file) == "0" * 64
    file.write_bytes(b"new")
    assert digests.sha256_of(file) == hashlib.sha256(b"new").hexdigest()


def test_a_checkpoint_cloned_by_git_is_the_one_that_was_downloaded(site):
    (site / "ckpt/.git").mkdir(parents=True)
    (site / "ckpt/w.bin").write_bytes(b"w")
    (site / "more").mkdir()
    (site / "more/stats.json").write_text("{}")
    (site / "ckpt/linked").symlink_to(site / "more")
    (site / "ckpt/linked/again").symlink_to(site / "ckpt")  # a circle
    assert set(identity.file_digests(site / "ckpt")) == {"ckpt/w.bin", "ckpt/linked/stats.json"}
    (site / "ckpt/.git/index").write_bytes(b"1")
    assert set(identity.file_digests(site / "ckpt")) == {"ckpt/w.bin", "ckpt/linked/stats.json"}


def test_a_file_that_a_cards_arguments_name_is_part_of_the_identity(site):
    folder = site / "acme_kwargs"
    write_policy(folder, "thirteen_module", "thirteen_helper")
    (site / "elsewhere.npz").write_bytes(b"old")
    (folder / "card.yaml").write_text(
        CARD.format(module="thirteen_module") + f"kwargs: {{weights: '{site / 'elsewhere.npz'}'}}\n"
    )
    old = resolve(str(folder)).digest()
    (site / "elsewhere.npz").write_bytes(b"new")
    assert resolve(str(folder)).digest() != old


@pytest.mark.parametrize(
    ("name", "digest"),
    [("hold", "f6a6aafb1eabe378"), ("openvla-ppo", "abcaca94a1660dac")],  # the latter as published on the leaderboard
)
def test_digests_of_built_in_policies_are_those_of_published_logs(name, digest):
    assert resolve(name).digest() == digest


def test_a_file_that_an_option_names_is_part_of_the_identity(site):
    (site / "w.bin").write_bytes(b"1")
    old = identity.option_files({"weights": "w.bin", "scale": 2, "mode": "w"})
    assert set(old) == {"weights"}
    (site / "w.bin").write_bytes(b"2")
    assert identity.option_files({"weights": "w.bin"}) != old
    assert set(identity.option_files({"parts": ["w.bin", {"file": "w.bin"}], "n": [1]})) == {"parts.0", "parts.1.file"}


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


def test_an_effect_that_a_suite_names_by_its_module_is_identified_by_its_code(site):
    (site / "fourteen_effect.py").write_text("class Blur:\n    kind = 'image'\n")
    old = identity.effect_plugins(["fourteen_effect:Blur"])
    assert set(old) == {"fourteen_effect:Blur"}
    (site / "fourteen_effect.py").write_text("class Blur:\n    kind = 'image'\n    radius = 3\n")
    assert identity.effect_plugins(["fourteen_effect:Blur"]) != old


def test_a_plugin_installed_in_place_is_another_policy_once_it_is_edited(site):
    """As `pip install -e` leaves it: the distribution and its version stay, the source lies elsewhere and changes."""
    source = site / "src/acme_inplace"
    write_policy(source, "policy", "fifteen_helper")
    (site / "src/fifteen_helper.py").write_text("")
    (source / "__init__.py").write_text("")
    (source / "table.bin").write_bytes(b"1")
    info = site / "acme_inplace-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme_inplace\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text("[vla_gen_bench.policies]\ninplace = acme_inplace.policy:Policy\n")
    sys.path.insert(0, str(site / "src"))
    try:
        digests = [resolve("inplace").digest()]
        for file, content in (("policy.py", (source / "policy.py").read_text() + "# edit\n"), ("table.bin", "2")):
            (source / file).write_text(content)
            digests.append(resolve("inplace").digest())
    finally:
        sys.path.remove(str(site / "src"))
    assert len(set(digests)) == 3
