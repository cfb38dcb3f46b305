"""Frames for supervised training: sampling weights, replaced tables, augmentation, hindsight targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from vla_gen_bench.assets.pack import open_pack
from vla_gen_bench.assets.world import get_world
from vla_gen_bench.envs.compositing import load_image
from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.train.demos.dataset import Demos
from vla_gen_bench.train.demos.overlays import Overlays
from vla_gen_bench.train.demos.overlays import weights as overlay_weights
from vla_gen_bench.train.resize import squashed

SMALL_M, SMALL_RAD = 0.01, 0.06  # the paper's small-action filter (RL4VLA: warm-up data set builder)
AUXILIARY = (
    "tcp x", "tcp y", "tcp z", "finger", "shut", "retreat",
    "close dx", "close dy", "close dz", "close dyaw", "free dx", "free dy", "free dz",
)  # fmt: skip
PHASES = ("approach", "close", "carry", "release", "retreat")


class Balance(Frozen):
    """How often frames are sampled, relative to 1.

    Attributes:
        begin: The first `steps` frames of an episode, where the object is farthest.
        switch: The frame whose action changes the gripper.
        before: The `steps` frames before one.
        done: Frames after the object was let go.
    """

    begin: float = Field(1.0, gt=0)
    switch: float = Field(1.0, gt=0)
    before: float = Field(1.0, gt=0)
    steps: int = Field(4, ge=0)
    done: float = Field(1.0, gt=0)


class Augment(Frozen):
    """Changes of images and instructions, sampled again for every sample.

    Attributes:
        words: Share of the batches whose sentences are reworded at random, see `sentences.reworded`; names that tell
            several things apart remain (other projects' data does not say which do). A small model trained on few
            sentences does not act at all when given another.
        tables: Share of the samples whose table is replaced by another one of the training pool.
        mix: Share of the replaced tables that blend two tables, mirrored at random.
        shift: Largest shift along each axis, as a fraction of the image's side.
        brightness, contrast, saturation: Factors are sampled from 1 - x to 1 + x.
        gamma: Exponents are sampled from 1 / (1 + x) to 1 + x, log-uniformly.
        texture, noise: Share of the samples with an overlay pattern over robot and things, and over the full image; a
            sample has at most one of them. Only for worlds that have training patterns: `pretrain`.
        overlay: Maximum overlay strength.
    """

    words: float = Field(0.0, ge=0, le=1)
    tables: float = Field(0.0, ge=0, le=1)
    mix: float = Field(0.0, ge=0, le=1)
    shift: float = Field(0.0, ge=0, lt=0.5)
    brightness: float = Field(0.0, ge=0, lt=1)
    contrast: float = Field(0.0, ge=0, lt=1)
    saturation: float = Field(0.0, ge=0, lt=1)
    gamma: float = Field(0.0, ge=0)
    texture: float = Field(0.0, ge=0, le=1)
    noise: float = Field(0.0, ge=0, le=1)
    overlay: float = Field(0.6, ge=0, le=1)

    @property
    def overlaid(self) -> bool:
        """Whether overlay patterns are needed."""
        return self.texture + self.noise > 0


@dataclass(frozen=True)
class Kinds:
    """The role of each frame, derived from the labels alone.

    Attributes:
        phase: int64 [F], index into `PHASES`.
        next_close, next_free: int64 [F], frame of the next lasting gripper closing, and of the next release, in the
            same episode; -1 for none.
        small: bool [F], dropped by the paper's small-action filter.
    """

    phase: np.ndarray
    next_close: np.ndarray
    next_free: np.ndarray
    small: np.ndarray


def kinds_of(demos: Demos) -> Kinds:
    """Derives the role of each frame; the gripper counts as open before an episode."""
    closed = demos.actions[:, 6] < 0
    count = len(closed)
    phase, close, free = np.zeros(count, np.int64), np.full(count, -1), np.full(count, -1)
    for first, end in zip(demos.starts[:-1], demos.starts[1:], strict=True):
        shut = closed[first:end]
        before = np.concatenate([[False], shut[:-1]])
        closes, frees = np.flatnonzero(shut & ~before), np.flatnonzero(~shut & before)
        phase[first:end] = _phases(shut, closes, frees)
        close[first:end] = _next(closes, end - first, first)
        free[first:end] = _next(frees, end - first, first)
    return Kinds(phase, close, free, small_moves(demos.actions, demos.starts[:-1]))


def _phases(shut: np.ndarray, closes: np.ndarray, frees: np.ndarray) -> np.ndarray:
    """An open gripper approaches if it will close again, and retreats after the last time."""
    last = frees[-1] if len(frees) else len(shut)
    phase = np.where(shut, PHASES.index("carry"), PHASES.index("approach"))
    phase[np.arange(len(shut)) > last] = PHASES.index("retreat")
    phase[closes], phase[frees] = PHASES.index("close"), PHASES.index("release")
    return phase


def _next(events: np.ndarray, length: int, first: int) -> np.ndarray:
    """Returns for each of `length` frames the index of the first event at or after it, -1 for none."""
    places = np.searchsorted(events, np.arange(length))
    padded = np.append(events + first, -1)
    return padded[np.minimum(places, len(events))]


def small_moves(actions: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Returns bool [F]: moves of at most 1 cm and 0.06 rad with an unchanged gripper command.

    Args:
        actions: float32 [F, 7].
        starts: First frames of the episodes; the gripper counts as open before.
    """
    small = (np.linalg.norm(actions[:, :3], axis=1) <= SMALL_M) & (np.linalg.norm(actions[:, 3:6], axis=1) <= SMALL_RAD)
    before = np.append(1.0, actions[:-1, 6])
    before[starts] = 1.0
    return small & (actions[:, 6] == before)


def weights_of(demos: Demos, kinds: Kinds, balance: Balance) -> np.ndarray:
    """Returns float64 [F], the sampling weight of each frame."""
    names = np.array(PHASES)[kinds.phase]
    weights = np.where(names == "retreat", balance.done, 1.0)
    age = np.arange(len(names)) - demos.starts[demos.episode]
    weights = np.where(age < balance.steps, balance.begin, weights)
    for events in (kinds.next_close, kinds.next_free):
        ahead = events - np.arange(len(events))
        weights = np.where((events >= 0) & (ahead > 0) & (ahead <= balance.steps), balance.before, weights)
    return np.where(np.isin(names, ("close", "release")), balance.switch, weights)


def hindsight(demos: Demos, kinds: Kinds) -> tuple[np.ndarray, np.ndarray]:
    """Returns targets float32 [F, 13], named `AUXILIARY`, and bool [F, 13], whether they exist.

    Derived from the demonstration itself: the end effector's place, the finger opening, whether the fingers should be
    closed, whether the object was finally released; where the end effector will be at the next closing, and at the
    next release. Metres and radians, base frame; yaw modulo half a turn.
    """
    states = demos.states.astype(np.float64)
    flags = np.stack([demos.actions[:, 6] < 0, kinds.phase == PHASES.index("retreat")], axis=1)
    targets = [states[:, [0, 1, 2, 6]], flags.astype(np.float64)]
    known = [np.ones((len(states), 6), bool)]
    for events, columns in ((kinds.next_close, [0, 1, 2, 5]), (kinds.next_free, [0, 1, 2])):
        targets.append((states[events] - states)[:, columns])
        known.append(np.repeat((events >= 0)[:, None], len(columns), axis=1))
    joined = np.concatenate(targets, axis=1)
    yaw = AUXILIARY.index("close dyaw")
    joined[:, yaw] = (joined[:, yaw] + np.pi / 2) % np.pi - np.pi / 2
    return joined.astype(np.float32), np.concatenate(known, axis=1)


def resized(pictures: np.ndarray, side: int) -> np.ndarray:
    """Returns uint8 images [F, side, side(, 3)], resized like the processor does; the same array if they fit."""
    if pictures.shape[1] == side:
        return pictures
    out = np.empty((len(pictures), side, side, *pictures.shape[3:]), np.uint8)
    for place, picture in enumerate(pictures):
        out[place] = squashed(picture, side)
    return out


def table_images(world: str, side: int, split: str = "train") -> dict[str, np.ndarray]:
    """Returns the table images of a pool by id, uint8 [side, side, 3], resized like the observations."""
    pack, size = open_pack(world), get_world(world)
    tables = {table.id: pack.path(table.image) for table in pack.catalog.tables if table.split == split}
    return {id: squashed(load_image(path, size.width, size.height).numpy(), side) for id, path in tables.items()}


@dataclass
class Camera:
    """Turns stored frames into batch images: replaces the table, then augments.

    Attributes:
        images, foreground: As in `Demos`, at the model's size.
        table: int64 [F], the row of `tables` behind each frame.
        tables: float32 [N, S, S, 3], 0 to 255.
        overlays: Patterns, if `augment` uses any.
    """

    images: np.ndarray
    foreground: np.ndarray
    table: np.ndarray
    tables: np.ndarray
    augment: Augment
    overlays: Overlays | None = None

    def take(self, frames: np.ndarray, random: np.random.Generator | None) -> Tensor:
        """Returns float32 [B, 3, S, S] in [0, 1]; unchanged if `random` is None."""
        images = self.images[frames].astype(np.float32)
        if random is not None and self.augment.tables:
            images += self._other_tables(frames, random)
        if random is not None and self.overlays:
            shares = self.augment.texture, self.augment.noise
            images = self.overlays.blend(
                images, overlay_weights(self.foreground[frames], shares, self.augment.overlay, random), random
            )
        pictures = torch.from_numpy(images).permute(0, 3, 1, 2).clamp_(0, 255) / 255
        return pictures if random is None else augmented(pictures, self.augment, random)

    def _other_tables(self, frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Returns the term to add so that another table shows wherever the foreground does not cover it."""
        old = self.table[frames]
        other = random.random(len(frames)) < self.augment.tables
        shown = self.tables[np.where(other, random.integers(len(self.tables), size=len(old)), old)]
        if self.augment.mix:
            other &= random.random(len(frames)) < self.augment.mix
            first, second = self._mirrored(other.sum(), random), self._mirrored(other.sum(), random)
            shown[other] = first + random.random((len(first), 1, 1, 1), np.float32) * (second - first)
        through = 1.0 - self.foreground[frames].astype(np.float32)[..., None] / 255.0
        return through * (shown - self.tables[old])

    def _mirrored(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Returns `count` tables, each mirrored along none, one or both axes."""
        shown = self.tables[random.integers(len(self.tables), size=count)]
        for axis in (1, 2):
            turned = random.random(count) < 0.5
            shown[turned] = np.flip(shown[turned], axis)
        return shown


def augmented(pictures: Tensor, augment: Augment, random: np.random.Generator) -> Tensor:
    """Returns float32 [B, 3, S, S] in [0, 1] with changed light and colours, shifted."""

    def factors(spread: float) -> Tensor:
        drawn = random.uniform(1 - spread, 1 + spread, size=(len(pictures), 1, 1, 1))
        return torch.from_numpy(drawn.astype(np.float32))

    if augment.brightness:
        pictures = pictures * factors(augment.brightness)
    if augment.contrast:
        middle = pictures.mean((1, 2, 3), keepdim=True)
        pictures = middle + factors(augment.contrast) * (pictures - middle)
    if augment.saturation:
        grey = pictures.mean(1, keepdim=True)
        pictures = grey + factors(augment.saturation) * (pictures - grey)
    pictures = pictures.clamp(0, 1)
    if augment.gamma:
        spread = np.log1p(augment.gamma)
        exponents = np.exp(random.uniform(-spread, spread, size=(len(pictures), 1, 1, 1))).astype(np.float32)
        pictures = pictures ** torch.from_numpy(exponents)
    return _shifted(pictures, augment.shift, random) if augment.shift else pictures


def _shifted(pictures: Tensor, most: float, random: np.random.Generator) -> Tensor:
    """Shifts each image by whole pixels, repeating the edge."""
    side = pictures.shape[-1]
    pad = round(most * side)
    padded = F.pad(pictures, (pad, pad, pad, pad), mode="replicate")
    corners = random.integers(0, 2 * pad + 1, size=(len(pictures), 2))
    return torch.stack([p[:, y : y + side, x : x + side] for p, (y, x) in zip(padded, corners.tolist(), strict=True)])
