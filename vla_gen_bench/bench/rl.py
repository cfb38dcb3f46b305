"""RL speed of this machine: rollouts, the complete PPO loop, and where the time is spent.

The policy is untrained, with the reference policy's size and decoding: speed does not depend on what it has learned.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vla_gen_bench import runtime
from vla_gen_bench.bench.measure import Line
from vla_gen_bench.resources import data_dir

TARGET_STEPS_PER_S = 60  # of the complete loop with nano, on two cores
EPISODES, HORIZON = 32, 80
DRAWING_STEPS = 40
ACTING = {"decoding": "parallel", "chunk": 4}  # like openvla-sft
STILL = np.array([[0, 0, 0, 0, 0, 0, 1]], np.float32)


def reward_learning(
    size: str = "nano", workers: int | None = None, episodes: int = EPISODES, horizon: int = HORIZON
) -> Iterator[Line]:
    """Runs one iteration of the reference recipe, after a short one that starts the workers and their scenes."""
    from vla_gen_bench.train.processes import join
    from vla_gen_bench.train.rl.learner import Learner, open_simulator, use_threads
    from vla_gen_bench.train.rl.ppo import improve
    from vla_gen_bench.train.rl.rollout import Collector
    from vla_gen_bench.train.starts import starts

    with tempfile.TemporaryDirectory() as folder:
        recipe = _recipe(_new_checkpoint(Path(folder), size), episodes, horizon)
        learner = Learner(recipe, join("cpu"))
    workers = workers or runtime.usable_cores()
    with open_simulator(recipe, learner.actor, "cpu", workers) as simulator:
        use_threads(1)
        first = starts(recipe.world, recipe.seed, 1, recipe.together)
        Collector(simulator, learner.actor, learner.actor.chunk).collect(first, recipe.sampling)
        began = time.perf_counter()
        collector = Collector(simulator, learner.actor, horizon)
        rollout = collector.collect(starts(recipe.world, recipe.seed, 0, episodes), recipe.sampling, recipe.foresees)
        use_threads(runtime.usable_cores())
        improve(recipe, learner, rollout)
        total = time.perf_counter() - began
    spent, how = rollout.seconds, f"PPO {size}, {recipe.world}, {workers} workers"
    yield Line(f"{how}: collection", rollout.env_steps / spent["total"], "steps/s")
    yield Line(f"{how}: whole loop", rollout.env_steps / total, "steps/s", TARGET_STEPS_PER_S, True)
    yield Line(f"{how}: share of time waiting for the simulator", spent["waiting"] / total, "")
    yield Line(f"{how}: share of time in the policy", spent["policy"] / total, "")
    yield Line(f"{how}: share of time in the update", 1 - spent["total"] / total, "")
    yield Line(f"{how}: a step in a worker, squashing counted", 1e3 * spent["sim"] / rollout.env_steps, "ms")
    drawing = drawing_share(recipe.world, learner.actor.chunk)
    yield Line(f"{recipe.world}: share of drawing in the steps of a decision", drawing, "")


def drawing_share(world: str, chunk: int) -> float:
    """Returns the part of `chunk` control steps' time that rendering their one image takes, on one core."""
    drawn, blind = (_step_seconds(world, render) for render in (True, False))
    return max(0.0, (drawn - blind) / (drawn + (chunk - 1) * blind))


def _step_seconds(world: str, render: bool) -> float:
    from vla_gen_bench.envs.vector import make_batch
    from vla_gen_bench.train.starts import starts

    batch = make_batch(world, render=render)
    batch.reset([starts(world, 0, 0, 1)[0].spec])
    batch.step(STILL)
    began = time.perf_counter()
    for _ in range(DRAWING_STEPS):
        batch.step(STILL)
    seconds = (time.perf_counter() - began) / DRAWING_STEPS
    batch.close()
    return seconds


def _recipe(checkpoint: Path, episodes: int, horizon: int):
    from vla_gen_bench.train.recipe import load_recipe
    from vla_gen_bench.train.rl.ppo import PpoRecipe

    changes = {
        "model.checkpoint": str(checkpoint),
        "episodes": episodes,
        "horizon": horizon,
        "env_steps": episodes * horizon,
        "value.warmup": 0,
        "wander.steps": 0,
        "target_kl": None,
    }
    recipe = load_recipe(data_dir() / "policies" / "openvla-ppo" / "recipe.yaml", PpoRecipe, changes)
    return recipe.model_copy(update={"together": min(recipe.together, episodes)})


def _new_checkpoint(folder: Path, name: str) -> Path:
    from vla_gen_bench.policies.openvla.checkpoint.config_file import size, with_stats
    from vla_gen_bench.policies.openvla.checkpoint.fresh import acting_as, new_model, new_tokenizer
    from vla_gen_bench.policies.openvla.checkpoint.saving import save

    action = {"q01": [-0.03] * 7, "q99": [0.03] * 7, "mask": [True] * 6 + [False]}
    config = acting_as(with_stats(size(name), {"bench": {"action": action}}), **ACTING)
    save(folder, new_model(config), new_tokenizer(config))
    return folder
