"""Supervised fine-tuning: demonstrations in, a checkpoint that imitates them out. Reads top to bottom.

One step: draw frames, change their pictures, score the demonstrated action tokens, step. Every random draw is keyed by
(seed, step), so that a run that was broken off goes on exactly as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla.actions import CENTRES
from vla_gen_bench.policies.openvla.config import ACTION_BINS
from vla_gen_bench.policies.openvla.decoding import teacher_forced
from vla_gen_bench.policies.openvla.images import normalised as normalised_pixels
from vla_gen_bench.policies.openvla.model import Inputs, token_loss
from vla_gen_bench.policies.openvla.oft import parallel_forward
from vla_gen_bench.policies.openvla.processor import pad_prompts
from vla_gen_bench.spec import Frozen
from vla_gen_bench.train import frames as fr
from vla_gen_bench.train.dataset import Demos, load
from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.recipe import Recipe
from vla_gen_bench.train.run import CHECKPOINT, Curve, open_run, save_state
from vla_gen_bench.train.student import (
    Averaged,
    Student,
    action_statistics,
    build_optimiser,
    build_student,
    set_rate,
    write_checkpoint,
)

STREAM, VALIDATION_STREAM = 0x5F7, 0x5F8
GRIPPER = 6
NUMBERS = (
    "step", "samples", "wall_s", "samples_per_s", "lr", "loss", "auxiliary", "grad_norm",
    "val_loss", "val_x_mm", "val_y_mm", "val_z_mm", "val_yaw_rad", "val_gripper",
    "val_close_z_mm", "val_carry_z_mm", "val_switch", "success", "success_once", "grasped", "episodes",
)  # fmt: skip


class Loss(Frozen):
    """What is minimised.

    Attributes:
        over: "actions": cross-entropy among the 256 action tokens. "vocabulary": among all tokens, EOS learned too,
            as the reference does; needs hard targets and autoregressive decoding.
        soft_bins: Standard deviation of the target distribution over neighbouring bins, bins; 0 = one bin only. The
            gripper is always hard.
        weights: Of the seven dimensions.
        auxiliary: Weight of the hindsight loss: a small head on the image patches tells where the end effector is,
            and where it will be when the gripper closes and opens next. For training only, thrown away after.
    """

    over: Literal["actions", "vocabulary"] = "actions"
    soft_bins: float = Field(0.0, ge=0)
    weights: tuple[float, float, float, float, float, float, float] = (1, 1, 1, 1, 1, 1, 1)
    auxiliary: float = Field(0.0, ge=0)


class SftRecipe(Recipe):
    """Supervised fine-tuning.

    Attributes:
        data: Folder of demonstrations, as `vgb collect` writes it.
        demos: Only the first so many; None = all.
        held_out: Share of them for validation: every so many-th.
        small_actions: Whether frames that hardly move are used; the paper drops them.
        samples: Frames to train on, counted with repetition.
        batch: Frames of one optimiser step over all processes; computed in `accumulate` parts.
        ema: Decay of the averaged weights, which become the checkpoint; 0 = the last weights.
        log_every, validate_every, check_every: Steps; `check_every` 0 = no closed-loop episodes.
        check_episodes: Episodes of a closed-loop check, on training-pool draws that no demonstration used.
    """

    trainer: Literal["sft"]
    data: str | None = None
    demos: int | None = Field(None, ge=1)
    held_out: float = Field(0.05, gt=0, lt=1)
    small_actions: bool = True
    samples: int = Field(ge=1)
    batch: int = Field(64, ge=1)
    accumulate: int = Field(1, ge=1)
    loss: Loss = Loss()
    augment: fr.Augment = fr.Augment()
    balance: fr.Balance = fr.Balance()
    ema: float = Field(0.0, ge=0, lt=1)
    log_every: int = Field(50, ge=1)
    validate_every: int = Field(2000, ge=1)
    check_every: int = Field(0, ge=0)
    check_episodes: int = Field(16, ge=1)

    @property
    def steps(self) -> int:
        return math.ceil(self.samples / self.batch)


def train(recipe: SftRecipe, out: Path, processes: Processes, say: Callable[[str], None], **options: Any) -> Path:
    """Trains as `recipe` says, or goes on where the run in `out` was broken off; returns the checkpoint folder.

    Args:
        say: Gets one line of progress per log.
        options: `fresh`: begin anew. `wandb`: a project's name.

    Raises:
        UserError: The recipe, the data or the folder cannot be used, or the loss is not a number.
    """
    state = open_run(out, recipe, options.get("fresh", False)) if processes.first else None
    state = processes.shared(state)
    demos = load(Path(recipe.data or ""), recipe.demos)
    trainer = Trainer(recipe, demos, processes)
    if state:
        trainer.restore(state)
    curve = None
    if processes.first:
        curve = Curve(out, NUMBERS, trainer.step if state else None, options.get("wandb"))
        say(trainer.describe())
    for step in range(trainer.step, recipe.steps):
        trainer.one_step(out)
        done = step + 1
        if curve is None:
            continue
        if done % recipe.log_every == 0 or done == recipe.steps:
            numbers = trainer.numbers()
            if done % recipe.validate_every == 0 or done == recipe.steps:
                numbers |= trainer.validate()
            if recipe.check_every and done % recipe.check_every == 0:
                trainer.export(out / CHECKPOINT)
                numbers |= closed_loop(out / CHECKPOINT, recipe)
            curve.log(**numbers)
            say(progress_line(numbers, recipe, curve.wall_s))
        if trainer.since_saved() >= recipe.checkpoint_every_s or done == recipe.steps:
            trainer.save(out)
    if processes.first:
        trainer.export(out / CHECKPOINT)
    processes.wait()
    return out / CHECKPOINT


@dataclass(frozen=True)
class Batch:
    """B frames: prompts and pictures, token ids [B, 7 K], targets [B, 7 K, 256], hindsight targets and their masks."""

    inputs: Inputs
    tokens: Tensor
    targets: Tensor
    hindsight: Tensor
    known: Tensor

    def parts(self, count: int) -> Iterator[Batch]:
        """Yields the batch in `count` parts."""
        for rows in torch.arange(len(self.tokens)).chunk(count):
            inputs = Inputs(self.inputs.ids[rows], self.inputs.mask[rows], self.inputs.pixels[rows])
            yield Batch(inputs, self.tokens[rows], self.targets[rows], self.hindsight[rows], self.known[rows])


class Trainer:
    """Everything one process of a run holds."""

    def __init__(self, recipe: SftRecipe, demos: Demos, processes: Processes) -> None:
        self.recipe, self.processes, self.step = recipe, processes, 0
        torch.manual_seed(recipe.seed)  # nothing draws from it but modules at their creation
        statistics = action_statistics(demos.actions, len(demos))
        self.student = build_student(recipe, statistics, processes.device)
        self.data = Data(recipe, demos, self.student)
        self.auxiliary = _auxiliary_head(self.student) if recipe.loss.auxiliary else None
        named = {name: p for name, p in self.student.model.named_parameters() if p.requires_grad}
        if self.auxiliary:
            self.auxiliary.to(processes.device)
            named |= {f"auxiliary.{name}": p for name, p in self.auxiliary.named_parameters()}
        self.parameters = list(named.values())
        self.optimiser = build_optimiser(named, recipe.optimiser)
        self.averaged = Averaged(self.student.model, recipe.ema)
        self._patches: list[Tensor] = []
        self.student.model.projector.register_forward_hook(lambda module, inputs, output: self._patches.append(output))
        self._sums: dict[str, float] = {}
        self._restart_clock()

    def describe(self) -> str:
        count = sum(p.numel() for p in self.student.model.parameters())
        trained = sum(p.numel() for p in self.student.trained)
        frames = len(self.data.train_frames)
        return f"{count:,} parameters, {trained:,} trained; {frames:,} frames to learn from; {self.recipe.steps:,} steps"

    # ---- one step ------------------------------------------------------------------------------------------

    def one_step(self, out: Path) -> None:
        """Draws this process's share of the batch and makes one optimiser step."""
        recipe = self.recipe
        batch = self.data.batch(self.step, recipe.batch // self.processes.count, self.processes.rank)
        rate = recipe.optimiser.rate(self.step, recipe.steps)
        set_rate(self.optimiser, rate)
        self.optimiser.zero_grad(set_to_none=True)
        total, extra = 0.0, 0.0
        for part in batch.parts(recipe.accumulate):
            loss, auxiliary = self.loss(part)
            ((loss + recipe.loss.auxiliary * auxiliary) / recipe.accumulate).backward()
            total += float(loss.detach()) / recipe.accumulate
            extra += float(auxiliary.detach()) / recipe.accumulate
        if not math.isfinite(total + extra):
            file = out / f"bad_batch_{self.step}.pt"
            torch.save({"step": self.step, "batch": vars(batch) | {"inputs": vars(batch.inputs)}}, file)
            raise UserError(f"step {self.step}: the loss is {total}; the batch is kept in {file}; try a lower optimiser.lr")
        self.processes.average(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, recipe.optimiser.clip or math.inf)
        self.optimiser.step()
        self.averaged.update(self.step)
        self.step += 1
        self._count(loss=total, auxiliary=extra, grad_norm=float(norm), lr=rate)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the loss of the tokens and the hindsight loss, scalars."""
        device = self.processes.device
        inputs, tokens = batch.inputs.to(device, torch.float32), batch.tokens.to(device)
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")
        self._patches.clear()
        with autocast:
            if self.recipe.loss.over == "vocabulary":
                sequence, labels = self.student.processor.targets(inputs, tokens)
                loss = token_loss(self.student.model(sequence), labels)
            else:
                loss = self._slot_losses(inputs, tokens, batch.targets.to(device)).mean()
            return loss, self._auxiliary_loss(batch)

    def _slot_losses(self, inputs: Inputs, tokens: Tensor, targets: Tensor) -> Tensor:
        """Returns the weighted cross-entropy [B, 7 K] of each token."""
        logits = self.logits(inputs, tokens)
        losses = -(targets * F.log_softmax(logits.float(), -1)).sum(-1)
        weights = losses.new_tensor(self.recipe.loss.weights).repeat(losses.shape[1] // 7)
        return losses * weights

    def logits(self, inputs: Inputs, tokens: Tensor) -> Tensor:
        """Returns logits [B, 7 K, 256] of demonstrated tokens."""
        acting = self.student.config.acting
        if acting.decoding == "parallel":
            return parallel_forward(self.student.model, inputs, tokens, acting.attention).logits
        return teacher_forced(self.student.model, inputs, tokens).logits

    def _auxiliary_loss(self, batch: Batch) -> Tensor:
        if self.auxiliary is None:
            return torch.zeros((), device=self.processes.device)
        told = self.auxiliary(self._patches[-1].flatten(1).float())
        known = batch.known.to(told)
        errors = F.smooth_l1_loss(told, batch.hindsight.to(told), reduction="none")
        return (errors * known).sum() / known.sum().clamp(min=1)

    # ---- numbers -------------------------------------------------------------------------------------------

    def _count(self, **values: float) -> None:
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._steps += 1

    def _restart_clock(self) -> None:
        import time

        self._sums, self._steps, self._since = {}, 0, time.monotonic()
        self._saved = getattr(self, "_saved", time.monotonic())

    def since_saved(self) -> float:
        """Seconds since the state was saved."""
        import time

        return time.monotonic() - self._saved

    def numbers(self) -> dict[str, float]:
        """Returns the means since the last call."""
        import time

        speed = self._steps * self.recipe.batch / (time.monotonic() - self._since)
        means = {key: value / self._steps for key, value in self._sums.items()}
        self._restart_clock()
        return {"step": self.step, "samples": self.step * self.recipe.batch, "samples_per_s": speed, **means}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Returns teacher-forced errors of the averaged weights on held-out frames, by dimension and phase."""
        self.averaged.swap()
        self.student.model.eval()
        losses, errors, phases = [], [], []
        for frames in np.array_split(self.data.check_frames, max(1, len(self.data.check_frames) // 64)):
            batch = self.data.of(frames, None)
            inputs, tokens = batch.inputs.to(self.processes.device, torch.float32), batch.tokens
            logits = self.logits(inputs, tokens.to(self.processes.device)).float().cpu()
            losses.append(float(-(batch.targets * F.log_softmax(logits, -1)).sum(-1).mean()))
            told = self.data.actions_of(logits.argmax(-1))
            errors.append(np.abs(told - self.data.demos.actions[frames]))
            phases.append(self.data.kinds.phase[frames])
        self.averaged.swap()
        self.student.model.train()
        self._restart_clock()
        return _validation_numbers(float(np.mean(losses)), np.concatenate(errors), np.concatenate(phases))

    # ---- state ---------------------------------------------------------------------------------------------

    def save(self, out: Path) -> None:
        """Writes the state to resume from."""
        import time

        self._saved = time.monotonic()
        if not self.processes.first:
            return
        save_state(
            out,
            {
                "step": self.step,
                "model": self.student.model.state_dict(),
                "auxiliary": self.auxiliary.state_dict() if self.auxiliary else None,
                "optimiser": self.optimiser.state_dict(),
                "averaged": self.averaged.values,
            },
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a saved state."""
        self.step = state["step"]
        self.student.model.load_state_dict(state["model"])
        if self.auxiliary:
            self.auxiliary.load_state_dict(state["auxiliary"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, value in state["averaged"].items():
            self.averaged.values[name].copy_(value)

    def export(self, folder: Path) -> None:
        """Writes the averaged weights as a checkpoint."""
        self.averaged.swap()
        write_checkpoint(self.student, folder)
        self.averaged.swap()


class Data:
    """Demonstrations as batches."""

    def __init__(self, recipe: SftRecipe, demos: Demos, student: Student) -> None:
        self.demos, self.student, self.recipe = demos, student, recipe
        self.kinds = fr.kinds_of(demos)
        tables = fr.table_images(demos.world, student.config.image)
        names = sorted(tables)
        table = np.array([names.index(id) for id in demos.tables])[demos.episode]
        side = student.config.image
        self.camera = fr.Camera(
            fr.resized(demos.images, side), fr.resized(demos.foreground, side), table,
            np.stack([tables[name] for name in names]).astype(np.float32), recipe.augment,
        )  # fmt: skip
        self.prompts = [student.processor.tokenizer.prompt(text) for text in demos.instructions]
        self.chunk = student.config.acting.chunk
        self.normalised = student.stats.normalise(demos.actions.astype(np.float64))
        self.hindsight, self.known = fr.hindsight(demos, self.kinds)
        self.hindsight_scale = _scale(self.hindsight, self.known)
        self._split()

    def _split(self) -> None:
        """Holds out whole episodes; `check_frames` are drawn once from them."""
        usable = ~self.kinds.small | self.recipe.small_actions
        every = max(2, round(1 / self.recipe.held_out))
        held_out = self.demos.episode % every == every - 1
        if not held_out.any():
            held_out = self.demos.episode == len(self.demos) - 1
        self.train_frames = np.flatnonzero(usable & ~held_out)
        if not len(self.train_frames):
            self.train_frames = np.flatnonzero(usable)  # a single demonstration: nothing to hold out
        weights = fr.weights_of(self.demos, self.kinds, self.recipe.balance)[self.train_frames]
        self.cumulated = np.cumsum(weights) / weights.sum()
        frames = np.flatnonzero(usable & held_out)
        random = np.random.default_rng(VALIDATION_STREAM)
        self.check_frames = np.sort(random.permutation(frames)[:2048])

    def batch(self, step: int, size: int, rank: int) -> Batch:
        """Returns the frames this process trains on in `step`."""
        random = np.random.default_rng((STREAM, self.recipe.seed, step, rank))
        places = np.searchsorted(self.cumulated, random.random(size), side="right")
        return self.of(self.train_frames[np.minimum(places, len(self.train_frames) - 1)], random)

    def of(self, frames: np.ndarray, random: np.random.Generator | None) -> Batch:
        """Returns given frames; augmented if `random` is given."""
        pictures = self.camera.take(frames, random)
        ids, mask = pad_prompts([self.prompts[episode] for episode in self.demos.episode[frames]], self.student.config.pad)
        actions = self.normalised[self._following(frames)]  # [B, K, 7]
        return Batch(
            Inputs(ids, mask, normalised_pixels(pictures, self.student.config)),
            self.student.processor.action_tokens(actions),
            soft_targets(actions, self.recipe.loss.soft_bins),
            torch.from_numpy(self.hindsight[frames] / self.hindsight_scale),
            torch.from_numpy(self.known[frames]),
        )

    def _following(self, frames: np.ndarray) -> np.ndarray:
        """Returns [B, K]: each frame and the ones after it; at an episode's end the last one again."""
        ends = self.demos.starts[self.demos.episode[frames] + 1] - 1
        return np.minimum(frames[:, None] + np.arange(self.chunk), ends[:, None])

    def actions_of(self, bins: Tensor) -> np.ndarray:
        """Returns the first action [B, 7], robot units, of chosen bins [B, 7 K]."""
        return self.student.stats.unnormalise(_CENTRES[bins[:, :7].numpy()])


_CENTRES = CENTRES[np.clip(ACTION_BINS - 1 - np.arange(ACTION_BINS), 0, ACTION_BINS - 2)]  # by index of action token


def soft_targets(normalised: np.ndarray, sigma_bins: float) -> Tensor:
    """Returns float32 [B, 7 K, 256]: what the action tokens should be, lowest id first.

    Args:
        normalised: [B, K, 7] in [-1, 1].
        sigma_bins: Standard deviation around the value, bins; 0 = all on the value's own bin. Gripper: always 0.
    """
    flat = normalised.reshape(len(normalised), -1)
    width = 2.0 / (ACTION_BINS - 1)
    away = (_CENTRES - np.clip(flat, -1, 1)[..., None]) / width
    hard = np.zeros_like(away)
    bins = ACTION_BINS - np.digitize(np.clip(flat, -1, 1), np.linspace(-1, 1, ACTION_BINS))
    np.put_along_axis(hard, bins[..., None], 1.0, axis=-1)
    if sigma_bins:
        soft = np.exp(-0.5 * (away / sigma_bins) ** 2)
        soft /= soft.sum(-1, keepdims=True)
        gripper = np.arange(flat.shape[1]) % 7 == GRIPPER
        hard = np.where(gripper[None, :, None], hard, soft)
    return torch.from_numpy(hard.astype(np.float32))


def _scale(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns the spread of each column where it is known."""
    spread = [values[known[:, column], column].std() if known[:, column].any() else 1.0 for column in range(values.shape[1])]
    return np.maximum(np.array(spread, np.float32), 1e-3)


def _auxiliary_head(student: Student) -> nn.Module:
    width = student.config.patches * student.config.text.width
    return nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, len(fr.AUXILIARY)))


def _validation_numbers(loss: float, errors: np.ndarray, phases: np.ndarray) -> dict[str, float]:
    def mean(values: np.ndarray) -> float | None:
        return float(values.mean()) if len(values) else None

    close, carry = (phases == fr.PHASES.index(name) for name in ("close", "carry"))
    switch = close | (phases == fr.PHASES.index("release"))
    right = errors[:, GRIPPER] < 1.0
    millimetres = 1e3 * errors[:, :3].mean(axis=0)
    return {
        "val_loss": loss,
        **{f"val_{axis}_mm": float(value) for axis, value in zip("xyz", millimetres, strict=True)},
        "val_yaw_rad": float(errors[:, 5].mean()),
        "val_gripper": float(right.mean()),
        "val_close_z_mm": mean(1e3 * errors[close, 2]),
        "val_carry_z_mm": mean(1e3 * errors[carry, 2]),
        "val_switch": mean(right[switch]),
    }


def closed_loop(checkpoint: Path, recipe: SftRecipe) -> dict[str, float]:
    """Returns what the checkpoint does, greedily, on training-pool episodes that no demonstration used."""
    from vla_gen_bench.train.check import check_policy_in_training_pool

    return check_policy_in_training_pool(checkpoint, recipe.world, recipe.check_episodes)


def progress_line(numbers: dict[str, float], recipe: SftRecipe, wall_s: float) -> str:
    """Returns one line for a terminal."""
    left = (recipe.steps - numbers["step"]) * recipe.batch / max(numbers["samples_per_s"], 1e-9)
    line = (
        f"step {numbers['step']:,}/{recipe.steps:,}  loss {numbers['loss']:.3f}  aux {numbers['auxiliary']:.3f}  "
        f"lr {numbers['lr']:.2g}  {numbers['samples_per_s']:.0f} samples/s  {wall_s / 60:.1f} min, {left / 60:.0f} left"
    )
    if "val_loss" in numbers:
        line += "  |  val " + "  ".join(
            f"{key.removeprefix('val_')} {value:.3g}" for key, value in numbers.items() if key.startswith("val_") and value is not None
        )
    if "success" in numbers:
        line += f"  |  closed loop {numbers['success']:.2f}, grasped {numbers['grasped']:.2f}"
    return line
