"""Shared by all RL trainers: the common part of recipes, the model with its optimisers, the simulator's set-up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vla_gen_bench import runtime
from vla_gen_bench.assets.world import FIRST_VERSION, get_world, world_label
from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.cluster import Cluster
from vla_gen_bench.policies.openvla.model.value import SeparateCritic, ValueHead
from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.recipe import Recipe
from vla_gen_bench.train.rl.actor_critic import ActorCritic, Sampling, ValueSettings, build_critic
from vla_gen_bench.train.rl.sim_workers import WorkerSimulator
from vla_gen_bench.train.rl.simulators import Build, LocalSimulator, Simulator, scenes
from vla_gen_bench.train.rl.state_critic import StateCritic
from vla_gen_bench.train.run import save_state
from vla_gen_bench.train.starts import MOST_RUN_SEED, CameraShift, Wander
from vla_gen_bench.train.student import Averaged, build_optimiser, build_student, set_rate, write_checkpoint


class RlRecipe(Recipe):
    """Settings shared by PPO, GRPO and DPO. `optimiser.warmup` and its schedule count iterations here.

    Attributes:
        env_steps: The budget in control steps; rounded up to full iterations.
        episodes: Per iteration.
        group: Number of consecutive episodes that share an initial state.
        horizon: Control steps of an episode; none ends earlier.
        wander: Random moves before the episode; see its class. Not in the reference.
        camera_shift: Random image shift; see its class. Not in the reference.
        together: Parallel episodes, over all lanes.
        lanes: Batches for which the policy decides in turn; two keep the simulator busy meanwhile.
        simulation: "cpu": worker processes; "gpu": one PhysX simulation of `together` scenes, in one lane; "auto": the
            GPU if one can simulate; a resumed run keeps what it began with.
        sampling: How actions are sampled.
        value: The critic; None = no critic.
        epochs: Passes over the experience of an iteration.
        ema: Decay per iteration of the averaged policy, which is checked and becomes the checkpoint; 0 = no averaging.
        check_every: Iterations between two checks on separate training-pool episodes, after each of which the
            checkpoint is written; 0 = never.
        check_episodes, videos: Episodes of a check, and how many of them become mp4 files.
        check_temperature: 0 = greedy, which may stall forever where a little randomness would continue.
        keep_every: Iterations between two checkpoints that are kept, named like checkpoints/0040; 0 = none.
    """

    env_steps: int = Field(ge=1)
    episodes: int = Field(64, ge=1)
    group: int = Field(1, ge=1)
    horizon: int = Field(80, ge=1)
    wander: Wander = Wander()
    camera_shift: CameraShift = CameraShift()
    together: int = Field(16, ge=1)
    lanes: int = Field(2, ge=1)
    simulation: Literal["auto", "cpu", "gpu"] = "auto"
    sampling: Sampling = Sampling()
    value: ValueSettings | None = None
    epochs: int = Field(1, ge=1)
    ema: float = Field(0.0, ge=0, lt=1)
    check_every: int = Field(0, ge=0)
    check_episodes: int = Field(16, ge=1)
    check_temperature: float = Field(0.0, ge=0)
    videos: int = Field(0, ge=0)
    keep_every: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> RlRecipe:
        if self.episodes % self.group:
            raise ValueError(f"episodes: {self.episodes} cannot be divided into groups of {self.group}")
        if self.together % self.lanes:
            raise ValueError(f"together: {self.together} cannot be divided into {self.lanes} lanes")
        if self.sampling.temperature == 0:
            raise ValueError("sampling.temperature: a greedy policy explores nothing; give more than 0")
        if self.seed > MOST_RUN_SEED:
            raise ValueError(f"seed: {self.seed}; rollouts have the seeds up to {MOST_RUN_SEED}")
        return self

    @property
    def steps_per_iteration(self) -> int:
        return self.episodes * (self.wander.length + self.horizon)

    @property
    def iterations(self) -> int:
        return math.ceil(self.env_steps / self.steps_per_iteration)

    @property
    def foresees(self) -> bool:
        """Whether learning needs the value of the state after the last step."""
        return False


class Learner:
    """A policy in training with its critic, two optimisers, and its progress.

    Attributes:
        iteration: Number of completed iterations.
        extra: Additional state that an algorithm saves, by name.
    """

    def __init__(self, recipe: RlRecipe, processes: Processes) -> None:
        self.recipe, self.processes, self.iteration = recipe, processes, 0
        torch.manual_seed(recipe.seed)  # used only to initialise modules
        self.student = build_student(recipe, None, processes.device)
        self.critic = recipe.value and build_critic(self.student, recipe.value, recipe.seed)
        apart = isinstance(self.critic, StateCritic)  # asks the policy's network nothing
        self.actor = ActorCritic(
            self.student, None if apart else self.critic, recipe.precision, recipe.sampling.temperature, states=apart
        )
        self.head = self.critic.head if isinstance(self.critic, SeparateCritic) else self.critic
        self.student.value_head = self.head if isinstance(self.critic, ValueHead) else None
        policy = {name: value for name, value in self.weights().items() if not self._in_head(name)}
        self._policy = list(policy.values())
        self._value = list(self.head.parameters()) if self.head else []
        self.policy_optimiser = build_optimiser(policy, recipe.optimiser)
        self.value_optimiser = torch.optim.AdamW(self._value, lr=recipe.value.lr) if self.head else None
        self.averaged = Averaged(self.student.model, recipe.ema)
        self.extra: dict[str, Any] = {}

    def _in_head(self, name: str) -> bool:
        return name.startswith("critic.") and not name.startswith("critic.backbone.")

    def weights(self) -> dict[str, nn.Parameter]:
        """Returns all trained tensors, by name."""
        modules = {"policy.": self.student.model, "critic.": self.critic or nn.Module()}
        return {
            prefix + name: value
            for prefix, module in modules.items()
            for name, value in module.named_parameters()
            if value.requires_grad
        }

    @property
    def rate(self) -> float:
        """The policy's learning rate in this iteration."""
        return self.recipe.optimiser.rate(self.iteration, self.recipe.iterations)

    def step(self, losses: Iterable[Tensor], value_only: bool = False) -> float:
        """Adds up the gradients of `losses`, clips them together, steps; returns the norm before clipping.

        Raises:
            UserError: A gradient is not a number.
        """
        set_rate(self.policy_optimiser, self.rate)
        optimisers = [o for o in (None if value_only else self.policy_optimiser, self.value_optimiser) if o]
        parameters = self._value if value_only else self._policy + self._value
        for parameter in self._policy + self._value:
            parameter.grad = None
        for loss in losses:
            loss.backward()
        self.processes.average(parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.recipe.optimiser.clip or math.inf))
        if not math.isfinite(norm):
            raise UserError(
                f"iteration {self.iteration + 1}: a gradient is not a number; the earlier state is kept; try a lower "
                "optimiser.lr"
            )
        for optimiser in optimisers:
            optimiser.step()
        return norm

    def end_iteration(self) -> None:
        """Counts the iteration, and updates the averaged weights."""
        self.averaged.update(self.iteration)
        self.iteration += 1

    # ---- state ---------------------------------------------------------------------------------------------

    def save(self, folder: Path, simulation: str) -> None:
        """Saves the state from which a run resumes; `simulation` is where its physics runs, "cpu" or "gpu"."""
        optimisers = [self.policy_optimiser, self.value_optimiser]
        state = {
            "iteration": self.iteration,
            "weights": {name: value.detach() for name, value in self.weights().items()},
            "optimisers": [optimiser and optimiser.state_dict() for optimiser in optimisers],
            "averaged": self.averaged.values,
            "extra": self.extra,
            "world": get_world(self.recipe.world).label,
            "simulation": simulation,
        }
        save_state(folder, state)

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Restores a saved state; raises `UserError` if it was trained in another version of the world."""
        now = get_world(self.recipe.world).label
        earlier = state.get("world", world_label(self.recipe.world, FIRST_VERSION))
        if earlier != now:
            raise UserError(f"the run learned in world {earlier}, this version simulates {now}; give --fresh")
        self.iteration, self.extra = state["iteration"], state["extra"]
        for name, value in self.weights().items():
            value.copy_(state["weights"][name])
        for optimiser, content in zip([self.policy_optimiser, self.value_optimiser], state["optimisers"]):
            if optimiser:
                optimiser.load_state_dict(content)
        for name, value in state["averaged"].items():
            self.averaged.values[name].copy_(value)

    def export(self, folder: Path) -> None:
        """Writes the averaged policy and the value head as a checkpoint."""
        with self.averaged.in_place():
            write_checkpoint(self.student, folder)


def choose_simulation(recipe: RlRecipe, cluster: Cluster | None = None) -> str:
    """Returns "cpu" or "gpu"; always "cpu" on a cluster, whose nodes may differ.

    Raises:
        UserError: A GPU is requested, and none can simulate here.
    """
    if cluster and recipe.simulation == "gpu":
        raise UserError("simulation: gpu runs in the learner's process; give --set simulation=cpu with --engine ray")
    if cluster:
        return "cpu"
    from vla_gen_bench.doctor.backend import choose_backend

    return choose_backend(recipe.simulation, "simulation: gpu", "give --set simulation=cpu")


def resumed_simulation(recipe: RlRecipe, chosen: str, state: Mapping[str, Any] | None) -> str:
    """Returns where the physics of a run continues: where it began, because results differ between CPU and GPU.

    Args:
        chosen: From `choose_simulation`, for this session.
        state: Of the interrupted run; None = a new one. Older states do not say where they began.

    Raises:
        UserError: The run began elsewhere, and "auto" cannot choose that here.
    """
    began = state.get("simulation") if state else None
    if began in (None, chosen):
        return chosen
    if began == "cpu" and recipe.simulation == "auto":
        return began
    raise UserError(
        f"the run learned with its physics on the {began.upper()}, here it would be on the {chosen.upper()}; resume "
        "where a GPU can simulate (vgb doctor) and without --engine ray, or give --fresh"
    )


@contextmanager
def open_simulator(
    recipe: RlRecipe, actor: ActorCritic, simulation: str, workers: int, build: Build | None = None,
    cluster: Cluster | None = None, say: Callable[[str], None] = lambda line: None,
) -> Iterator[Simulator]:  # fmt: skip
    """Yields the recipe's simulator, then stops its processes or actors.

    Args:
        simulation: "cpu" or "gpu", from `choose_simulation`.
        workers: Processes; 0 = simulate in this process.
        build: Makes scenes; None = those of the recipe's world.
        cluster: Its connected Ray cluster; None = processes of this machine.
        say: Receives a sentence when a worker is lost.
    """
    world = get_world(recipe.world)
    view = actor.view(world.height, world.width)
    build = build or partial(scenes, recipe.world, simulation)
    width, lanes = recipe.together // recipe.lanes, recipe.lanes
    if simulation == "gpu":
        simulator: Simulator = LocalSimulator(build, view, recipe.together)
    elif workers == 0:
        simulator = LocalSimulator(build, view, width, lanes)
    elif cluster is None:
        simulator = WorkerSimulator(build, view, width, lanes, min(width, workers), say)
    else:
        from vla_gen_bench.train.rl.ray_workers import RaySimulator

        simulator = RaySimulator(build, view, width, lanes, min(width, workers), say, cluster, recipe.world)
    try:
        yield simulator
    finally:
        simulator.close()


def use_threads(count: int) -> None:
    """Sets torch's threads in this process to `count`; the user's OMP_NUM_THREADS is the maximum."""
    torch.set_num_threads(min(count, runtime.asked_threads() or count))
