"""Pretraining on grounding scenes alone: turns a recipe and scenes into a checkpoint that locates named things.

It cannot act yet. Every draw is keyed by (seed, step), so an interrupted run resumes exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from vla_gen_bench.errors import UserError
from vla_gen_bench.train.grounding.store import load_scenes
from vla_gen_bench.train.grounding.task import Grounding, Task
from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.recipe import Recipe
from vla_gen_bench.train.run import CHECKPOINT, Curve, RunOptions, check_data, open_shared_run, save_state
from vla_gen_bench.train.student import (
    Averaged,
    action_statistics,
    build_optimiser,
    build_student,
    set_rate,
    write_checkpoint,
)

NUMBERS = (
    "step", "samples", "wall_s", "samples_per_s", "lr", "loss", "grad_norm",
    "object", "object_chance", "receptacle", "receptacle_chance", "distance",
    "dev_object", "dev_object_chance", "dev_receptacle", "dev_receptacle_chance", "dev_distance",
)  # fmt: skip
LIMITS = np.array([[0.03, 0.03, 0.03, 0.1, 0.1, 0.3, 1.0]], np.float32)  # of the expert's moves, metres and radians


class GroundingRecipe(Recipe):
    """Pretraining on grounding scenes.

    Attributes:
        grounding: The scenes and their augmentation.
        held_out, development: Folders of scenes for checks, from the "train" and the "unseen" split; optional.
        look_first: Images to recognise before the first query: learning what patches show is faster without sentences.
            Both parts have a learning rate schedule of their own.
        samples: Queries to train on, counted with repetition.
        ema: Decay of the averaged weights, which become the checkpoint; 0 = the last weights.
        log_every, check_every: Intervals in steps; each adds a row.
    """

    trainer: Literal["grounding"]
    grounding: Grounding
    held_out: str | None = None
    development: str | None = None
    look_first: int = Field(0, ge=0)
    samples: int = Field(ge=1)
    ema: float = Field(0.0, ge=0, lt=1)
    log_every: int = Field(100, ge=1)
    check_every: int = Field(1000, ge=1)

    @property
    def images_per_step(self) -> int:
        return self.grounding.batch // self.grounding.per_scene

    @property
    def looking_steps(self) -> int:
        return math.ceil(self.look_first / self.images_per_step)

    @property
    def steps(self) -> int:
        return self.looking_steps + math.ceil(self.samples / self.grounding.batch)


def train(
    recipe: GroundingRecipe,
    out: Path,
    processes: Processes,
    say: Callable[[str], None],
    options: RunOptions,
) -> Path:
    """Trains as `recipe` says, or resumes the run in `out`; returns the checkpoint folder.

    Args:
        say: Receives one line of progress per row.

    Raises:
        UserError: The recipe, the scenes or the folder cannot be used, or the loss is not a number.
    """
    processes.share(recipe.grounding.batch, "grounding.batch")
    state = open_shared_run(out, recipe, processes, options.fresh)
    trainer = Trainer(recipe, processes)
    check_data(trainer.summary, state, processes)
    if state:
        trainer.restore(state)
    curve = Curve(out, NUMBERS, trainer.step if state else None, options.wandb) if processes.first else None
    if processes.first:
        say(f"{len(trainer.task.queries.rows):,} questions about {len(trainer.task.queries.scenes):,} scenes")
    saved = time.monotonic()
    for done in range(trainer.step + 1, recipe.steps + 1):
        trainer.one_step()
        due = [done % every == 0 or done == recipe.steps for every in (recipe.log_every, recipe.check_every)]
        if curve is None or not any(due):
            continue
        numbers = trainer.numbers() | (trainer.check() if due[1] and done > recipe.looking_steps else {})
        curve.log(**numbers)
        say(_line(numbers, recipe))
        if time.monotonic() - saved >= recipe.checkpoint_every_s or done == recipe.steps:
            trainer.save(out)
            saved = time.monotonic()
    if processes.first:
        with trainer.averaged.in_place():
            write_checkpoint(trainer.student, out / CHECKPOINT)
    processes.wait()
    return out / CHECKPOINT


def _line(numbers: dict[str, float], recipe: GroundingRecipe) -> str:
    shown = "  ".join(f"{key} {numbers[key]:.3g}" for key in NUMBERS[3:] if key in numbers)
    return f"step {numbers['step']:,}/{recipe.steps:,}  {shown}"


class Trainer:
    """The state of one process of a run."""

    def __init__(self, recipe: GroundingRecipe, processes: Processes) -> None:
        self.recipe, self.processes, self.step = recipe, processes, 0
        torch.manual_seed(recipe.seed)  # used only to initialise modules
        limits = np.concatenate([-LIMITS, LIMITS])
        self.student = build_student(recipe, action_statistics(limits, 1), processes.device)
        if not processes.first:
            processes.wait()  # until the first process has filled the image cache
        self.task = Task(recipe.grounding, self.student, recipe.seed, processes.device)
        if processes.first:
            processes.wait()
        self.summary = self.task.queries.scenes.summary()
        named = {name: p for name, p in self.student.model.named_parameters() if p.requires_grad}
        named |= {f"grounding.{name}": p for name, p in self.task.head.named_parameters()}
        self.parameters = list(named.values())
        self.optimiser = build_optimiser(named, recipe.optimiser)
        # The head is averaged too, because checks apply it to the averaged model's states.
        self.averaged = Averaged(nn.ModuleList([self.student.model, self.task.head]), recipe.ema)
        self.checks = {
            prefix: load_scenes(Path(folder), self.task.side)
            for prefix, folder in (("", recipe.held_out), ("dev_", recipe.development))
            if folder
        }
        self._restart()

    def one_step(self) -> None:
        """Makes one optimiser step on this process's share of the queries."""
        recipe = self.recipe
        rate = recipe.optimiser.rate(self.step, recipe.steps, recipe.looking_steps)
        set_rate(self.optimiser, rate)
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            loss = self._loss()
        loss.backward()
        self.processes.average(self.parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, recipe.optimiser.clip or math.inf))
        if not math.isfinite(float(loss.detach()) + norm):
            raise UserError(f"step {self.step}: the loss is {float(loss.detach())}; try a lower optimiser.lr")
        self.optimiser.step()
        self.averaged.update(self.step)
        self.step += 1
        self._sums += np.array([float(loss.detach()), norm])
        self._steps, self._rate = self._steps + 1, rate

    def _loss(self) -> Tensor:
        recipe, count, rank = self.recipe, self.processes.count, self.processes.rank
        if self.step < recipe.looking_steps:
            return self.task.recognition_loss(self.step, recipe.images_per_step // count, rank)
        return self.task.loss(self.step - recipe.looking_steps, recipe.grounding.batch // count, rank)

    def _restart(self) -> None:
        self._sums, self._steps, self._rate, self._since = np.zeros(2), 0, 0.0, time.monotonic()

    def numbers(self) -> dict[str, float]:
        """Returns the means since the last call; before the first query, `samples_per_s` counts images."""
        recipe, asked = self.recipe, max(0, self.step - self.recipe.looking_steps)
        each = recipe.grounding.batch if asked else recipe.images_per_step
        speed = self._steps * each / (time.monotonic() - self._since)
        loss, norm = self._sums / max(1, self._steps)
        rate = self._rate
        self._restart()
        return {"step": self.step, "samples": asked * recipe.grounding.batch, "samples_per_s": speed, "lr": rate,
                "loss": loss, "grad_norm": norm}  # fmt: skip

    def check(self) -> dict[str, float]:
        """Returns the accuracy of the averaged weights on held-out scenes."""
        self.student.model.eval()
        found = {}
        with self.averaged.in_place():
            for prefix, scenes in self.checks.items():
                found |= {f"{prefix}{key}": value for key, value in self.task.check(scenes).items()}
        self.student.model.train()
        self._restart()
        return found

    def save(self, out: Path) -> None:
        """Saves the state from which a run resumes."""
        save_state(
            out,
            {
                "step": self.step,
                "data": self.summary,
                "model": self.student.model.state_dict(),
                "head": self.task.head.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "averaged": self.averaged.values,
            },
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a saved state."""
        self.step = state["step"]
        self.student.model.load_state_dict(state["model"])
        self.task.head.load_state_dict(state["head"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, value in state["averaged"].items():
            self.averaged.values[name].copy_(value)
