"""Proximal policy optimisation of a VLA (Schulman et al. 2017; arXiv 2505.19789).

One iteration: estimate the advantage of each action (`improve`), take a few clipped steps (`clipped`). The loop around
it is `loop.run`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.rl import advantages as adv
from vla_gen_bench.train.rl import loop
from vla_gen_bench.train.rl.actor_critic import ValueSettings
from vla_gen_bench.train.rl.clipped import ClippedRecipe, clipped_steps
from vla_gen_bench.train.rl.experience import Experience
from vla_gen_bench.train.rl.learner import Learner
from vla_gen_bench.train.rl.rollout import Rollout
from vla_gen_bench.train.rl.state_critic import estimate, fit


class PpoRecipe(ClippedRecipe):
    """PPO.

    Attributes:
        gamma, lam: Discount per control step, and GAE's lambda per value: decisions, or control steps with
            `value.source: state`. Both 1: PPO-ORZ.
        time_limit: "bootstrap": an episode that is cut off would have continued. "terminal": it ends with the time
            limit, as in the reference, although the policy does not see the time.
        normalise: Normalise advantages to mean 0 and deviation 1 over all episodes of the iteration, across processes.
    """

    trainer: Literal["ppo"]
    value: ValueSettings = ValueSettings()
    gamma: float = Field(0.99, ge=0, le=1)
    lam: float = Field(0.95, ge=0, le=1)
    time_limit: Literal["bootstrap", "terminal"] = "bootstrap"
    normalise: bool = True

    @property
    def foresees(self) -> bool:
        return self.time_limit == "bootstrap"


def train(
    recipe: PpoRecipe,
    out: Path,
    processes: Processes,
    say: Callable[[str], None],
    options: loop.RlOptions,
) -> Path:
    """Trains by PPO; see `loop.run`."""
    return loop.run(recipe, out, processes, say, improve, options)


def improve(recipe: PpoRecipe, learner: Learner, rollout: Rollout) -> dict[str, float]:
    """Learns from one iteration: GAE, then clipped steps; returns numbers for the curve."""
    advantages, values, returns = estimated(recipe, learner, rollout)
    numbers = {"explained_variance": adv.explained_variance(values, returns)}
    if recipe.normalise:
        advantages = adv.normalised(advantages, learner.processes.moments)
    value_only = learner.iteration < recipe.value.warmup
    if rollout.states is None:
        return numbers | clipped_steps(recipe, learner, Experience.of(rollout, advantages, returns), value_only)
    if not value_only:
        numbers |= clipped_steps(recipe, learner, Experience.of(rollout, advantages))
    states = rollout.states[:-1].reshape(returns.size, -1)
    return numbers | {"value_loss": fit(learner, states, returns.ravel(), recipe.value.epochs)}


def estimated(recipe: PpoRecipe, learner: Learner, rollout: Rollout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns advantages, values and returns: of decisions, [T, B] each.

    With a critic of the simulator's state: values and returns of control steps, [T K, B], and with `loss.ratio: action`
    advantages of actions, [T, B, K].
    """
    if rollout.states is not None:
        by_action = recipe.loss.ratio == "action"
        return estimate(learner, rollout, recipe.gamma, recipe.lam, recipe.foresees, by_action)
    rewards = adv.chunk_rewards(rollout.rewards, recipe.gamma)
    values, after = rollout.values[:-1], rollout.values[-1] * recipe.foresees
    discount = recipe.gamma ** rollout.rewards.shape[2]
    advantages, returns = adv.gae(rewards, values, after, discount, recipe.lam)
    return advantages, values, returns
