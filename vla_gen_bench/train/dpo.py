"""Trajectory-wise preference optimisation, TPO (Zhang et al. 2024, GRAPE): DPO (Rafailov et al. 2023) over episodes.

Of two episodes that began alike, the one with the higher return is preferred:

    loss = -log sigmoid(beta ((log pi(better) - log ref(better)) - (log pi(worse) - log ref(worse))))

where log pi of an episode is the sum over all its action tokens. Pairs are made of each iteration's own episodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vla_gen_bench.errors import UserError
from vla_gen_bench.train import ppo
from vla_gen_bench.train.advantages import Pair, preference_pairs
from vla_gen_bench.train.learner import Learner, RlRecipe
from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.rollout import Rollout

REFERENCE = "reference"
PAIR_STREAM = 0xD90


class DpoRecipe(RlRecipe):
    """DPO.

    Attributes:
        beta: How strongly the policy is held to the reference, which is the policy the run began with.
        pairs: At most so many per group of episodes.
        margin: Returns of a pair differ by at least so much.
        renew_every: Iterations after which the present policy becomes the reference; 0 = never.
        batch: Pairs of one optimiser step.
        part: Decisions computed at once.
    """

    trainer: Literal["dpo"]
    value: None = None
    group: int = Field(8, ge=2)
    beta: float = Field(0.1, gt=0)
    pairs: int = Field(2, ge=1)
    margin: float = Field(0.05, gt=0)
    renew_every: int = Field(0, ge=0)
    batch: int = Field(4, ge=1)
    part: int = Field(160, ge=1)


def train(recipe: DpoRecipe, out: Path, processes: Processes, *arguments: Any, **options: Any) -> Path:
    """As `ppo.train`; in one process only, for processes find different numbers of pairs."""
    if processes.count > 1:
        raise UserError("vgb train dpo: runs in one process; leave torchrun or accelerate out")
    return ppo.train(recipe, out, processes, *arguments, improve=improve, **options)


def improve(recipe: DpoRecipe, learner: Learner, rollout: Rollout) -> dict[str, float]:
    """One iteration's learning; returns numbers for the curve."""
    if REFERENCE not in learner.extra or (recipe.renew_every and learner.iteration % recipe.renew_every == 0):
        learner.extra[REFERENCE] = _copy(learner)
    pairs = preference_pairs(rollout.returns, recipe.group, recipe.pairs, recipe.margin)
    episodes = _Episodes(learner, rollout, recipe.part)
    with _weights(learner, learner.extra[REFERENCE]):
        reference = {number: episodes.log_prob(number) for pair in pairs for number in pair}
    found: list[dict[str, float]] = []
    for chosen in _batches(recipe, pairs, learner.iteration):
        present = {number: episodes.log_prob(number) for pair in chosen for number in pair}
        margins = preference_margins(recipe.beta, chosen, present, reference)
        numbers = {
            "policy_loss": float(preference_loss(margins)),
            "preferred": float((margins > 0).float().mean()),
            "kl": float(np.mean([episodes.divergence(number) for pair in chosen for number in pair])),
        }
        numbers["grad_norm"] = learner.step(_losses(recipe, episodes, chosen, margins))
        found.append(numbers)
    means = {name: float(np.mean([numbers[name] for numbers in found])) for name in found[0]} if found else {}
    return {"pairs": len(pairs), **means}


def preference_margins(
    beta: float, pairs: list[Pair], present: dict[int, Tensor], reference: dict[int, Tensor]
) -> Tensor:
    """Returns float64 [N], what is passed to the sigmoid, from log-probabilities of whole episodes by number."""
    gain = {number: (present[number] - reference[number]).double() for pair in pairs for number in pair}
    return beta * torch.stack([gain[pair.better] - gain[pair.worse] for pair in pairs])


def preference_loss(margins: Tensor) -> Tensor:
    """Returns the mean of -log sigmoid."""
    return F.softplus(-margins).mean()


def _losses(recipe: DpoRecipe, episodes: _Episodes, pairs: list[Pair], margins: Tensor) -> Iterator[Tensor]:
    """Yields terms whose gradients add up to that of `preference_loss`, without holding a whole episode's graph.

    d loss / d log pi(better) = -beta sigmoid(-margin) / N, and the opposite for the worse one.
    """
    pulls = recipe.beta * torch.sigmoid(-margins) / len(pairs)
    for pair, pull in zip(pairs, pulls.tolist()):
        for number, sign in ((pair.better, 1.0), (pair.worse, -1.0)):
            for log_probs in episodes.scores(number):
                yield -sign * pull * log_probs.sum()


def _batches(recipe: DpoRecipe, pairs: list[Pair], iteration: int) -> Iterator[list[Pair]]:
    for epoch in range(recipe.epochs if pairs else 0):
        order = np.random.default_rng((PAIR_STREAM, recipe.seed, iteration, epoch)).permutation(len(pairs))
        for part in np.array_split(order, -(-len(pairs) // recipe.batch)):
            yield [pairs[place] for place in part]


class _Episodes:
    """Whole episodes of a rollout under the policy as it is."""

    def __init__(self, learner: Learner, rollout: Rollout, part: int) -> None:
        self._learner, self._part = learner, part
        self._experience = ppo.Experience.of(rollout, np.zeros(rollout.rewards.shape[:2]))
        self._found: dict[int, Tensor] = {}

    def _rows(self, number: int) -> np.ndarray:
        decisions, count = self._experience.rollout.tokens.shape[:2]
        return np.arange(decisions) * count + number

    def scores(self, number: int) -> Iterator[Tensor]:
        """Yields log-probabilities of the decisions of episode `number`, part by part, with gradients."""
        rows = self._rows(number)
        for part in np.array_split(rows, -(-len(rows) // self._part)):
            yield self._experience.score(self._learner, part).log_prob

    @torch.no_grad()
    def log_prob(self, number: int) -> Tensor:
        """Returns the log-probability of the whole episode, a scalar."""
        self._found[number] = torch.cat(list(self.scores(number))).cpu()
        return self._found[number].double().sum()

    def divergence(self, number: int) -> float:
        """Returns the KL estimate of PPO at the last `log_prob` of that episode, nats per decision."""
        change = self._found[number] - self._experience.log_probs[self._rows(number)]
        return float((change.exp() - 1 - change).mean())


def _copy(learner: Learner) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in learner.weights().items()}


@contextmanager
def _weights(learner: Learner, others: dict[str, Tensor]) -> Iterator[None]:
    """Puts other trained weights in place meanwhile; with an adapter these are the adapter's alone."""
    own = _copy(learner)
    try:
        _put(learner, others)
        yield
    finally:
        _put(learner, own)


@torch.no_grad()
def _put(learner: Learner, weights: dict[str, Tensor]) -> None:
    for name, value in learner.weights().items():
        value.copy_(weights[name])
