"""Recipes of PPO, GRPO and DPO as they lie in `policies/openvla-ppo`, and how one is based on another."""

from __future__ import annotations

from pathlib import Path

import pytest
from published import EXPERIMENTS, PRESETS

from vla_gen_bench.errors import UserError
from vla_gen_bench.resources import data_dir
from vla_gen_bench.train.recipe import load_recipe, recipe_file
from vla_gen_bench.train.rl.dpo import DpoRecipe
from vla_gen_bench.train.rl.grpo import GrpoRecipe
from vla_gen_bench.train.rl.learner import RlRecipe
from vla_gen_bench.train.rl.ppo import PpoRecipe

FOLDER = data_dir() / "policies" / "openvla-ppo"
FIRST = EXPERIMENTS / "recipes" / "first"


def loaded(name: str) -> RlRecipe:
    kind = {"ppo": PpoRecipe, "grp": GrpoRecipe, "dpo": DpoRecipe}.get(name[:3], PpoRecipe)
    return load_recipe(recipe_file(name), kind)


@pytest.mark.parametrize("name", ["openvla-ppo", *PRESETS])
def test_every_preset_loads_and_has_the_same_budget(name: str) -> None:
    recipe, reference = loaded(name), loaded("openvla-ppo")
    assert recipe.name == name
    assert recipe.env_steps == reference.env_steps
    assert recipe.steps_per_iteration == reference.steps_per_iteration == 256 * 80
    assert recipe.sampling == reference.sampling


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("ppo")])
def test_a_comparison_differs_from_the_reference_in_what_it_compares(name: str) -> None:
    """A critic that does not know the time looks beyond the time limit."""
    allowed = {
        "ppo-orz": {"gamma", "lam"},
        "ppo-base": {"model"},
        "ppo-epochs-1": {"target_kl"},
        "ppo-epochs-2": {"epochs", "target_kl"},
        "ppo-epochs-5": {"epochs", "target_kl"},
    }
    recipe, reference = loaded(name).model_dump(), loaded("openvla-ppo").model_dump()
    changed = {key for key, value in recipe.items() if reference[key] != value}
    assert changed == {"name", *allowed.get(name, {"value", "time_limit"})}


def test_recipes_of_other_epochs_differ_in_that_alone() -> None:
    recipes = [loaded(f"ppo-epochs-{epochs}").model_dump() for epochs in (1, 2, 5)]
    assert {key for key in recipes[0] if len({str(recipe[key]) for recipe in recipes}) > 1} == {"name", "epochs"}
    assert [recipe["epochs"] for recipe in recipes] == [1, 2, 5]


def test_the_recipe_of_1_0_keeps_the_papers_critic() -> None:
    recipe = load_recipe(EXPERIMENTS / "recipes" / "1.0-ppo.yaml", PpoRecipe)
    assert (recipe.value.source, recipe.time_limit) == ("h0", "bootstrap")
    assert (recipe.env_steps, recipe.epochs, recipe.lam, recipe.optimiser.lr) == (983_040, 2, 0.95, 1e-4)


@pytest.mark.parametrize(
    ("before", "after", "at"),
    [
        ("ppo", "ppo-second", "checkpoint"),
        ("ppo-second", "ppo-third", "checkpoint"),
        ("ppo", "ppo-tilted", "checkpoint"),
        ("ppo-tilted", "ppo-shifted", "checkpoints/0030"),
    ],
)
def test_each_stage_of_the_first_references_starts_from_the_one_before(before: str, after: str, at: str) -> None:
    first, then = (load_recipe(FIRST / f"{name}.yaml", PpoRecipe) for name in (before, after))
    assert then.model.checkpoint == f"runs/train/{first.name}/{at}"
    assert then.seed != first.seed  # other episodes


def test_the_papers_recipe_has_the_papers_numbers() -> None:
    recipe = load_recipe(FOLDER / "recipe-paper.yaml", PpoRecipe)
    assert recipe.iterations == 390  # 2,000,000 / 5,120 = 390.6, rounded down
    assert recipe.steps_per_iteration // recipe.batch == 32
    assert (recipe.batch // recipe.accumulate, recipe.epochs) == (8, 1)
    assert (recipe.optimiser.lr, recipe.optimiser.clip, recipe.value.lr) == (1e-4, 10, 3e-3)
    assert (recipe.gamma, recipe.lam, recipe.loss.clip, recipe.loss.value_clip) == (0.99, 0.95, 0.2, 0.2)
    assert (recipe.loss.policy_weight, recipe.sampling.top_k, recipe.time_limit) == (7, 50, "terminal")
    assert (recipe.sampling.temperature, recipe.check_temperature) == (1, 0.6)
    assert recipe.loss.coarse and not PpoRecipe.model_fields["loss"].default.coarse


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_base_is_merged_key_by_key_and_the_nearest_wins(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a.yaml",
        "name: a\ntrainer: ppo\nmodel: {checkpoint: x}\noptimiser: {lr: 1.0, clip: 2.0}\nenv_steps: 9",
    )
    write(tmp_path, "b.yaml", "base: a.yaml\noptimiser: {lr: 0.5}\nlam: 0.1")
    recipe = load_recipe(write(tmp_path, "c.yaml", "base: b.yaml\nname: c\nlam: 0.2"), PpoRecipe, {"env_steps": 10})
    assert (recipe.name, recipe.lam, recipe.optimiser.lr, recipe.optimiser.clip) == ("c", 0.2, 0.5, 2.0)
    assert recipe.env_steps == 10


def test_bases_that_go_round_or_are_missing_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "base: b.yaml")
    with pytest.raises(UserError, match="a.yaml: base: b.yaml is based on this recipe itself"):
        load_recipe(write(tmp_path, "b.yaml", "base: a.yaml"), PpoRecipe)
    with pytest.raises(UserError, match="none.yaml: no such file"):
        load_recipe(write(tmp_path, "c.yaml", "base: none.yaml"), PpoRecipe)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"gama": 0.9}, "unknown key 'gama'; did you mean 'gamma'"),
        ({"value.source": "h1"}, "value.source: input should be 'h0', 'hn', 'concat', 'separate' or 'state', got 'h1'"),
        ({"trainer": "dpo"}, "trainer: 'dpo'; this command takes 'ppo'"),
    ],
)
def test_mistakes_in_a_recipe_are_named(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(FOLDER / "recipe.yaml", PpoRecipe, changes)


def test_grpo_needs_someone_to_compare_with() -> None:
    with pytest.raises(UserError, match="group: an episode alone cannot be compared"):
        load_recipe(FOLDER / "recipes" / "grpo.yaml", GrpoRecipe, {"group": 1})


def test_an_unknown_preset_is_named(cli) -> None:
    ran = cli("train", "ppo", "--recipe", "ppo-orx")
    assert ran.exit_code == 2 and "did you mean 'ppo-orz'" in ran.stderr
