"""Trajectory-wise preference optimisation, TPO (Zhang et al. 2024, GRAPE): DPO (Rafailov et al. 2023) over episodes.

Of two episodes that shared an initial state, the one with the higher return is preferred:

    loss = -log sigmoid(beta ((log pi(better) - log ref(better)) - (log pi(worse) - log ref(worse))))

where log pi of an episode is the sum over all its action tokens. Pairs come from each iteration's own episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vla_gen_bench.errors import UserError
from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.rl import loop
from vla_gen_bench.train.rl.advantages import Pair, preference_pairs
from vla_gen_bench.train.rl.experience import Experience
from vla_gen_bench.train.rl.learner import Learner, RlRecipe
from vla_gen_bench.train.rl.rollout import Rollout

REFERENCE = "reference"
PAIR_STREAM = 0xD90


class DpoRecipe(RlRecipe):
    """DPO.

    Attributes:
        beta: How strongly the policy is held to the reference, the policy that the run started from.
        pairs: Maximum number per group of episodes.
        margin: Minimum difference of a pair's returns.
        renew_every: Iterations after which the current policy becomes the reference; 0 = never.
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


def train(
    recipe: DpoRecipe,
    out: Path,
    processes: Processes,
    say: Callable[[str], None],
    options: loop.RlOptions,
) -> Path:
    """Trains by DPO, see `loop.run`; in one process only, because processes would find different numbers of pairs."""
    if processes.count > 1:
        raise UserError("vgb train dpo: runs in one process; leave torchrun or accelerate out")
    return loop.run(recipe, out, processes, say, improve, options)


def improve(recipe: DpoRecipe, learner: Learner, rollout: Rollout) -> dict[str, float]:
    """Learns from one iteration; returns numbers for the curve."""
    if REFERENCE not in learner.extra or (recipe.renew_every and learner.iteration % recipe.renew_every == 0):
        learner.extra[REFERENCE] = _copy(learner)
    pairs = preference_pairs(rollout.returns, recipe.group, recipe.pairs, recipe.margin)
    episodes = _Episodes(learner, rollout, recipe.part)
    with _weights(learner, learner.extra[REFERENCE]):
        reference = episodes.log_probs(_numbers(pairs))
    found: list[dict[str, float]] = []
    for chosen in _batches(recipe, pairs, learner.iteration):
        present = episodes.log_probs(_numbers(chosen))
        margins = preference_margins(recipe.beta, chosen, present, reference)
        numbers = {
            "policy_loss": float(preference_loss(margins)),
            "preferred": float((margins > 0).float().mean()),
            "kl": episodes.divergence(),
        }
        numbers["grad_norm"] = learner.step(_losses(recipe, episodes, chosen, margins))
        found.append(numbers)
    means = {name: float(np.mean([numbers[name] for numbers in found])) for name in found[0]} if found else {}
    return {"pairs": len(pairs), **means}


def preference_margins(
    beta: float, pairs: list[Pair], present: dict[int, Tensor], reference: dict[int, Tensor]
) -> Tensor:
    """Returns float64 [N], the arguments of the sigmoid, from log-probabilities of complete episodes by index."""
    gain = {number: (present[number] - reference[number]).double() for pair in pairs for number in pair}
    return beta * torch.stack([gain[pair.better] - gain[pair.worse] for pair in pairs])


def preference_loss(margins: Tensor) -> Tensor:
    """Returns the mean of -log sigmoid over pairs."""
    return F.softplus(-margins).mean()


def _losses(recipe: DpoRecipe, episodes: _Episodes, pairs: list[Pair], margins: Tensor) -> Iterator[Tensor]:
    """Yields terms whose gradients add up to that of `preference_loss`, without holding the graph of a full episode.

    d loss / d log pi(better) = -beta sigmoid(-margin) / N, and the opposite for the worse one.
    """
    pulls = recipe.beta * torch.sigmoid(-margins) / len(pairs)
    weights = torch.zeros(episodes.count, dtype=pulls.dtype)
    weights[[pair.better for pair in pairs]] = -pulls
    weights[[pair.worse for pair in pairs]] = pulls
    for rows, log_probs in episodes.scores(_numbers(pairs)):
        yield (weights[rows % episodes.count].to(log_probs) * log_probs).sum()


def _numbers(pairs: list[Pair]) -> list[int]:
    return [number for pair in pairs for number in pair]


def _batches(recipe: DpoRecipe, pairs: list[Pair], iteration: int) -> Iterator[list[Pair]]:
    for epoch in range(recipe.epochs if pairs else 0):
        order = np.random.default_rng((PAIR_STREAM, recipe.seed, iteration, epoch)).permutation(len(pairs))
        for part in np.array_split(order, -(-len(pairs) // recipe.batch)):
            yield [pairs[place] for place in part]


class _Episodes:
    """Complete episodes of a rollout, scored by the current policy.

    Attributes:
        count: Number of episodes; row r of the experience is a decision of episode r % count.
    """

    def __init__(self, learner: Learner, rollout: Rollout, part: int) -> None:
        self._learner, self._part = learner, part
        self._experience = Experience.of(rollout, np.zeros(rollout.rewards.shape[:2]))
        self._decisions, self.count = rollout.tokens.shape[:2]
        self._change = torch.empty(0)

    def scores(self, numbers: Sequence[int]) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Yields rows of the experience and their log-probabilities, with gradients, part by part.

        The rows are all decisions of the episodes, one episode after the other.
        """
        rows = (np.array(numbers, int)[:, None] + np.arange(self._decisions) * self.count).ravel()
        for part in np.array_split(rows, -(-len(rows) // self._part)):
            yield part, self._experience.score(self._learner, part).log_prob

    @torch.no_grad()
    def log_probs(self, numbers: Sequence[int]) -> dict[int, Tensor]:
        """Returns the log-probabilities of complete episodes, float64 scalars, by index."""
        if not numbers:
            return {}
        rows, found = zip(*((rows, log_probs.cpu()) for rows, log_probs in self.scores(numbers)), strict=True)
        self._change = torch.cat(found) - self._experience.log_probs[np.concatenate(rows)]
        sums = torch.cat(found).double().reshape(len(numbers), self._decisions).sum(1)
        return dict(zip(numbers, sums))

    def divergence(self) -> float:
        """Returns the KL estimate of PPO over the episodes of the last `log_probs`, nats per decision."""
        return float((self._change.exp() - 1 - self._change).mean())


def _copy(learner: Learner) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in learner.weights().items()}


@contextmanager
def _weights(learner: Learner, others: dict[str, Tensor]) -> Iterator[None]:
    """Temporarily swaps in other trained weights; with an adapter, only the adapter's."""
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
