"""How episodes of RL begin: what is drawn, from which seeds, and where the arm is when the policy takes over."""

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
    """Moves at random before the policy takes over, as random starts in Atari: it learns from where it would not go.

    An episode keeps one velocity. The policy's horizon begins afterwards; the steps count in the budget.

    Attributes:
        steps: Control steps.
        share: Of the episodes (or groups of them); the others stand still meanwhile. 0: nothing is done before any.
        move, rise, turn: Most per step along x and y, along z (metres), and about z (radians).
        tilt: Most per step about x and y each, radians; an episode has a share of it, drawn evenly from 0 to 1.
        low: Share of those that move which only sink, by half of `rise` or more: to where an arm is about to grasp.
        closed: Share of those that move whose gripper is closed meanwhile, as if it held something.
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
    """Everything the policy sees moved by a few pixels, one way for a whole episode: random shifts (DrQ) in rollouts.

    A task that looks the same a little further left teaches a policy to look for where things are to each other. Checks
    and evaluations have none.

    Attributes:
        share: Of the episodes (or groups of them); the others are seen as they are.
        most: Along each axis, part of the image's side.
    """

    share: float = Field(0.0, ge=0, le=1)
    most: float = Field(0.04, ge=0, lt=0.5)

    def of(self, seed: int, iteration: int, group: int) -> tuple[float, float]:
        """Returns the shift down and to the right, parts of the image's sides."""
        stream = Stream("1", seed, group, f"camera shift {iteration}")
        share, down, right = (stream.below(2**32, draw) / 2**32 for draw in range(3))
        return (self.most * (2 * down - 1), self.most * (2 * right - 1)) if share < self.share else UNSHIFTED


class Start(NamedTuple):
    """An episode to be run.

    Attributes:
        spec: What it shows.
        key: What its actions are drawn with.
        moves: float32 [W, 7], done before the policy takes over; equally many for all episodes that run together.
        shift: Down and to the right, parts of the image's sides; of everything the policy sees.
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
        seed: Of the run, 0 to 99,999.
    """
    wander, camera, groups = wander or Wander(), camera or CameraShift(), range(episodes // group)
    specs = [draw_training(world, ROLLOUT_SEED + seed, iteration * len(groups) + number) for number in groups]
    begins = [(wander.moves(seed, iteration, number), camera.of(seed, iteration, number)) for number in groups]
    keys = [Stream("1", seed, episode, f"rollout {iteration}").below(2**31) for episode in range(episodes)]
    return [Start(specs[episode // group], key, *begins[episode // group]) for episode, key in enumerate(keys)]
