"""A small checkpoint and its policy in training, one of each for every test file that asks for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from bandit import new_checkpoint
from rl_runs import recipe_of

from vla_gen_bench.train.processes import join
from vla_gen_bench.train.rl.actor_critic import ActorCritic
from vla_gen_bench.train.rl.learner import Learner


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_checkpoint(tmp_path_factory.mktemp("pico"))


@pytest.fixture(scope="module")
def actor(checkpoint: Path) -> ActorCritic:
    return Learner(recipe_of("ppo", checkpoint), join("cpu")).actor
