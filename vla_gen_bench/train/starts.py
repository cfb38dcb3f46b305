"""How RL episodes start: what is sampled, from which seeds, and where the arm is when the policy takes over."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field

from vla_gen_bench.episodes.draw import draw_training
from vla_gen_bench.episodes.spec import EpisodeSpec, Frozen
from vla_gen_bench.episodes.streams import Stream
from vla_gen_bench.protocol import ACTION_DIMS
from vla_gen_bench.train.closed_loop import ROLLOUT_SEED

MOST_RUN_SEED = 99_999
UNSHIFTED = (0.0, 0.0)
NO_MOVES = np.zeros((0, ACTION_DIMS), np.float32)


class Wander(Frozen):
    """Random moves before the policy takes over, like Atari's random starts: it learns from states it would not reach.

    An episode keeps one velocity. The policy's horizon starts afterwards; the steps count in the budget.

    Attributes:
        steps: Control steps.
        share: Of the episodes (or groups of them); the others stand still meanwhile. 0: no steps before any episode.
        move, rise, turn: Maxima per step along x and y, along z (metres), and about z (radians).
        tilt: Maximum per step about x and y each, radians; an episode uses a fraction of it, uniform from 0 to 1.
        low: Share of the moving ones that only sink, by half of `rise` or more: to where an arm is about to grasp.
        closed: Share of the moving ones whose gripper is closed meanwhile, as if it held something.
    """

    steps: int = Field(0, ge=0)
    share: float = Field(1.0, ge=0, le=1)
    move: float = Field(0.01, ge=0)
    rise: float = Field(0.005, ge=0)
    turn: float = Field(0.03, ge=0)
    tilt: float = Field(0.0, ge=0)
    low: float = Field(0.0, ge=0, le=1)
    closed: float = Field(0.0, ge=0, le=1)

    @property
    def length(self) -> int:
        """Control steps before every episode."""
        return self.steps if self.share else 0

    def moves(self, seed: int, iteration: int, group: int) -> np.ndarray:
        """Returns float32 [length, 7]."""
        stream = Stream("1", seed, group, f"wander {iteration}")
        share, *parts, grip, about_x, about_y, tilt, low = (stream.below(2**32, draw) / 2**32 for draw in range(10))
        x, y, z, yaw, roll, pitch = (2 * part - 1 for part in (*parts, about_x, about_y))
        if low < self.low:
            z = -(1 + abs(z)) / 2
        tilt *= self.tilt
        velocity = np.array(
            [self.move * x, self.move * y, self.rise * z, tilt * roll, tilt * pitch, self.turn * yaw, 0]
        )
        wanders = share < self.share
        action = (velocity * wanders).astype(np.float32)
        action[6] = -1 if wanders and grip < self.closed else 1
        return np.tile(action, (self.length, 1))


class CameraShift(Frozen):
    """Shifts all images of an episode by the same few pixels: random shifts (DrQ) in rollouts.

    A task that looks the same a little to the left teaches a policy to use the relative positions of things. Checks
    and evaluations use no shift.

    Attributes:
        share: Of the episodes (or groups of them); the others are not shifted.
        most: Maximum along each axis, as a fraction of the image's side.
    """

    share: float = Field(0.0, ge=0, le=1)
    most: float = Field(0.04, ge=0, lt=0.5)

    def of(self, seed: int, iteration: int, group: int) -> tuple[float, float]:
        """Returns the shift down and right, as fractions of the image's sides."""
        stream = Stream("1", seed, group, f"camera shift {iteration}")
        share, down, right = (stream.below(2**32, draw) / 2**32 for draw in range(3))
        return (self.most * (2 * down - 1), self.most * (2 * right - 1)) if share < self.share else UNSHIFTED


class Start(NamedTuple):
    """An episode to run.

    Attributes:
        spec: Its spec.
        key: Key of its action draws.
        moves: float32 [W, 7], run before the policy takes over; the same number for all episodes that run together.
        shift: Of all images the policy sees: down and right, as fractions of the image's sides.
    """

    spec: EpisodeSpec
    key: int
    moves: np.ndarray = NO_MOVES
    shift: tuple[float, float] = UNSHIFTED


def starts(
    world: str,
    seed: int,
    iteration: int,
    episodes: int,
    group: int = 1,
    wander: Wander | None = None,
    camera: CameraShift | None = None,
) -> list[Start]:
    """Returns the episodes of an iteration, from the training pools; each `group` in a row shares an initial state.

    Args:
        seed: The run's seed, 0 to 99,999.
    """
    wander, camera, groups = wander or Wander(), camera or CameraShift(), range(episodes // group)
    specs = [draw_training(world, ROLLOUT_SEED + seed, iteration * len(groups) + number) for number in groups]
    begins = [(wander.moves(seed, iteration, number), camera.of(seed, iteration, number)) for number in groups]
    keys = [Stream("1", seed, episode, f"rollout {iteration}").below(2**31) for episode in range(episodes)]
    return [Start(specs[episode // group], key, *begins[episode // group]) for episode, key in enumerate(keys)]
