"""All that a third party implements: `Policy`, and the two records that pass through it.

Needs numpy only, so that a policy package can import it without torch or a simulator.
Letters in shapes: B = episodes run side by side, K = actions per call of `act` (the chunk), H and W = image size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

DIM_NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
DIM_UNITS = ("m", "m", "m", "rad", "rad", "rad", "1")
ACTION_DIMS = len(DIM_NAMES)
HIGHEST = (1.0, 1.0, 1.0, math.pi / 2, math.pi / 2, math.pi / 2, 1.0)
LOWEST = tuple(-limit for limit in HIGHEST)


@dataclass(frozen=True)
class ActionSpec:
    """What the seven numbers of an action mean. `ActionSpec()` is the benchmark's convention with K = 1.

    One action is one control step of 0.2 s. It moves the *target* pose of the end effector, not the measured
    pose, so an error of the arm does not accumulate in the command:

    * position: `p_t = p_{t-1} + (dx, dy, dz)`, metres along the axes of the robot's base frame
      (x away from the base over the table, y to the robot's left, z up);
    * rotation: `R_t = Rx(droll) Ry(dpitch) Rz(dyaw) R_{t-1}`, radians, multiplied from the left, so the axes are
      the base frame's. This is the Euler order XYZ; it is not axis-angle and not the extrinsic 'xyz' of scipy;
    * gripper: a position, not a change: +1 open, -1 closed, linear in between.

    Attributes:
        chunk: K, how many successive actions one call of `act` returns. Always exactly K.
        execute: How many of them are carried out before `act` is asked again; None = all K.
        low, high: Limits per dimension, those included. A value outside is an error that names it; nothing is clipped.
            The defaults are the controller's own: 1 m, pi/2 rad, 1. A policy may declare narrower ones and is then
            held to them; wider ones are refused.
        names, units, frame, reference, rotation: The convention, fixed by the benchmark. A policy trained for
            another one converts its output and leaves these alone; one that declares another is refused at loading.
    """

    chunk: int = 1
    execute: int | None = None
    low: tuple[float, ...] = LOWEST
    high: tuple[float, ...] = HIGHEST
    names: tuple[str, ...] = DIM_NAMES
    units: tuple[str, ...] = DIM_UNITS
    frame: str = "base"
    reference: str = "target"
    rotation: str = "euler_XYZ"

    @property
    def execution_horizon(self) -> int:
        """Control steps between two calls of `act`: `execute`, or K where that is None."""
        return self.chunk if self.execute is None else self.execute

    def to_json(self) -> dict[str, Any]:
        """Returns the spec as plain data for a log or a wire message."""
        return asdict(self)


@dataclass(frozen=True)
class Observation:
    """What a policy sees before a control step. Arrays belong to the caller: copy before writing into them.

    Attributes:
        image: uint8 [B, H, W, 3], RGB, row 0 at the top; the benchmark camera at the world's size, never resized
            (H x W of `builtin`: 240 x 320, of `rl4vla`: 480 x 640).
        instruction: B sentences, the same as given to `reset`; constant within an episode.
        step: int64 [B], control steps already done in the episode: 0 at the first call. All entries are equal,
            because a batch runs in lock-step; with K > 1 it grows by the execution horizon from call to call.
        privileged: None, except for policies whose card says `privileged: true`: then B records of the
            simulator's true state, `vla_gen_bench.envs.privileged.PrivilegedState`.
    """

    image: np.ndarray
    instruction: tuple[str, ...]
    step: np.ndarray
    privileged: Sequence[Any] | None = None

    def __len__(self) -> int:
        """Returns B."""
        return len(self.instruction)

    def select(self, rows: Sequence[int]) -> Observation:
        """Returns the observation of the episodes `rows` (positions in the batch) as a smaller batch."""
        chosen = list(rows)
        views = None if self.privileged is None else [self.privileged[row] for row in chosen]
        return Observation(self.image[chosen], tuple(self.instruction[row] for row in chosen), self.step[chosen], views)


class Policy(Protocol):
    """Anything that turns observations into actions. Inheriting from this class is not needed.

    Life of a policy: it is built once per worker process, then `reset`, `act`, `act`, ... , `reset`, `act`, ... , and
    `close` at the end if it has that method. Every `reset` begins B new episodes; B may change at every `reset` and
    stays the same until the next one. All B episodes run to the horizon (80 steps) side by side: none ends early, also
    not on success, and row b of every array is episode b throughout.

    An exception from any method marks the running episodes as errored, not as failed attempts.

    Attributes:
        action_spec: The convention of the actions, and K. Read once, after construction.
        threads: Optional. The most compute threads that help; an evaluation worker gives torch no more. Without it a
            worker has its share of the cores.
    """

    action_spec: ActionSpec

    def reset(self, instructions: Sequence[str], seeds: Sequence[int]) -> None:
        """Begins B new episodes and forgets all about earlier ones.

        Args:
            instructions: B sentences, as the suite draws them: case, quotes and full stops vary between phrasings.
            seeds: B integers >= 0, one per episode. Draw every random number of episode b from a generator seeded
                with `seeds[b]` and with nothing else: then an episode's actions do not depend on which others share
                its batch, on B, or on the worker. `vgb policies check` reports whether that holds.
        """

    def act(self, observation: Observation) -> np.ndarray:
        """Returns float32 [B, K, 7]: for each episode the next K actions, the first one for the present step.

        Every value must be finite and within `action_spec.low` and `.high`.
        """
