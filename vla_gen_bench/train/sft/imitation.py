"""Demonstrations as training batches: inputs and target tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla.actions import BINS, CENTRES
from vla_gen_bench.policies.openvla.config import ACTION_BINS
from vla_gen_bench.policies.openvla.images import normalised as normalised_pixels
from vla_gen_bench.policies.openvla.model.vla import Inputs
from vla_gen_bench.policies.openvla.processor import pad_prompts
from vla_gen_bench.train.demos import frames as fr
from vla_gen_bench.train.demos.dataset import Demos, load
from vla_gen_bench.train.demos.joined import joined
from vla_gen_bench.train.demos.lerobot_reader import local_folder
from vla_gen_bench.train.demos.overlays import Overlays
from vla_gen_bench.train.demos.sentences import reworded_prompt
from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.student import Student

if TYPE_CHECKING:
    from vla_gen_bench.train.sft.trainer import SftRecipe

STREAM, VALIDATION_STREAM = 0x5F7, 0x5F8
VALIDATION_FRAMES = 2048
GRIPPER = 6


@dataclass(frozen=True)
class Batch:
    """B frames.

    Attributes:
        inputs: Prompts and images.
        actions: float32 [B, K, 7], normalised.
        tokens: int64 [B, 7 K], their ids; `targets` [B, 7 K, 256]: their target distributions.
        fed: int64 [B, 7 K], the preceding tokens that the model reads: `tokens`, some of them changed.
        hindsight, known: float32 and bool [B, 13], in units of their spread.
    """

    inputs: Inputs
    actions: Tensor
    tokens: Tensor
    targets: Tensor
    fed: Tensor
    hindsight: Tensor
    known: Tensor

    def parts(self, count: int) -> Iterator[Batch]:
        """Yields the batch in `count` parts."""
        for rows in torch.arange(len(self.tokens)).chunk(count):
            inputs = Inputs(self.inputs.ids[rows], self.inputs.mask[rows], self.inputs.pixels[rows])
            rest = (self.actions, self.tokens, self.targets, self.fed, self.hindsight, self.known)
            yield Batch(inputs, *(tensor[rows] for tensor in rest))


def demonstrations(recipe: SftRecipe, processes: Processes) -> Demos:
    """Returns the recipe's training data; the first process decodes the images, the others reuse them.

    Raises:
        UserError: No data is named, it cannot be read, or it is of another world.
    """
    if not recipe.data:
        raise UserError("data: none given; collect some with 'vgb collect' and name their folder with --data")
    if not processes.first:
        processes.wait()
    folders = [local_folder(name) for name in recipe.data]
    sets = [load(folder, recipe.demos, mapping=recipe.data_map, world=recipe.world) for folder in folders]
    if recipe.loss.auxiliary and any(not demos.states.any() for demos in sets):
        raise UserError("loss.auxiliary: these demonstrations do not tell where the arm is; --set loss.auxiliary=0")
    if processes.first:
        processes.wait()
    demos = joined(sets, recipe.data)
    if demos.world != recipe.world:
        raise UserError(f"{recipe.data[0]}: world {demos.world}, the recipe's is {recipe.world}; give --set world=...")
    return demos


class Data:
    """Demonstrations as batches."""

    def __init__(self, recipe: SftRecipe, demos: Demos, student: Student) -> None:
        self.demos, self.student, self.recipe = demos, student, recipe
        self.kinds = fr.kinds_of(demos)
        tables = fr.table_images(demos.world, student.config.image)
        names = sorted(tables)
        known = {id: place for place, id in enumerate(names)} | {"": 0}  # "": foreign data, all foreground
        table = np.array([known[id] for id in demos.tables])[demos.episode]
        side = student.config.image
        self.camera = fr.Camera(
            fr.resized(demos.images, side), fr.resized(demos.foreground, side), table,
            np.stack([tables[name] for name in names]).astype(np.float32), recipe.augment,
            Overlays(demos.world, side) if recipe.augment.overlaid else None,
        )  # fmt: skip
        self.prompts = [student.processor.tokenizer.prompt(text) for text in demos.instructions]
        self.chunk = student.config.acting.chunk
        self.normalised = student.stats.normalise(demos.actions.astype(np.float64))
        self.hindsight, self.known = fr.hindsight(demos, self.kinds)
        self.hindsight_scale = _scale(self.hindsight, self.known)
        self._split()

    def _split(self) -> None:
        """Holds out whole episodes; `check_frames` are sampled once from them."""
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
        self.check_frames = np.sort(random.permutation(frames)[:VALIDATION_FRAMES])

    def batch(self, step: int, size: int, rank: int) -> Batch:
        """Returns the frames this process trains on in `step`."""
        random = np.random.default_rng((STREAM, self.recipe.seed, step, rank))
        places = np.searchsorted(self.cumulated, random.random(size), side="right")
        return self.of(self.train_frames[np.minimum(places, len(self.train_frames) - 1)], random)

    def of(self, frames: np.ndarray, random: np.random.Generator | None) -> Batch:
        """Returns given frames; augmented if `random` is given."""
        pictures = self.camera.take(frames, random)
        episodes, words = self.demos.episode[frames], self.recipe.augment.words
        if random is not None and words and random.random() < words:
            prompts = [self._reworded(episode, random) for episode in episodes]
        else:
            prompts = [self.prompts[episode] for episode in episodes]
        ids, mask = pad_prompts(prompts, self.student.config.pad)
        actions = self.normalised[self._following(frames)]  # [B, K, 7]
        tokens = self.student.processor.action_tokens(actions)
        return Batch(
            Inputs(ids, mask, normalised_pixels(pictures, self.student.config)),
            torch.from_numpy(actions.astype(np.float32)),
            tokens,
            soft_targets(actions, self.recipe.loss.soft_bins),
            tokens if random is None else exchanged(tokens, self.recipe.loss.token_noise, random),
            torch.from_numpy(self.hindsight[frames] / self.hindsight_scale),
            torch.from_numpy(self.known[frames]),
        )

    def _reworded(self, episode: int, random: np.random.Generator) -> list[int]:
        sentence, kept = self.demos.instructions[episode], self.demos.decisive[episode]
        return reworded_prompt(self.student.processor.tokenizer, sentence, kept, random)

    def _following(self, frames: np.ndarray) -> np.ndarray:
        """Returns [B, K]: each frame and the ones after it; past an episode's end the last one repeats."""
        ends = self.demos.starts[self.demos.episode[frames] + 1] - 1
        return np.minimum(frames[:, None] + np.arange(self.chunk), ends[:, None])

    def actions_of(self, bins: Tensor) -> np.ndarray:
        """Returns the first action [B, 7], robot units, from chosen bins [B, 7 K]."""
        return self.student.stats.unnormalise(_CENTRES[bins[:, :7].numpy()])


_CENTRES = CENTRES[np.clip(ACTION_BINS - 1 - np.arange(ACTION_BINS), 0, ACTION_BINS - 2)]  # by index of action token


def exchanged(tokens: Tensor, share: float, random: np.random.Generator) -> Tensor:
    """Returns a copy of [B, S] in which a fraction of the tokens comes from another row."""
    other = tokens[torch.from_numpy(random.permutation(len(tokens)))]
    return torch.where(torch.from_numpy(random.random(tokens.shape) < share), other, tokens)


def soft_targets(normalised: np.ndarray, sigma_bins: float) -> Tensor:
    """Returns float32 [B, 7 K, 256]: target distributions of the action tokens, lowest id first.

    Args:
        normalised: [B, K, 7] in [-1, 1].
        sigma_bins: Standard deviation around the value, bins; 0 = only the value's own bin. Gripper: always 0.
    """
    flat = normalised.reshape(len(normalised), -1)
    width = 2.0 / (ACTION_BINS - 1)
    away = (_CENTRES - np.clip(flat, -1, 1)[..., None]) / width
    hard = np.zeros_like(away)
    bins = ACTION_BINS - np.digitize(np.clip(flat, -1, 1), BINS)
    np.put_along_axis(hard, bins[..., None], 1.0, axis=-1)
    if sigma_bins:
        soft = np.exp(-0.5 * (away / sigma_bins) ** 2)
        soft /= soft.sum(-1, keepdims=True)
        gripper = np.arange(flat.shape[1]) % 7 == GRIPPER
        hard = np.where(gripper[None, :, None], hard, soft)
    return torch.from_numpy(hard.astype(np.float32))


def _scale(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns the spread of each column over its known entries."""
    spread = [
        values[known[:, column], column].std() if known[:, column].any() else 1.0 for column in range(values.shape[1])
    ]
    return np.maximum(np.array(spread, np.float32), 1e-3)
