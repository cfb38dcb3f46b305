"""What an RL run reports: the columns of its curve, checks, videos, and a progress line.

The columns are explained in docs/training_rl.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from vla_gen_bench.episodes.draw import draw_training
from vla_gen_bench.train.closed_loop import CHECK_SEED
from vla_gen_bench.train.rl.actor_critic import Sampling
from vla_gen_bench.train.rl.learner import Learner, RlRecipe, use_threads
from vla_gen_bench.train.rl.rollout import Collector, Rollout
from vla_gen_bench.train.starts import Start

NUMBERS = (
    "iteration", "env_steps", "wall_s", "success", "success_once", "held", "return",
    "policy_loss", "value_loss", "kl", "clip_fraction", "entropy", "explained_variance", "grad_norm", "lr",
    "pairs", "preferred", "steps_per_s", "sim_share", "policy_share", "update_share",
    "check_success", "check_success_once", "check_held",
)  # fmt: skip
SMALLEST_VIDEO = 240  # pixels


def summary(rollout: Rollout, total_s: float, learner: Learner) -> dict[str, float]:
    """Returns the outcomes of an iteration's episodes, averaged over all processes, and the time spent in each part."""
    processes, done = learner.processes, learner.iteration + 1
    means = {**shares(rollout), "return": float(rollout.returns.mean())}
    averaged = processes.mean(torch.tensor(list(means.values()), device=processes.device)).tolist()
    waiting, policy, collecting = (rollout.seconds[name] for name in ("waiting", "policy", "total"))
    return {
        "iteration": done,
        "env_steps": done * learner.recipe.steps_per_iteration,
        **dict(zip(means, averaged)),
        "lr": learner.rate,
        "steps_per_s": learner.recipe.steps_per_iteration / total_s,
        "sim_share": waiting / total_s,
        "policy_share": policy / total_s,
        "update_share": (total_s - collecting) / total_s,
    }


def shares(rollout: Rollout) -> dict[str, float]:
    """Returns the shares of episodes with success at the end, with success at any time, and with the target held."""
    names = {"success": "success", "success_once": "success_once", "held": "held_ever"}
    return {name: float(rollout.flags[flag].mean()) for name, flag in names.items()}


def check(collector: Collector, recipe: RlRecipe, iteration: int, out: Path) -> dict[str, float]:
    """Runs episodes that training does not use; returns their shares, and saves some as mp4 files."""
    use_threads(1)
    specs = [draw_training(recipe.world, CHECK_SEED, index) for index in range(recipe.check_episodes)]
    chosen = [Start(spec, key) for key, spec in enumerate(specs)]
    rollout = collector.collect(chosen, Sampling(temperature=recipe.check_temperature))
    for row in range(min(recipe.videos, len(specs))):
        outcome = "success" if rollout.flags["success"][row] else "failure"
        file = out / "videos" / f"{iteration:04d}-{row}-{outcome}.mp4"
        write_episode(file, rollout.images[:, row], specs[row].instruction)
    return {f"check_{name}": value for name, value in shares(rollout).items()}


def write_episode(file: Path, images: np.ndarray, text: str) -> None:
    """Writes the policy's images, uint8 [T, H, W, 3], as mp4; small images are enlarged by an integer factor."""
    from vla_gen_bench.log.video import write_video

    factor = -(-SMALLEST_VIDEO // images.shape[1])
    write_video(file, [image.repeat(factor, 0).repeat(factor, 1) for image in images], text)


def progress_line(numbers: dict[str, float], recipe: RlRecipe, wall_s: float) -> str:
    """Returns the progress line for a terminal."""
    left_s = (recipe.iterations - numbers["iteration"]) * recipe.steps_per_iteration / numbers["steps_per_s"]
    parts = [
        f"iteration {numbers['iteration']}/{recipe.iterations}",
        f"return {numbers['return']:.3f}",
        f"success {numbers['success']:.2f} (once {numbers['success_once']:.2f}, held {numbers['held']:.2f})",
    ]
    labels = {"kl": "KL", "clip_fraction": "clipped", "explained_variance": "explained", "preferred": "preferred"}
    parts += [f"{label} {numbers[name]:.3g}" for name, label in labels.items() if name in numbers]
    parts += [f"{numbers['steps_per_s']:.0f} steps/s", f"{wall_s / 60:.1f} min, {left_s / 60:.0f} left"]
    if "check_success" in numbers:
        parts.append(f"| check {numbers['check_success']:.2f}, held {numbers['check_held']:.2f}")
    return "  ".join(parts)
