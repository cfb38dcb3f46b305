"""A small deterministic task with the interface of `EnvBatch`, to see that policies learn: name the colour.

Each step shows a red or a blue image. Red asks for an action whose first number is above 1/3, blue for one below
-1/3: a policy that knows nothing is right one time in three. An episode succeeds if its last step is right.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from vla_gen_bench.episodes.spec import EpisodeSpec
from vla_gen_bench.errors import UserError

STATS = {"action": {"q01": [-1.0] * 7, "q99": [1.0] * 7, "mask": [True] * 6 + [False]}}
THIRD = 1 / 3
COLOURS = np.array([[220, 40, 30], [30, 60, 220]], np.uint8)


def new_checkpoint(folder: Path, seed: int = 0, **acting: object) -> Path:
    """Writes an untrained pico policy."""
    # Here, for worker processes import this module and need none of it.
    from vla_gen_bench.policies.openvla.checkpoint.config_file import size, with_stats
    from vla_gen_bench.policies.openvla.checkpoint.fresh import acting_as, new_model, new_tokenizer
    from vla_gen_bench.policies.openvla.checkpoint.saving import save

    config = with_stats(acting_as(size("pico"), **acting), {"bandit": STATS})
    save(folder, new_model(config, seed), new_tokenizer(config))
    return folder


def unknown_world(size: int) -> None:
    """Makes no batch: raises what a world that does not exist raises."""
    raise UserError("world 'mars' is unknown")


class Step(NamedTuple):
    """As `envs.vector.Step`."""

    images: np.ndarray
    rewards: np.ndarray
    infos: dict[str, np.ndarray]


class BanditBatch:
    """Colours follow from an episode's index and the step; a step pays `1 / horizon` where it was right."""

    def __init__(self, count: int, horizon: int = 4, die_once: str | None = None, diary: str | None = None) -> None:
        self.size, self.horizon, self.die_once, self.diary = count, horizon, die_once, diary

    def reset(self, specs: Sequence[EpisodeSpec]) -> np.ndarray:
        assert len(specs) <= self.size
        self.specs, self.steps = list(specs), 0
        if self.diary:
            with open(self.diary, "a") as file:
                file.write("".join(f"{spec.index}\n" for spec in specs))
        self.right = np.zeros((len(specs), 0), bool)
        return self._images()

    def _colours(self) -> np.ndarray:
        return np.array([(spec.index // 2**self.steps + self.steps) % 2 for spec in self.specs])

    def _images(self) -> np.ndarray:
        shade = np.array([spec.index % 16 for spec in self.specs], np.uint8)[:, None]
        return np.broadcast_to((COLOURS[self._colours()] + shade)[:, None, None], (len(self.specs), 8, 8, 3))

    def step(self, actions: np.ndarray, draw: bool = True) -> Step:
        self._die()
        first = actions[:, 0]
        right = np.where(self._colours() == 0, first > THIRD, first < -THIRD)
        self.right = np.hstack([self.right, right[:, None]])
        self.steps += 1
        infos = {"success": right, "success_once": self.right.any(1), "held_ever": self.right[:, :2].all(1)}
        return Step(self._images() if draw else None, right.astype(np.float32) / self.horizon, infos)

    def _die(self) -> None:
        """Kills its own process if it is the one that removes the file `die_once`: two may see it at once."""
        if self.die_once and self.steps == 2:
            with suppress(FileNotFoundError):
                os.unlink(self.die_once)
                os.kill(os.getpid(), signal.SIGKILL)

    def privileged(self) -> list[SimpleNamespace]:
        """The colour is where the end effector is; all else is the same in every state."""
        still = SimpleNamespace(position=np.zeros(3), quaternion=np.eye(4)[0], points=np.zeros((1, 3)), speed=0.0)
        return [
            SimpleNamespace(
                position=np.array([0.1 * colour, 0.0, 0.0]), rotation=np.eye(3), commanded_position=np.zeros(3),
                qpos=np.zeros(8), finger_forces=np.zeros(2), grasped=False, success=False, earned=0.0, step=self.steps,
                target=still, receptacle=still,
            )
            for colour in self._colours()
        ]  # fmt: skip

    def close(self) -> None:
        """Nothing to give back."""
