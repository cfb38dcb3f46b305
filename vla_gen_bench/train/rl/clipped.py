"""Clipped steps: how PPO and GRPO learn from decisions with advantages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.train.rl.actor_critic import Score
from vla_gen_bench.train.rl.experience import Experience
from vla_gen_bench.train.rl.learner import Learner, RlRecipe

SHUFFLE_STREAM = 0x990


class ClippedLoss(Frozen):
    """PPO's loss; the value part is left out without a critic.

    Attributes:
        clip: Ratios beyond 1 -+ clip bring no further gain.
        ratio: Of new to old probability. "decision": one joint ratio per decision, as in the reference. "action": one
            per action of a chunk, with the chunk's advantage: a parallel policy chooses its actions independently,
            and a joint ratio over K actions leaves the clip range that much sooner.
        policy_weight: Of the policy's loss. The reference uses 7, by accident: its buffer has seven columns for one
            joint log-probability, and the loss sums over them.
        value_weight, entropy: Of the value loss, and of the entropy bonus.
        value_clip: Values further than this from the old ones bring no further gain either; None = no clipping.
        huber: Errors above it count linearly.
        coarse: Round old log-probabilities, values, advantages and returns to bfloat16, as the reference does: at a
            log-probability of -10 the rounding step is 1/16.
    """

    clip: float = Field(0.2, gt=0)
    ratio: Literal["decision", "action"] = "decision"
    policy_weight: float = Field(1.0, ge=0)
    value_weight: float = Field(1.0, ge=0)
    entropy: float = Field(0.0, ge=0)
    value_clip: float | None = Field(0.2, gt=0)
    huber: float = Field(10.0, gt=0)
    coarse: bool = False


class ClippedRecipe(RlRecipe):
    """Settings shared by PPO and GRPO.

    Attributes:
        loss: See its class.
        batch: Decisions of one optimiser step over all processes; each computes its share in `accumulate` parts.
        target_kl: The rest of an iteration's steps is skipped when the KL divergence from the policy that collected
            exceeds this value, nats per decision (per action with `loss.ratio: action`); None = never.
    """

    loss: ClippedLoss = ClippedLoss()
    batch: int = Field(160, ge=1)
    accumulate: int = Field(1, ge=1)
    target_kl: float | None = Field(None, gt=0)


def clipped_steps(
    recipe: ClippedRecipe, learner: Learner, experience: Experience, value_only: bool = False
) -> dict[str, float]:
    """Makes `epochs` passes over the experience, one optimiser step per `batch`; returns the means over all steps."""
    sums: dict[str, float] = {}
    steps = 0
    share = max(1, recipe.batch // learner.processes.count)
    for rows in _batches(recipe, len(experience), share, learner.iteration):
        numbers: dict[str, float] = {}
        losses = _losses(recipe, learner, experience, rows, value_only, numbers)
        numbers["grad_norm"] = learner.step(losses, value_only)
        steps += 1
        for name, value in numbers.items():
            sums[name] = sums.get(name, 0.0) + value
        if recipe.target_kl is not None:
            kl = learner.processes.mean(torch.tensor(numbers["kl"], device=learner.actor.device))
            if float(kl) > recipe.target_kl:
                break
    return {name: value / steps for name, value in sums.items()}


def _batches(recipe: ClippedRecipe, count: int, size: int, iteration: int) -> Iterator[np.ndarray]:
    """Yields the decisions of each optimiser step, all of nearly equal size, about `size`."""
    for epoch in range(recipe.epochs):
        order = np.random.default_rng((SHUFFLE_STREAM, recipe.seed, iteration, epoch)).permutation(count)
        yield from np.array_split(order, max(1, round(count / size)))


def _losses(
    recipe: ClippedRecipe, learner: Learner, experience: Experience, rows: np.ndarray, value_only: bool,
    numbers: dict[str, float],
) -> Iterator[Tensor]:  # fmt: skip
    """Yields the loss of each part of a batch, and adds its components to `numbers`."""
    shared = recipe.value is None or recipe.value.shared
    for part in np.array_split(rows, min(recipe.accumulate, len(rows))):
        score = experience.score(learner, part, value_only=value_only, shared=shared)
        targets = old_numbers(experience, part, score.log_prob, recipe.loss)
        loss, parts = clipped_loss(recipe.loss, score, *targets, value_only)
        yield loss * (len(part) / len(rows))  # parts may differ in size
        for name, value in parts.items():
            numbers[name] = numbers.get(name, 0.0) + float(value.detach()) * len(part) / len(rows)


def clipped_loss(
    settings: ClippedLoss, score: Score, old_log_prob: Tensor, advantages: Tensor, old_values: Tensor,
    returns: Tensor, value_only: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Returns the loss and its components, scalars.

    Args:
        score: Scores of N decisions by the policy in training.
        old_log_prob: From the policy that made them: [N], joint; [N, K] if the ratio is per action.
        advantages: [N], or [N, K] if each action has its own.
        old_values, returns: [N].
        value_only: Leave out the policy's loss.
    """
    new = score.by_action if settings.ratio == "action" else score.log_prob[:, None]
    change = new - old_log_prob.reshape(new.shape)
    ratio, advantages = change.exp(), advantages.reshape(len(new), -1)
    clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    policy_loss = -settings.policy_weight * torch.minimum(ratio * advantages, clipped * advantages).mean()
    numbers = {
        "policy_loss": policy_loss,
        "kl": (ratio - 1 - change).mean(),  # never negative, unlike -change (Schulman 2020)
        "clip_fraction": ((ratio - 1).abs() > settings.clip).float().mean(),
        "entropy": score.entropy.mean(),
    }
    loss = 0.0 if value_only else policy_loss - settings.entropy * numbers["entropy"]
    if score.values is not None:
        numbers["value_loss"] = value_loss(settings, score.values, old_values, returns)
        loss = loss + settings.value_weight * numbers["value_loss"]
    return loss, numbers


def value_loss(settings: ClippedLoss, values: Tensor, old_values: Tensor, returns: Tensor) -> Tensor:
    """Returns the mean Huber loss of values [N]; where clipping increases the error, the clipped value counts."""
    losses = F.huber_loss(values, returns, reduction="none", delta=settings.huber)
    if settings.value_clip is not None:
        near = old_values + (values - old_values).clamp(-settings.value_clip, settings.value_clip)
        losses = torch.maximum(losses, F.huber_loss(near, returns, reduction="none", delta=settings.huber))
    return losses.mean()


def old_numbers(experience: Experience, rows: np.ndarray, like: Tensor, settings: ClippedLoss) -> list[Tensor]:
    """Returns old log-probabilities, advantages, old values and returns of some decisions."""
    log_probs = experience.by_action if settings.ratio == "action" else experience.log_probs
    columns = [column[rows] for column in (log_probs, experience.advantages, experience.values, experience.returns)]
    return [(column.bfloat16() if settings.coarse else column).to(like) for column in columns]
