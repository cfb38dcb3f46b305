"""Supervised fine-tuning: turns demonstrations into a checkpoint that imitates them. Reads top to bottom.

One step: sample frames, augment their images, score the demonstrated action tokens, update. Every random draw is keyed
by (seed, step), so an interrupted run resumes exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla.model.vla import Inputs, token_loss
from vla_gen_bench.policies.openvla.oft import choose_tokens, chunk_loss, score_tokens, teacher
from vla_gen_bench.train.demos import frames as fr
from vla_gen_bench.train.demos.dataset import Demos
from vla_gen_bench.train.demos.lerobot_reader import DataMap
from vla_gen_bench.train.grounding.task import Grounding, Task
from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.recipe import Recipe
from vla_gen_bench.train.run import CHECKPOINT, Curve, RunOptions, check_data, open_shared_run, save_state
from vla_gen_bench.train.sft.hindsight import Hindsight, Reads
from vla_gen_bench.train.sft.imitation import Batch, Data, demonstrations
from vla_gen_bench.train.sft.metrics import NUMBERS, progress_line, validation_numbers
from vla_gen_bench.train.student import (
    Averaged,
    Watched,
    action_statistics,
    build_optimiser,
    build_student,
    set_rate,
    write_checkpoint,
)


class Loss(Frozen):
    """The loss.

    Attributes:
        over: "actions": cross-entropy among the 256 action tokens. "vocabulary": among all tokens, EOS learned too,
            as the reference does; needs hard targets and autoregressive decoding.
        soft_bins: Standard deviation of the target distribution over neighbouring bins, bins; 0 = one bin only. The
            gripper is always hard.
        weights: Of the seven dimensions.
        token_noise: Share of the tokens fed to the model that come from another frame. The motion reveals whether the
            gripper is closed; with some of it wrong, the model must use the image.
        auxiliary: Weight of the hindsight loss: a small head on the image patches predicts where the end effector is,
            whether it should be closed, and where it will be when it closes and opens next. For training only.
        auxiliary_reads: What that head reads: "patches", or "patches and states": also the states that choose the first
            action, which have read the sentence; for `over: actions` without a regression head.
    """

    over: Literal["actions", "vocabulary"] = "actions"
    soft_bins: float = Field(0.0, ge=0)
    weights: tuple[float, float, float, float, float, float, float] = (1, 1, 1, 1, 1, 1, 1)
    token_noise: float = Field(0.0, ge=0, lt=1)
    auxiliary: float = Field(0.0, ge=0)
    auxiliary_reads: Reads = "patches"


class SftRecipe(Recipe):
    """Supervised fine-tuning.

    Attributes:
        data: Demonstrations from `vgb collect`, or any LeRobotDataset v3.0: folders, or hub ids, owner/name
            or owner/name@commit. A single one needs no list.
        data_map: For foreign data sets: the camera and action to read, and how actions are converted.
        demos: Use only the first `demos` of each; None = all.
        held_out: Fraction held out for validation, evenly spaced.
        small_actions: Whether frames with little motion are used; the paper drops them.
        look_first: Frames to look at before the first action is learned, counted with repetition: only the hindsight
            loss of their patches, and recognition in the scenes of `grounding`. Without the language model,
            more frames are seen in the same time. Both parts have a learning rate schedule of their own.
        samples: Frames to train on, counted with repetition; the learning rate schedule ends there.
        stop_after: Earlier step at which to stop, before the schedule ends; for a stage that another one continues.
        batch: Frames of one optimiser step over all processes; computed in `accumulate` parts.
        grounding: Scenes for an additional loss next to the demonstrations: where is the named thing?
        ema: Decay of the averaged weights, which become the checkpoint; 0 = the last weights.
        log_every, validate_every, check_every: Intervals in steps; each adds a row. `check_every` 0 = no closed-loop
            episodes.
        check_episodes: Episodes of a closed-loop check, on training-pool draws that no demonstration used.
    """

    trainer: Literal["sft"]
    data: Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)] = ()
    later_fields: ClassVar[frozenset[str]] = frozenset({"data_map"})
    data_map: DataMap | None = None
    demos: int | None = Field(None, ge=1)
    held_out: float = Field(0.05, gt=0, lt=1)
    small_actions: bool = True
    look_first: int = Field(0, ge=0)
    samples: int = Field(ge=1)
    stop_after: int | None = Field(None, ge=1)
    batch: int = Field(64, ge=1)
    accumulate: int = Field(1, ge=1)
    loss: Loss = Loss()
    augment: fr.Augment = fr.Augment()
    balance: fr.Balance = fr.Balance()
    grounding: Grounding | None = None
    ema: float = Field(0.0, ge=0, lt=1)
    log_every: int = Field(50, ge=1)
    validate_every: int = Field(2000, ge=1)
    check_every: int = Field(0, ge=0)
    check_episodes: int = Field(16, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> SftRecipe:
        if self.loss.over == "vocabulary" and self.loss.soft_bins:
            raise ValueError("loss.over: vocabulary needs loss.soft_bins: 0")
        if self.loss.over == "vocabulary" and self.loss.auxiliary_reads != "patches":
            raise ValueError("loss.over: vocabulary needs loss.auxiliary_reads: patches")
        if self.look_first and not self.loss.auxiliary:
            raise ValueError("look_first: needs loss.auxiliary, which is what looking teaches")
        return self

    @property
    def looking_steps(self) -> int:
        return math.ceil(self.look_first / self.batch)

    @property
    def steps(self) -> int:
        return self.looking_steps + math.ceil(self.samples / self.batch)

    @property
    def last(self) -> int:
        """The step to stop at."""
        return min(self.steps, self.stop_after or self.steps)

    def due(self, done: int) -> bool:
        """Whether `done` steps add a row to the curve."""
        rhythms = (self.log_every, self.validate_every, self.check_every)
        return done == self.last or any(every and done % every == 0 for every in rhythms)


def train(
    recipe: SftRecipe,
    out: Path,
    processes: Processes,
    say: Callable[[str], None],
    options: RunOptions,
) -> Path:
    """Trains as `recipe` says, or resumes where the run in `out` was interrupted; returns the checkpoint folder.

    Args:
        say: Receives one line of progress per log.

    Raises:
        UserError: The recipe, the data or the folder cannot be used, or the loss is not a number.
    """
    processes.share(recipe.batch, "batch")
    state = open_shared_run(out, recipe, processes, options.fresh)
    trainer = Trainer(recipe, demonstrations(recipe, processes), processes)
    check_data(trainer.summary, state, processes)
    if state:
        trainer.restore(state)
    curve = None
    if processes.first:
        curve = Curve(out, NUMBERS, trainer.step if state else None, options.wandb)
        say(trainer.describe())
    for done in range(trainer.step + 1, recipe.last + 1):
        trainer.one_step(out)
        if curve is None or not recipe.due(done):
            continue
        numbers, acts = trainer.numbers(), done > recipe.looking_steps
        if acts and (done % recipe.validate_every == 0 or done == recipe.last):
            numbers |= trainer.validate()
        if acts and recipe.check_every and done % recipe.check_every == 0:
            trainer.export(out / CHECKPOINT)
            numbers |= closed_loop(out / CHECKPOINT, recipe, say)
        curve.log(**numbers)
        say(progress_line(numbers, recipe, curve.wall_s))
        if trainer.since_saved() >= recipe.checkpoint_every_s or done == recipe.last:
            trainer.save(out)  # only after a row: the means of an unfinished row would be lost in a resume
    if processes.first:
        trainer.export(out / CHECKPOINT)
    processes.wait()
    return out / CHECKPOINT


class Trainer:
    """The state of one process of a run."""

    def __init__(self, recipe: SftRecipe, demos: Demos, processes: Processes) -> None:
        self.recipe, self.processes, self.step = recipe, processes, 0
        torch.manual_seed(recipe.seed)  # used only to initialise modules
        statistics = action_statistics(demos.actions, len(demos))
        self.student = build_student(recipe, statistics, processes.device)
        if recipe.loss.over == "vocabulary" and self.student.config.acting.decoding == "parallel":
            raise UserError("loss.over: vocabulary needs model.decoding: autoregressive")
        self.data = Data(recipe, demos, self.student)
        self.auxiliary = self._auxiliary_head() if recipe.loss.auxiliary else None
        named = {name: p for name, p in self.student.model.named_parameters() if p.requires_grad}
        self.heads = [head for head in (self.auxiliary, self.student.action_head) if head]
        self.task = self._grounding_task()
        self.heads += [self.task.head] if self.task else []
        for place, head in enumerate(self.heads):
            named |= {f"head{place}.{name}": p for name, p in head.named_parameters()}
        self.parameters = list(named.values())
        self.optimiser = build_optimiser(named, recipe.optimiser)
        self.averaged = Averaged(self.student.model, recipe.ema)
        self.summary = self._summary()
        self._projector = Watched(self.student.model.projector)
        self._states: Tensor | None = None
        self._sums: dict[str, float] = {}
        self._restart_clock()

    def _auxiliary_head(self) -> Hindsight:
        reads = self.recipe.loss.auxiliary_reads
        if reads != "patches" and self.student.action_head:
            raise UserError("loss.auxiliary_reads: a regression head needs patches")
        return Hindsight(self.student.config, reads).to(self.processes.device)

    def _grounding_task(self) -> Task | None:
        settings = self.recipe.grounding
        if settings is None:
            return None
        self.processes.share(settings.batch, "grounding.batch")
        return Task(settings, self.student, self.recipe.seed, self.processes.device)

    def _summary(self) -> str:
        """Identifies the data."""
        scenes = [self.task.queries.scenes.summary()] if self.task else []
        return ", ".join([self.data.demos.summary(), *scenes])

    def describe(self) -> str:
        count = sum(p.numel() for p in self.student.model.parameters())
        trained = sum(p.numel() for p in self.student.trained)
        frames = len(self.data.train_frames)
        return (
            f"{count:,} parameters, {trained:,} trained; {frames:,} frames to learn from; {self.recipe.steps:,} steps"
        )

    # ---- one step ------------------------------------------------------------------------------------------

    def one_step(self, out: Path) -> None:
        """Samples this process's share of the batch and makes one optimiser step."""
        recipe = self.recipe
        batch = self.data.batch(self.step, recipe.batch // self.processes.count, self.processes.rank)
        rate = recipe.optimiser.rate(self.step, recipe.steps, recipe.looking_steps)
        looking = self.step < recipe.looking_steps
        set_rate(self.optimiser, rate)
        self.optimiser.zero_grad(set_to_none=True)
        total, extra = 0.0, 0.0
        for part in batch.parts(recipe.accumulate):
            loss, auxiliary = self.looking_loss(part) if looking else self.loss(part)
            share = len(part.tokens) / len(batch.tokens)
            ((loss + recipe.loss.auxiliary * auxiliary) * share).backward()
            total += float(loss.detach()) * share
            extra += float(auxiliary.detach()) * share
        asked = self._learn_grounding(looking)
        if not math.isfinite(total + extra + asked):
            file = out / f"bad_batch_{self.step}.pt"
            torch.save({"step": self.step, "batch": vars(batch) | {"inputs": vars(batch.inputs)}}, file)
            raise UserError(
                f"step {self.step}: the loss is {total}; the batch is kept in {file}; try a lower optimiser.lr"
            )
        self.processes.average(self.parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, recipe.optimiser.clip or math.inf))
        if not math.isfinite(norm):
            raise UserError(f"step {self.step}: a gradient is not a number; try a lower optimiser.lr")
        self.optimiser.step()
        self.averaged.update(self.step)
        self.step += 1
        self._count(loss=total, auxiliary=extra, grounding=asked, grad_norm=norm, lr=rate)

    def _learn_grounding(self, looking: bool) -> float:
        """Adds the gradients of the grounding loss, or of recognition alone; returns its value, 0 without scenes."""
        if self.task is None or (looking and not self.task.settings.recognise):
            return 0.0
        settings = self.task.settings
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            size, rank = settings.batch // self.processes.count, self.processes.rank
            if looking:
                loss = settings.recognise * self.task.recognition_loss(self.step, size // settings.per_scene, rank)
            else:
                loss = self.task.loss(self.step, size, rank)
        (settings.weight * loss).backward()
        return float(loss.detach())

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the loss of the tokens and the hindsight loss, scalars."""
        device = self.processes.device
        inputs, tokens = batch.inputs.to(device, torch.float32), batch.tokens.to(device)
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")
        with autocast:
            if self.student.action_head:
                loss = chunk_loss(self.student.model, inputs, batch.actions.to(device), self.student.action_head)
            elif self.recipe.loss.over == "vocabulary":
                sequence, labels = self.student.processor.targets(inputs, tokens)
                loss = token_loss(self.student.model(sequence), labels)
            else:
                loss = self._slot_losses(inputs, batch.fed.to(device), batch.targets.to(device)).mean()
            return loss, self._auxiliary_loss(batch)

    def looking_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns 0 and the hindsight loss of the image patches alone: no action is scored, no sentence read."""
        model, device = self.student.model, self.processes.device
        self._states = None
        with torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            model.projector(model.vision_backbone(batch.inputs.pixels.to(device)))
            return torch.zeros((), device=device), self._auxiliary_loss(batch)

    def _slot_losses(self, inputs: Inputs, tokens: Tensor, targets: Tensor) -> Tensor:
        """Returns the weighted cross-entropy [B, 7 K] of each token."""
        logits = self.logits(inputs, tokens)
        losses = -(targets * F.log_softmax(logits.float(), -1)).sum(-1)
        weights = losses.new_tensor(self.recipe.loss.weights).repeat(losses.shape[1] // 7)
        return losses * weights

    def logits(self, inputs: Inputs, tokens: Tensor) -> Tensor:
        """Returns logits [B, 7 K, 256] of demonstrated tokens."""
        scored = score_tokens(self.student.model, inputs, tokens)
        self._states = scored.hidden
        return scored.logits

    def _auxiliary_loss(self, batch: Batch) -> Tensor:
        if self.auxiliary is None:
            return torch.zeros((), device=self.processes.device)
        return self.auxiliary.loss(self._projector.output, self._states, batch.hindsight, batch.known)

    # ---- numbers -------------------------------------------------------------------------------------------

    def _count(self, **values: float) -> None:
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._steps += 1

    def _restart_clock(self) -> None:
        self._sums, self._steps, self._since = {}, 0, time.monotonic()
        self._saved = getattr(self, "_saved", time.monotonic())

    def since_saved(self) -> float:
        """Seconds since the state was saved."""
        return time.monotonic() - self._saved

    def numbers(self) -> dict[str, float]:
        """Returns the means since the last call."""
        speed = self._steps * self.recipe.batch / (time.monotonic() - self._since)
        means = {key: value / self._steps for key, value in self._sums.items()}
        self._restart_clock()
        acted = max(0, self.step - self.recipe.looking_steps)
        return {"step": self.step, "samples": acted * self.recipe.batch, "samples_per_s": speed, **means}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Returns errors of the averaged weights on held-out frames, by dimension and phase.

        The loss is teacher-forced; actions are decoded greedily, each token after the model's own: the true motion
        would reveal the gripper action.
        """
        self.student.model.eval()
        losses, errors, phases = [], [], []
        with self.averaged.in_place():
            for frames in np.array_split(self.data.check_frames, max(1, len(self.data.check_frames) // 64)):
                loss, told = self._told(self.data.of(frames, None))
                losses.append(loss)
                errors.append(np.abs(told - self.data.demos.actions[frames]))
                phases.append(self.data.kinds.phase[frames])
        self.student.model.train()
        self._restart_clock()
        return validation_numbers(float(np.mean(losses)), np.concatenate(errors), np.concatenate(phases))

    def _told(self, batch: Batch) -> tuple[float, np.ndarray]:
        """Returns the unweighted loss and the first action [B, 7] that the model chooses, robot units."""
        inputs = batch.inputs.to(self.processes.device, torch.float32)
        if self.student.action_head:
            told = teacher(self.student.model, inputs, self.student.action_head).float().cpu()
            return float(F.l1_loss(told, batch.actions)), self.student.stats.unnormalise(told[:, 0].numpy())
        logits = self.logits(inputs, batch.tokens.to(self.processes.device)).float().cpu()
        loss = float(-(batch.targets * F.log_softmax(logits, -1)).sum(-1).mean())
        tokens = choose_tokens(self.student.model, inputs).tokens.cpu() - self.student.config.action_range[0]
        return loss, self.data.actions_of(tokens)

    # ---- state ---------------------------------------------------------------------------------------------

    def save(self, out: Path) -> None:
        """Saves the state from which a run resumes."""
        self._saved = time.monotonic()
        save_state(
            out,
            {
                "step": self.step,
                "data": self.summary,
                "model": self.student.model.state_dict(),
                "heads": [head.state_dict() for head in self.heads],
                "optimiser": self.optimiser.state_dict(),
                "averaged": self.averaged.values,
            },
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a saved state."""
        self.step = state["step"]
        self.student.model.load_state_dict(state["model"])
        for head, saved in zip(self.heads, state["heads"], strict=True):
            head.load_state_dict(saved)
        self.optimiser.load_state_dict(state["optimiser"])
        for name, value in state["averaged"].items():
            self.averaged.values[name].copy_(value)

    def export(self, folder: Path) -> None:
        """Writes the averaged weights as a checkpoint."""
        with self.averaged.in_place():
            write_checkpoint(self.student, folder)


def closed_loop(checkpoint: Path, recipe: SftRecipe, say: Callable[[str], None]) -> dict[str, float]:
    """Returns the checkpoint's results on training-pool episodes; reports a simulator failure and continues."""
    from vla_gen_bench.train.closed_loop import check_policy_in_training_pool

    try:
        return check_policy_in_training_pool(checkpoint, recipe.world, recipe.check_episodes)
    except Exception as error:  # a failed check must not stop training
        say(f"closed-loop check failed: {type(error).__name__}: {error}")
        return {}
