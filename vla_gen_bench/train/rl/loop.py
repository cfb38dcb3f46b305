"""The loop of PPO, GRPO and DPO. Reads top to bottom.

One iteration: run episodes with the current policy, let the algorithm learn from them (`improve`), log, save. Every
draw is keyed by (seed, iteration), so a killed run resumes exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_gen_bench import runtime
from vla_gen_bench.eval.cluster import Cluster, need_ray
from vla_gen_bench.log.guard import check_held
from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.rl.learner import (
    Learner,
    RlRecipe,
    choose_simulation,
    open_simulator,
    resumed_simulation,
    use_threads,
)
from vla_gen_bench.train.rl.rollout import Collector, Rollout
from vla_gen_bench.train.rl.simulators import Build
from vla_gen_bench.train.rl.watch import NUMBERS, check, progress_line, summary
from vla_gen_bench.train.run import CHECKPOINT, Curve, RunOptions, open_shared_run
from vla_gen_bench.train.starts import Start, starts

Improve = Callable[[Any, Learner, Rollout], dict[str, float]]
"""(recipe, learner, rollout) -> numbers for the curve: learns from an iteration's experience."""


@dataclass(frozen=True)
class RlOptions(RunOptions):
    """Options of an RL run, in addition to those of every run.

    Attributes:
        workers: Simulator processes or actors; 0 = simulate in this process, None = one per core, or as many as fit on
            the cluster.
        cluster: Collect on this Ray cluster; None = on this machine.
        build: See `open_simulator`.
    """

    workers: int | None = None
    cluster: Cluster | None = None
    build: Build | None = None


def run(
    recipe: RlRecipe,
    out: Path,
    processes: Processes,
    say: Callable[[str], None],
    improve: Improve,
    options: RlOptions,
) -> Path:
    """Trains as `recipe` says, or resumes the run that was interrupted in `out`; returns the checkpoint folder.

    Args:
        say: Receives one line of progress per iteration.
        improve: Learns from a rollout.

    Raises:
        UserError: The recipe, the checkpoint or the folder cannot be used, or a gradient is not finite.
    """
    processes.share(recipe.episodes, "episodes", recipe.group)
    # Chosen before a large model is loaded.
    simulation = "cpu" if options.build else choose_simulation(recipe, options.cluster)
    with _workers(recipe, processes, say, options) as workers:
        return _train(recipe, out, processes, say, improve, options, simulation, workers)


def _train(
    recipe: RlRecipe, out: Path, processes: Processes, say: Callable[[str], None], improve: Improve,
    options: RlOptions, simulation: str, workers: int,
) -> Path:  # fmt: skip
    state = open_shared_run(out, recipe, processes, options.fresh)
    simulation = resumed_simulation(recipe, simulation, state)
    learner = Learner(recipe, processes)
    if state:
        learner.restore(state)
    curve = Curve(out, NUMBERS, learner.iteration if state else None, options.wandb) if processes.first else None
    cores = _cores(processes)
    build, cluster = options.build, options.cluster
    with open_simulator(recipe, learner.actor, simulation, workers, build, cluster, say) as simulator:
        collector = Collector(simulator, learner.actor, recipe.horizon)
        while learner.iteration < recipe.iterations:
            began = time.perf_counter()
            use_threads(1)
            rollout = collector.collect(_own_starts(recipe, learner), recipe.sampling, recipe.foresees)
            use_threads(cores)
            numbers = improve(recipe, learner, rollout)
            numbers |= summary(rollout, time.perf_counter() - began, learner)
            learner.end_iteration()
            if curve is None:
                continue
            check_held(out)  # `_keep` writes too
            numbers |= _keep(recipe, learner, collector, out)
            curve.log(**numbers)
            learner.save(out, simulation)
            say(progress_line(numbers, recipe, curve.wall_s))
    if processes.first:
        learner.export(out / CHECKPOINT)
    processes.wait()
    return out / CHECKPOINT


def _cores(processes: Processes) -> int:
    """Returns how many of this machine's cores are for this process."""
    return max(1, runtime.usable_cores() // processes.count)


@contextmanager
def _workers(recipe: RlRecipe, processes: Processes, say: Callable[[str], None], options: RlOptions) -> Iterator[int]:
    """Yields the number of workers; stays connected to the cluster, if there is one, meanwhile."""
    if options.cluster is None:
        yield _cores(processes) if options.workers is None else options.workers
        return
    need_ray()
    from vla_gen_bench.eval.ray_cluster import connected

    most = recipe.together // recipe.lanes  # a collector steps one episode of every lane, at least
    with connected(options.cluster, options.workers, say, most, all_needed=True, commands=processes.count) as count:
        yield count


def _own_starts(recipe: RlRecipe, learner: Learner) -> list[Start]:
    """Returns this process's part of the iteration's episodes."""
    share, rank = recipe.episodes // learner.processes.count, learner.processes.rank
    chosen = starts(
        recipe.world, recipe.seed, learner.iteration, recipe.episodes, recipe.group, recipe.wander, recipe.camera_shift
    )
    return chosen[rank * share :][:share]


def _keep(recipe: RlRecipe, learner: Learner, collector: Collector, out: Path) -> dict[str, float]:
    """Writes the checkpoints due after an iteration; returns the numbers of a check, if one is due."""
    numbers: dict[str, float] = {}
    if recipe.check_every and learner.iteration % recipe.check_every == 0:
        with learner.averaged.in_place():
            numbers = check(collector, recipe, learner.iteration, out)
        learner.export(out / CHECKPOINT)
    if recipe.keep_every and learner.iteration % recipe.keep_every == 0:
        learner.export(out / "checkpoints" / f"{learner.iteration:04d}")
    return numbers
