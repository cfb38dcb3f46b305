"""RL speed of this machine: rollouts, the complete PPO loop, and where the time is spent.

The policy is untrained, with the reference policy's size and decoding: speed does not depend on what it has learned.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vla_gen_bench import runtime
from vla_gen_bench.bench.measure import Line
from vla_gen_bench.eval.cluster import Cluster
from vla_gen_bench.resources import data_dir

if TYPE_CHECKING:
    from vla_gen_bench.train.rl.learner import Learner
    from vla_gen_bench.train.rl.rollout import Rollout
    from vla_gen_bench.train.rl.simulators import Simulator

TARGET_STEPS_PER_S = 300  # of the complete loop with nano, on two cores
EPISODES, HORIZON = 32, 80
DRAWING_STEPS = 40
ACTING = {"decoding": "parallel", "chunk": 4}  # like openvla-sft
STILL = np.array([[0, 0, 0, 0, 0, 0, 1]], np.float32)


class Team(NamedTuple):
    """Who collects: worker processes (0 nodes), or actors on so many nodes of a Ray cluster of this machine."""

    workers: int
    nodes: int = 0

    def __str__(self) -> str:
        workers = f"{self.workers} {'collector' if self.nodes else 'worker process'}"
        workers += ("es", "s")[bool(self.nodes)] * (self.workers != 1)
        return f"{workers} on {self.nodes} Ray node{'s' * (self.nodes != 1)}" if self.nodes else workers


TEAMS = (Team(1), Team(2), Team(1, 1), Team(2, 1), Team(2, 2))


def reward_learning(
    size: str = "nano", workers: int | None = None, episodes: int = EPISODES, horizon: int = HORIZON
) -> Iterator[Line]:
    """Runs one iteration of the reference recipe, after a short one that starts the workers and their scenes."""
    from vla_gen_bench.train.rl.learner import use_threads
    from vla_gen_bench.train.rl.ppo import improve

    learner, workers = _learner(size, episodes, horizon), workers or runtime.usable_cores()
    recipe = learner.recipe
    with _warm_simulator(learner, workers) as simulator:
        began = time.perf_counter()
        rollout = _collected(learner, simulator)
        use_threads(runtime.usable_cores())
        improve(recipe, learner, rollout)
        total = time.perf_counter() - began
    spent, how = rollout.seconds, f"PPO {size}, {recipe.world}, {workers} workers"
    yield Line(f"{how}: collection", rollout.env_steps / spent["total"], "steps/s")
    yield Line(f"{how}: whole loop", rollout.env_steps / total, "steps/s", TARGET_STEPS_PER_S, True)
    yield Line(f"{how}: share of time waiting for the simulator", spent["waiting"] / total, "")
    yield Line(f"{how}: share of time in the policy", spent["policy"] / total, "")
    yield Line(f"{how}: share of time in the update", 1 - spent["total"] / total, "")
    yield Line(f"{how}: a step in a worker, with resizing", 1e3 * spent["sim"] / rollout.env_steps, "ms")
    drawing = drawing_share(recipe.world, learner.actor.chunk)
    yield Line(f"{recipe.world}: share of drawing in the steps of a decision", drawing, "")


def collection(
    teams: Sequence[Team] = TEAMS, size: str = "nano", episodes: int = EPISODES // 2, horizon: int = HORIZON // 2
) -> Iterator[Line]:
    """Collects the same episodes with each team."""
    learner = _learner(size, episodes, horizon)
    for team in teams:
        with _cluster_of(team) as cluster, _warm_simulator(learner, team.workers, cluster) as simulator:
            rollout = _collected(learner, simulator)
        speed = rollout.env_steps / rollout.seconds["total"]
        yield Line(f"{learner.recipe.world}, {team}: collection", speed, "steps/s")


@contextmanager
def _cluster_of(team: Team) -> Iterator[Cluster | None]:
    """Yields the request for a cluster of this machine that has just the team's nodes; None for processes."""
    if not team.nodes:
        yield None
        return
    from vla_gen_bench.bench.ray_nodes import local_nodes

    with local_nodes(team.nodes, cpus=team.workers // team.nodes):
        yield Cluster()


@contextmanager
def _warm_simulator(learner: Learner, workers: int, cluster: Cluster | None = None) -> Iterator[Simulator]:
    """Yields a simulator whose workers have started and built their scenes."""
    from vla_gen_bench.train.rl.learner import open_simulator, use_threads
    from vla_gen_bench.train.rl.rollout import Collector
    from vla_gen_bench.train.starts import starts

    recipe, actor = learner.recipe, learner.actor
    with open_simulator(recipe, actor, "cpu", workers, cluster=cluster) as simulator:
        use_threads(1)
        first = starts(recipe.world, recipe.seed, 1, recipe.together)
        Collector(simulator, actor, actor.chunk).collect(first, recipe.sampling)
        yield simulator


def _collected(learner: Learner, simulator: Simulator) -> Rollout:
    from vla_gen_bench.train.rl.rollout import Collector
    from vla_gen_bench.train.starts import starts

    recipe = learner.recipe
    chosen = starts(recipe.world, recipe.seed, 0, recipe.episodes)
    return Collector(simulator, learner.actor, recipe.horizon).collect(chosen, recipe.sampling, recipe.foresees)


def _learner(size: str, episodes: int, horizon: int) -> Learner:
    from vla_gen_bench.train.processes import join
    from vla_gen_bench.train.rl.learner import Learner

    with tempfile.TemporaryDirectory() as folder:
        return Learner(_recipe(_new_checkpoint(Path(folder), size), episodes, horizon), join("cpu"))


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
        "precision": "float32",  # these four as in the recipe of earlier figures
        "batch": 128,
        "value.source": "h0",
        "time_limit": "bootstrap",
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
