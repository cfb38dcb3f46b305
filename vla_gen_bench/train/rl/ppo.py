"""Proximal policy optimisation of a VLA (Schulman et al. 2017; arXiv 2505.19789). Reads top to bottom.

One iteration: run episodes with the policy as it is, estimate what each action was worth, take a few clipped steps,
log, save. Every draw is keyed by (seed, iteration), so that a run that was killed goes on as if it had not been.

GRPO and DPO are other ways to learn from the same rollouts: they hand `train` another `improve`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vla_gen_bench import runtime
from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.errors import UserError
from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.rl import advantages as adv
from vla_gen_bench.train.rl.actor_critic import Score, ValueSettings, by_action
from vla_gen_bench.train.rl.learner import Learner, RlRecipe, choose_simulation, open_simulator, use_threads
from vla_gen_bench.train.rl.rollout import Collector, Rollout
from vla_gen_bench.train.rl.watch import NUMBERS, check, progress_line, summary
from vla_gen_bench.train.run import CHECKPOINT, Curve, open_run
from vla_gen_bench.train.starts import starts

SHUFFLE_STREAM = 0x990

Improve = Callable[[Any, Learner, Rollout], dict[str, float]]
"""(recipe, learner, rollout) -> numbers for the curve: learns from an iteration's experience."""


class ClippedLoss(Frozen):
    """PPO's loss; the value part is left out where there is no critic.

    Attributes:
        clip: Ratios beyond 1 -+ clip earn nothing.
        ratio: Of new to old probability. "decision": one of all tokens of a decision, as the reference. "action": one
            of each action of a chunk, with the chunk's advantage: those of a parallel policy are chosen independently,
            and a joint ratio of K of them leaves the clip range that much sooner.
        policy_weight: Of the policy's loss. The reference's is 7, by an accident: its buffer has seven columns for one
            joint log-probability, and the loss sums over them.
        value_weight, entropy: Of the value loss, and of the entropy bonus.
        value_clip: Values further than this from the old ones earn nothing either; None = not clipped.
        huber: Errors beyond it count linearly.
        coarse: Round old log-probabilities, values, advantages and returns to bfloat16, as the reference does: at a
            log-probability of -10 that is a step of 1/16.
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
    """What PPO and GRPO share.

    Attributes:
        loss: See its class.
        batch: Decisions of one optimiser step over all processes; each computes its share in `accumulate` parts.
        target_kl: The rest of an iteration's steps is left out when the KL divergence from the policy that collected
            exceeds this, nats per decision (per action with `loss.ratio: action`); None = never.
    """

    loss: ClippedLoss = ClippedLoss()
    batch: int = Field(160, ge=1)
    accumulate: int = Field(1, ge=1)
    target_kl: float | None = Field(None, gt=0)


class PpoRecipe(ClippedRecipe):
    """PPO.

    Attributes:
        gamma, lam: Discount per control step, and GAE's lambda. Both 1: PPO-ORZ.
        time_limit: "bootstrap": an episode that is cut off would have gone on. "terminal": it ends with the time
            limit, as in the reference, although the policy sees no clock.
        normalise: Give advantages mean 0 and deviation 1 over the iteration, all processes' episodes together.
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
    recipe: RlRecipe,
    out: Path,
    processes: Processes,
    say: Callable[[str], None],
    improve: Improve | None = None,
    **options: Any,
) -> Path:
    """Trains as `recipe` says, or goes on where the run in `out` was broken off; returns the checkpoint folder.

    Args:
        say: Gets one line of progress per iteration.
        improve: How to learn from a rollout; None = PPO.
        options: `fresh`: begin anew. `wandb`: a project's name. `workers`: processes that simulate, one per core by
            default. `build`: see `open_simulator`.

    Raises:
        UserError: The recipe, the checkpoint or the folder cannot be used, or learning broke down.
    """
    improve = improve or improve_by_ppo
    if recipe.episodes % (processes.count * recipe.group):
        raise UserError(f"episodes: {recipe.episodes} cannot be shared out to {processes.count} processes")
    build = options.get("build")
    simulation = "cpu" if build else choose_simulation(recipe)  # before a large model is loaded
    state = open_run(out, recipe, options.get("fresh", False)) if processes.first else None
    state = processes.shared(state)
    learner = Learner(recipe, processes)
    if state:
        learner.restore(state)
    curve = None
    if processes.first:
        curve = Curve(out, NUMBERS, learner.iteration if state else None, options.get("wandb"))
    share, cores = recipe.episodes // processes.count, max(1, runtime.usable_cores() // processes.count)
    workers = options.get("workers", cores)
    with open_simulator(recipe, learner.actor, simulation, workers, build) as simulator:
        collector = Collector(simulator, learner.actor, recipe.horizon, say)
        for iteration in range(learner.iteration, recipe.iterations):
            began = time.perf_counter()
            use_threads(1)
            chosen = starts(
                recipe.world, recipe.seed, iteration, recipe.episodes, recipe.group, recipe.wander, recipe.camera_shift
            )
            chosen = chosen[processes.rank * share :][:share]
            rollout = collector.collect(chosen, recipe.sampling, recipe.foresees)
            use_threads(cores)
            numbers = improve(recipe, learner, rollout)
            numbers |= summary(rollout, time.perf_counter() - began, learner)
            learner.end_iteration()
            if curve is None:
                continue
            if recipe.check_every and learner.iteration % recipe.check_every == 0:
                with learner.averaged.in_place():
                    numbers |= check(collector, recipe, learner.iteration, out)
                learner.export(out / CHECKPOINT)
            if recipe.keep_every and learner.iteration % recipe.keep_every == 0:
                learner.export(out / "checkpoints" / f"{learner.iteration:04d}")
            curve.log(**numbers)
            learner.save(out)
            say(progress_line(numbers, recipe, curve.wall_s))
    if processes.first:
        learner.export(out / CHECKPOINT)
    processes.wait()
    return out / CHECKPOINT


# ---- what the actions were worth ---------------------------------------------------------------------------


def improve_by_ppo(recipe: PpoRecipe, learner: Learner, rollout: Rollout) -> dict[str, float]:
    """One iteration's learning: GAE, then clipped steps; returns numbers for the curve."""
    rewards = adv.chunk_rewards(rollout.rewards, recipe.gamma)
    after = rollout.values[-1] * recipe.foresees
    discount = recipe.gamma ** rollout.rewards.shape[2]
    advantages, returns = adv.gae(rewards, rollout.values[:-1], after, discount, recipe.lam)
    numbers = {"explained_variance": adv.explained_variance(rollout.values[:-1], returns)}
    if recipe.normalise:
        advantages = adv.normalised(advantages, learner.processes.moments)
    value_only = learner.iteration < recipe.value.warmup
    return numbers | clipped_steps(recipe, learner, Experience.of(rollout, advantages, returns), value_only)


@dataclass(frozen=True)
class Experience:
    """N = T x B decisions: the rollout they are part of, and float32 [N] each of what PPO compares with.

    Attributes:
        by_action: float32 [N, K], `log_probs` action by action.
    """

    rollout: Rollout
    log_probs: Tensor
    advantages: Tensor
    values: Tensor
    returns: Tensor
    by_action: Tensor

    @classmethod
    def of(cls, rollout: Rollout, advantages: np.ndarray, returns: np.ndarray | None = None) -> Experience:
        """Returns the decisions of a rollout with their advantages and returns, [T, B] each."""
        values = rollout.values[:-1]
        columns = (rollout.log_probs.sum(-1), advantages, values, values if returns is None else returns)
        rows = (torch.from_numpy(np.asarray(column, np.float32).ravel()) for column in columns)
        return cls(rollout, *rows, by_action(torch.from_numpy(rollout.log_probs)).flatten(0, 1))

    def __len__(self) -> int:
        return len(self.advantages)

    def score(self, learner: Learner, rows: np.ndarray, **how: bool) -> Score:
        """Returns what the learner now says about some decisions."""
        rollout = self.rollout
        t, b = np.divmod(rows, rollout.tokens.shape[1])
        inputs = learner.actor.look(rollout.images[t, b], [rollout.prompts[row] for row in b], rollout.squashed)
        tokens = torch.from_numpy(rollout.tokens[t, b]).to(learner.actor.device)
        return learner.actor.score(inputs, tokens, **how)

    def targets(self, rows: np.ndarray, like: Tensor, settings: ClippedLoss) -> list[Tensor]:
        """Returns old log-probabilities, advantages, old values and returns of some decisions."""
        log_probs = self.by_action if settings.ratio == "action" else self.log_probs
        columns = [column[rows] for column in (log_probs, self.advantages, self.values, self.returns)]
        return [(column.bfloat16() if settings.coarse else column).to(like) for column in columns]


# ---- learning from it --------------------------------------------------------------------------------------


def clipped_steps(
    recipe: ClippedRecipe, learner: Learner, experience: Experience, value_only: bool = False
) -> dict[str, float]:
    """Makes `epochs` passes over the experience, an optimiser step per `batch`; returns the means over all steps."""
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
    """Yields the decisions of each optimiser step, all of nearly the same number, about `size`."""
    for epoch in range(recipe.epochs):
        order = np.random.default_rng((SHUFFLE_STREAM, recipe.seed, iteration, epoch)).permutation(count)
        yield from np.array_split(order, max(1, round(count / size)))


def _losses(
    recipe: ClippedRecipe, learner: Learner, experience: Experience, rows: np.ndarray, value_only: bool,
    numbers: dict[str, float],
) -> Iterator[Tensor]:  # fmt: skip
    """Yields the loss of each part of a batch, and adds to `numbers` what it is made of."""
    shared = recipe.value is None or recipe.value.shared
    for part in np.array_split(rows, min(recipe.accumulate, len(rows))):
        score = experience.score(learner, part, value_only=value_only, shared=shared)
        targets = experience.targets(part, score.log_prob, recipe.loss)
        loss, parts = clipped_loss(recipe.loss, score, *targets, value_only)
        yield loss * (len(part) / len(rows))
        for name, value in parts.items():
            numbers[name] = numbers.get(name, 0.0) + float(value.detach()) * len(part) / len(rows)


def clipped_loss(
    settings: ClippedLoss, score: Score, old_log_prob: Tensor, advantages: Tensor, old_values: Tensor,
    returns: Tensor, value_only: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Returns the loss and what it is made of, scalars.

    Args:
        score: What the policy in training says about N decisions.
        old_log_prob: Of the policy that made them: [N], joint; [N, K] where the ratio is that of an action.
        advantages, old_values, returns: [N].
        value_only: Leave the policy out.
    """
    new = score.by_action if settings.ratio == "action" else score.log_prob[:, None]
    change = new - old_log_prob.reshape(new.shape)
    ratio, advantages = change.exp(), advantages[:, None]
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
    """Returns the mean Huber loss of values [N]; where clipped values are further off, theirs."""
    losses = F.huber_loss(values, returns, reduction="none", delta=settings.huber)
    if settings.value_clip is not None:
        near = old_values + (values - old_values).clamp(-settings.value_clip, settings.value_clip)
        losses = torch.maximum(losses, F.huber_loss(near, returns, reduction="none", delta=settings.huber))
    return losses.mean()
