"""Small runs of PPO, GRPO and DPO on `bandit`, and what their losses are computed from."""

from __future__ import annotations

import csv
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bandit import BanditBatch

from vla_gen_bench.train.processes import join
from vla_gen_bench.train.rl import dpo, grpo, ppo
from vla_gen_bench.train.rl.actor_critic import ActorCritic, Sampling, Score
from vla_gen_bench.train.rl.clipped import ClippedLoss, clipped_loss
from vla_gen_bench.train.rl.learner import Learner
from vla_gen_bench.train.rl.loop import RlOptions
from vla_gen_bench.train.rl.rollout import Collector, Rollout
from vla_gen_bench.train.starts import Wander, starts

HORIZON, ITERATIONS = 2, 20
FAST = {"lr": 0.008, "betas": (0.9, 0.95), "clip": 10.0}
ALGORITHMS = {
    "ppo": (ppo, ppo.PpoRecipe, {"batch": 32, "gamma": 0.0, "time_limit": "terminal", "epochs": 2}),
    "grpo": (grpo, grpo.GrpoRecipe, {"batch": 32, "epochs": 2}),
    "dpo": (dpo, dpo.DpoRecipe, {"batch": 16, "beta": 1.0, "pairs": 4, "margin": 0.1, "renew_every": 1, "epochs": 3}),
}


def recipe_of(name: str, checkpoint: Path, **changes: Any):
    _, kind, own = ALGORITHMS[name]
    common = {
        "name": "bandit", "trainer": name, "model": {"checkpoint": str(checkpoint)}, "optimiser": FAST,
        "env_steps": 64 * HORIZON * ITERATIONS, "episodes": 64, "horizon": HORIZON, "together": 64, "lanes": 2,
    }  # fmt: skip
    return kind(**{**common, **own, **changes})


def run(recipe: Any, out: Path, **options: Any) -> list[dict[str, str]]:
    """Trains in this process; returns the rows of the curve."""
    module, _, _ = ALGORITHMS[recipe.trainer]
    build = partial(BanditBatch, horizon=recipe.horizon)
    module.train(recipe, out, join("cpu"), lambda line: None, RlOptions(**{"workers": 0, "build": build, **options}))
    with (out / "curve.csv").open() as file:
        return list(csv.DictReader(file))


def collected(actor: ActorCritic, simulator: Any, episodes: int = 5) -> Rollout:
    """Collects episodes of four steps, with two random moves before them."""
    try:
        collector = Collector(simulator, actor, 4)
        chosen = starts("builtin", 0, 0, episodes, wander=Wander(steps=2))
        return collector.collect(chosen, Sampling(), foresee=True)
    finally:
        simulator.close()


def assert_same(found: Rollout, expected: Rollout) -> None:
    for name in ("images", "tokens", "log_probs", "values", "rewards"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert (found.states is None) == (expected.states is None)
    assert found.states is None or np.array_equal(found.states, expected.states)
    assert all(np.array_equal(found.flags[name], expected.flags[name]) for name in expected.flags)
    assert (found.digests, found.prompts) == (expected.digests, expected.prompts)


def score(log_prob: list[float], values: list[float] | None = None) -> Score:
    rows = torch.tensor(log_prob, requires_grad=True)
    return Score(rows, torch.full((len(log_prob),), 2.0), None if values is None else torch.tensor(values))


def loss_of(settings: ClippedLoss, scored: Score, advantages: list[float], **others: list[float]):
    zeros = torch.zeros(len(advantages))
    targets = {"old_log_prob": zeros, "old_values": zeros, "returns": zeros}
    targets |= {name: torch.tensor(values) for name, values in others.items()}
    return clipped_loss(settings, scored, advantages=torch.tensor(advantages), **targets)


def some_rollout(subject: Learner, episodes: int, decisions: int, seed: int = 0) -> Rollout:
    """Random images and actions; log-probabilities as a policy at chance would have them."""
    random = np.random.default_rng(seed)
    begin, end = subject.student.config.action_range
    shape = (decisions, episodes)
    return Rollout(
        images=random.integers(0, 256, (*shape, 32, 32, 3), dtype=np.uint8),
        squashed=True,
        prompts=[subject.actor.processor.tokenizer.prompt("put carrot on plate")] * episodes,
        tokens=random.integers(begin, end, (*shape, 7)),
        log_probs=np.full((*shape, 7), -math.log(256), np.float32),
        values=np.zeros((decisions + 1, episodes), np.float32),
        rewards=np.zeros((*shape, 1), np.float32),
        flags={},
        digests=("",) * episodes,
    )
