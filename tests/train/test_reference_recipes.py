"""The chain of reference recipes: each stage begins with what the one before it writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vla_gen_bench.episodes.suite import load_suite
from vla_gen_bench.train.grounding.trainer import GroundingRecipe
from vla_gen_bench.train.recipe import Recipe, load_recipe, recipe_file
from vla_gen_bench.train.rl.ppo import PpoRecipe
from vla_gen_bench.train.sft.trainer import SftRecipe

STAGES = {
    "openvla-grounding": GroundingRecipe, "openvla-acting": SftRecipe, "openvla-base": SftRecipe,
    "openvla-warmup": SftRecipe, "openvla-sft": SftRecipe, "openvla-ppo": PpoRecipe,
}  # fmt: skip
BEFORE = {"openvla-warmup": "openvla-base", "openvla-sft": "openvla-warmup", "openvla-ppo": "openvla-warmup"}
SCRIPT = (Path(__file__).resolve().parents[2] / "tools" / "references.sh").read_text()


def recipe(name: str) -> Recipe:
    return load_recipe(recipe_file(name), STAGES[name])


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_named_as_its_file_and_run_by_the_script(name):
    assert recipe(name).name == name
    assert re.search(rf"^ *train (grounding|sft|ppo) {name} ", SCRIPT, re.MULTILINE)


@pytest.mark.parametrize(("name", "before"), BEFORE.items())
def test_a_stage_begins_with_what_the_one_before_it_writes(name, before):
    """As published; the script, which trains all of them, gives the folder of the run."""
    assert recipe(name).model.checkpoint == before
    assert re.search(rf'train (sft|ppo) {name} .*"model.checkpoint=\$RUNS/{before}/checkpoint"', SCRIPT)
    for name, first in (("openvla-acting", "openvla-grounding"), ("openvla-base", "openvla-acting")):
        assert recipe(name).model.checkpoint == f"runs/train/{first}/checkpoint"


@pytest.mark.parametrize("name", ["openvla-acting", "openvla-base", "openvla-warmup", "openvla-sft"])
def test_the_script_collects_what_a_stage_learns_from(name):
    for folder in recipe(name).data:
        assert f'--out "$DATA/{folder.removeprefix("data/references/")}"' in SCRIPT


def test_only_the_base_sees_the_pretraining_world():
    worlds = {name: recipe(name).world for name in STAGES}
    pretrained = {name for name, world in worlds.items() if world == "pretrain"}
    assert pretrained == {"openvla-grounding", "openvla-acting", "openvla-base"}
    assert {worlds[name] for name in ("openvla-warmup", "openvla-sft", "openvla-ppo")} == {"builtin"}


@pytest.mark.parametrize("name", ["openvla-base", "openvla-warmup", "openvla-sft"])
def test_demonstrations_are_learned_with_unknown_words(name):
    assert recipe(name).augment.words > 0


def test_ppo_learns_by_sparse_reward_alone_as_it_is_judged():
    ppo = recipe("openvla-ppo")
    assert ppo.wander.length == 0 and ppo.camera_shift.share == 0 and ppo.horizon == 80 and ppo.ema > 0
    steps = ppo.episodes * ppo.horizon
    assert ppo.env_steps == 96 * steps == 1_966_080  # as published; the paper: 2,000,000


def test_both_stages_after_the_warm_up_change_nothing_of_how_the_policy_acts():
    for name in ("openvla-warmup", "openvla-sft", "openvla-ppo"):
        choice = recipe(name).model
        assert (choice.decoding, choice.chunk, choice.head) == (None, None, None)


def test_development_meets_no_start_of_an_evaluation():
    """Its pools are those of world pretrain; where geometry is shifted, it is shifted otherwise."""
    ours, theirs = load_suite("development"), load_suite("execution")
    evaluated = [scenario.shift for scenario in theirs.select() if scenario.dimension == "execution"]
    for scenario in ours.select():
        for shift in evaluated:
            assert not any(scenario.shift.axes.get(axis) == choice for axis, choice in shift.axes.items())
            assert not any(effect in shift.effects for effect in scenario.shift.effects)
