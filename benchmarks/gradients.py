"""Whether an RL iteration can detect improvement: `.venv/bin/python benchmarks/gradients.py NAME=CHECKPOINT ...`.

Writes two tables under docs/experiments/data. A checkpoint's rows replace those of its name, temperature and, in
`gradients.csv`, episodes and critic. All use the recipe of `openvla-ppo` (or `--recipe`) and training-pool episodes
from run seeds that no training uses.

`gradients.csv`: the cosine between the policy gradients of two independent iterations (mean and extremes over all pairs
of `--iterations`), for several lambdas. With S the squared norm of the true gradient and N that of one iteration's
noise, its expectation is about S / (S + N): (1 - c) / c times as many episodes make the signal as large as the noise.
`critic`: what it reads; `critic_iterations`: those that it learned from beforehand, while the policy stood still
(`--critic`). Without them a checkpoint that has no value head is judged by an untrained one, whose values are near 0.

`tries.csv`: how often each start succeeds in eight tries: whether a failing start ever succeeds by chance.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from result_tables import add

from vla_gen_bench import runtime

runtime.prepare()

from vla_gen_bench.train.processes import join  # noqa: E402
from vla_gen_bench.train.recipe import load_recipe, parse_changes, recipe_file  # noqa: E402
from vla_gen_bench.train.rl import advantages as adv  # noqa: E402
from vla_gen_bench.train.rl.clipped import clipped_loss, old_numbers  # noqa: E402
from vla_gen_bench.train.rl.experience import Experience  # noqa: E402
from vla_gen_bench.train.rl.learner import Learner, open_simulator, use_threads  # noqa: E402
from vla_gen_bench.train.rl.ppo import PpoRecipe, estimated, improve  # noqa: E402
from vla_gen_bench.train.rl.rollout import Collector, Rollout  # noqa: E402
from vla_gen_bench.train.starts import starts  # noqa: E402

GRADIENT_SEED, TRIES_SEED = 88, 89
TRIES, PART = 8, 256
LAMBDAS = (0.0, 0.5, 0.8, 0.95, 1.0)


def gradient(recipe: PpoRecipe, learner: Learner, rollout: Rollout, lam: float) -> torch.Tensor:
    """Returns the gradient of PPO's policy loss before its first step, with all weights of the policy in one row."""
    advantages, _, _ = estimated(recipe.model_copy(update={"lam": lam}), learner, rollout)
    experience = Experience.of(rollout, adv.normalised(advantages))
    settings = recipe.loss.model_copy(update={"value_weight": 0.0})
    weights = [value for value in learner.student.model.parameters() if value.requires_grad]
    for weight in weights:
        weight.grad = None
    for rows in np.array_split(np.arange(len(experience)), max(1, len(experience) // PART)):
        score = experience.score(learner, rows)
        loss, _ = clipped_loss(settings, score, *old_numbers(experience, rows, score.log_prob, settings))
        (loss * (len(rows) / len(experience))).backward()
    return torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])


def collected(recipe: PpoRecipe, collector: Collector, seed: int, iteration: int, group: int = 1) -> Rollout:
    """Collects and returns an iteration's episodes."""
    use_threads(1)
    chosen = starts(recipe.world, seed, iteration, recipe.episodes, group, recipe.wander)
    return collector.collect(chosen, recipe.sampling, recipe.foresees)


def fit_critic(recipe: PpoRecipe, learner: Learner, rollout: Rollout) -> float:
    """Fits the critic to an iteration of which the policy learns nothing; returns the explained variance before it."""
    use_threads(runtime.usable_cores())
    still = recipe.model_copy(update={"value": recipe.value.model_copy(update={"warmup": 1})})
    return round(improve(still, learner, rollout)["explained_variance"], 3)


def agreement(
    recipe: PpoRecipe, learner: Learner, rollouts: list[Rollout], lambdas: tuple[float, ...]
) -> list[dict[str, float]]:
    """Returns a row per lambda: how well the gradients of different iterations agree."""
    rows = []
    for lam in lambdas:
        gradients = [gradient(recipe, learner, rollout, lam) for rollout in rollouts]
        cosines = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in combinations(gradients, 2)]
        numbers = {"cosine": np.mean(cosines), "lowest": min(cosines), "highest": max(cosines)}
        rows.append({"lambda": lam, "iterations": len(rollouts)} | {k: round(v, 4) for k, v in numbers.items()})
    return rows


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, metavar="NAME=CHECKPOINT...")
@click.option("--iterations", default=6, show_default=True, help="For the gradients, and half as many for the tries.")
@click.option("--recipe", "given", default="openvla-ppo", show_default=True, help="Recipe of PPO.")
@click.option("--critic", default=0, show_default=True, help="Iterations that the critic learns from beforehand.")
@click.option("--lambda", "lambdas", type=float, multiple=True, default=LAMBDAS, show_default=True)
@click.option("--tries/--no-tries", default=True, show_default=True, help="Also `tries.csv`.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change the recipe; repeat.")
@click.option("--write", is_flag=True, help="Into the tables; otherwise rows are printed alone.")
def main(
    checkpoints: tuple[str, ...], iterations: int, given: str, changes: tuple[str, ...], critic: int,
    lambdas: tuple[float, ...], tries: bool, write: bool,
) -> None:  # fmt: skip
    """See the top of the file."""
    for name, path in (pair.split("=", 1) for pair in checkpoints):
        start = {"model.checkpoint": str(Path(path).resolve())}
        recipe = load_recipe(recipe_file(given), PpoRecipe, parse_changes(changes) | start)
        learner = Learner(recipe, join("cpu"))
        with open_simulator(recipe, learner.actor, "cpu", runtime.usable_cores()) as simulator:
            collector = Collector(simulator, learner.actor, recipe.horizon)
            for number in range(iterations, iterations + critic):
                explained = fit_critic(recipe, learner, collected(recipe, collector, GRADIENT_SEED, number))
                print(f"the critic explained {explained} of the variance of returns", flush=True)
            rollouts = [collected(recipe, collector, GRADIENT_SEED, number) for number in range(iterations)]
            counted = range(iterations // 2 if tries else 0)
            again = [collected(recipe, collector, TRIES_SEED, number, TRIES) for number in counted]
        use_threads(runtime.usable_cores())
        says = {"policy": name, "temperature": recipe.sampling.temperature}
        sees = says | {"episodes": recipe.episodes, "critic": recipe.value.source, "critic_iterations": critic}
        tables = [("gradients.csv", sees, agreement(recipe, learner, rollouts, lambdas))]
        if tries:
            placed = np.concatenate([rollout.flags["success"].reshape(-1, TRIES).sum(axis=1) for rollout in again])
            counts = np.bincount(placed, minlength=TRIES + 1)
            outcomes = {"starts": len(placed)} | {f"placed_{k}": n for k, n in enumerate(counts)}
            tables.append(("tries.csv", says, [outcomes]))
        for file, keys, rows in tables:
            rows = [keys | row for row in rows]
            print(pd.DataFrame(rows).to_string(index=False), flush=True)
            if write:
                add(file, rows, tuple(keys))


if __name__ == "__main__":
    main()
