"""The interface that third parties implement: `Policy`, and the records it exchanges with the benchmark.

Needs only numpy, so a policy package can import it without torch or a simulator.
Letters in shapes: B = parallel episodes, K = actions per call of `act` (the chunk), H and W = image size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

DIM_NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
DIM_UNITS = ("m", "m", "m", "rad", "rad", "rad", "1")
ACTION_DIMS = len(DIM_NAMES)
EXTERNAL, WRIST = "external", "wrist"
CAMERAS = (EXTERNAL, WRIST)  # in rendering order
HIGHEST = (1.0, 1.0, 1.0, math.pi / 2, math.pi / 2, math.pi / 2, 1.0)
LOWEST = tuple(-limit for limit in HIGHEST)


@dataclass(frozen=True)
class ActionSpec:
    """The meaning of an action's seven numbers. `ActionSpec()` is the benchmark's convention with K = 1.

    One action is one control step of 0.2 s. It moves the *target* pose of the end effector, not the measured
    pose, so tracking errors of the arm do not accumulate in the command:

    * position: `p_t = p_{t-1} + (dx, dy, dz)`, metres along the axes of the robot's base frame
      (x away from the base over the table, y to the robot's left, z up);
    * rotation: `R_t = Rx(droll) Ry(dpitch) Rz(dyaw) R_{t-1}`, radians, multiplied from the left, so the axes are
      the base frame's. This is the Euler order XYZ; it is not axis-angle and not the extrinsic 'xyz' of scipy;
    * gripper: a position, not a change: +1 open, -1 closed, linear in between.

    Attributes:
        chunk: K, the exact number of successive actions that each call of `act` returns.
        execute: How many of them are executed before the next call of `act`; None = all K.
        low, high: Inclusive limits per dimension. A value outside is an error that names it; nothing is clipped.
            The defaults are the controller's limits: 1 m, pi/2 rad, 1. A policy may declare narrower limits, which
            are then enforced; wider ones are refused.
        names, units, frame, reference, rotation: The convention, fixed by the benchmark. A policy trained for
            another one converts its output and keeps these defaults; declaring another is refused at loading.
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
class StatePart:
    """A named part of `Observation.state`: the columns `state[:, start : start + len(names)]`."""

    start: int
    names: tuple[str, ...]
    unit: str
    frame: str

    @property
    def columns(self) -> slice:
        """The part's columns in a row of the state."""
        return slice(self.start, self.start + len(self.names))


# Measured, never commanded. Position and rotation are those of the end effector, the point between the fingertips.
# The quaternion, w >= 0, is the rotation R. The Euler angles are BridgeData V2's: those of R relative to a gripper
# that points straight down, R = Rz(yaw) Ry(pitch) Rx(roll) D with D = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]. They are
# therefore small in this task, while R itself has a pitch of 90 degrees, where Euler angles are singular.
# Opening: 0 closed, 1 open, linear in the mean position of the fingers (0.015 m to 0.037 m).
STATE = {
    "ee_position": StatePart(0, ("x", "y", "z"), "m", "base"),
    "ee_quaternion": StatePart(3, ("qw", "qx", "qy", "qz"), "1", "base"),
    "ee_euler": StatePart(7, ("roll", "pitch", "yaw"), "rad", "base, from straight down"),
    "joint_angles": StatePart(
        10, ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"), "rad", "joint"
    ),
    "gripper_opening": StatePart(16, ("opening",), "1", "gripper"),
}
STATE_NAMES = tuple(name for part in STATE.values() for name in part.names)
STATE_DIMS = len(STATE_NAMES)  # D = 17


@dataclass(frozen=True)
class Needs:
    """The inputs a policy uses; others are neither rendered nor measured. `Needs()`: only the external image.

    Attributes:
        state: Fill `Observation.state`.
        cameras: Names out of `CAMERAS`.
        image_size: Height and width of every image in pixels; None = the world's. The image always covers the full
            field of view, so 256 x 256 shows the content of the world's 4:3 image, narrowed.
        history: N, frames per camera in `Observation.history`; 1 = none.
        chunk_frames: The history has a frame per control step; otherwise one per call of `act`, which needs no
            extra rendering.
    """

    state: bool = False
    cameras: tuple[str, ...] = (EXTERNAL,)
    image_size: tuple[int, int] | None = None
    history: int = 1
    chunk_frames: bool = False

    @property
    def every_step(self) -> bool:
        """Whether control steps without a call of `act` are rendered too."""
        return self.chunk_frames and self.history > 1

    def to_json(self) -> dict[str, Any]:
        """Returns the differences from `Needs()` as plain data, {} for none."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        usual = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(Needs()).items()}
        return {name: value for name, value in plain.items() if value != usual[name]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Needs:
        """The inverse of `to_json`; None and {} are `Needs()`."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in (data or {}).items()}
        return cls(**fields)


USUAL = Needs()


@dataclass(frozen=True)
class Observation:
    """A policy's input before a control step. Arrays belong to the caller: copy before writing into them.

    Attributes:
        image: uint8 [B, H, W, 3], RGB, row 0 at the top; the benchmark camera at the world's size, never resized
            (H x W of `builtin`: 240 x 320, of `rl4vla`: 480 x 640).
        instruction: B sentences, the same as given to `reset`; constant within an episode.
        step: int64 [B], control steps completed in the episode: 0 at the first call. All entries are equal because a
            batch runs in lock-step; with K > 1, step grows by the execution horizon from call to call.
        privileged: None, except for policies whose card has `privileged: true`: then B records of the
            simulator's true state, `vla_gen_bench.envs.privileged.PrivilegedState`.
        state: None, except for policies that need it: float32 [B, D], the robot's measured state. `part` extracts
            a named part; `STATE` lists the parts with their units and frames.
        other_images: Camera -> uint8 [B, H, W, 3], the cameras other than the external one that the policy needs.
        history: Camera -> uint8 [B, N, H, W, 3], for policies that need it: the latest N frames, oldest first, the
            current one last. At the start of an episode the first frame is repeated.

    `image` is black for a policy that needs other cameras but not the external one.
    """

    image: np.ndarray
    instruction: tuple[str, ...]
    step: np.ndarray
    privileged: Sequence[Any] | None = None
    state: np.ndarray | None = None
    other_images: Mapping[str, np.ndarray] = field(default_factory=dict)
    history: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def images(self) -> dict[str, np.ndarray]:
        """Camera -> uint8 [B, H, W, 3]; "external" is `image`."""
        return {EXTERNAL: self.image, **self.other_images}

    def part(self, name: str) -> np.ndarray:
        """Returns a part of the state, float32 [B, n]; `name` is one of `STATE`."""
        if self.state is None:
            raise ValueError(
                f"state part '{name}': the policy gets no state; it must say 'needs: {{state: true}}' in its card"
            )
        return self.state[:, STATE[name].columns]

    def __len__(self) -> int:
        """Returns B."""
        return len(self.instruction)

    def select(self, rows: Sequence[int]) -> Observation:
        """Returns the observation of the episodes `rows` (positions in the batch) as a smaller batch."""
        chosen = list(rows)
        return Observation(
            self.image[chosen],
            tuple(self.instruction[row] for row in chosen),
            self.step[chosen],
            None if self.privileged is None else [self.privileged[row] for row in chosen],
            None if self.state is None else self.state[chosen],
            {camera: images[chosen] for camera, images in self.other_images.items()},
            {camera: frames[chosen] for camera, frames in self.history.items()},
        )


class Policy(Protocol):
    """Anything that turns observations into actions. Inheriting from this class is not needed.

    Each worker process constructs the policy once, then calls `reset`, `act`, `act`, ... , `reset`, `act`, ... , and
    finally `close` if it has that method. Every `reset` starts B new episodes; B may change at every `reset` and
    stays the same until the next one. All B episodes run in parallel to the horizon (80 steps): none ends early, not
    even on success, and row b of every array is always episode b.

    An exception from any method marks the running episodes as errored, not as failed attempts.

    Attributes:
        action_spec: The convention of the actions, and K. Read once, after construction.
        threads: Optional. The largest useful number of compute threads; an evaluation worker gives torch no more.
            Without it a worker uses its share of the cores.
        memoryless: Optional. True if actions depend only on instruction, seed and current observation. `vgb serve`
            then batches any episodes together, at different steps. Otherwise it creates one instance per episode.

    A policy that needs more than the external image declares it in its card (`needs:`); without a card, the class or
    function that constructs it has an attribute `needs`, a `Needs`.
    """

    action_spec: ActionSpec

    def reset(self, instructions: Sequence[str], seeds: Sequence[int]) -> None:
        """Starts B new episodes and discards all state of earlier ones.

        Args:
            instructions: B sentences, as the suite draws them: case, quotes and full stops vary between phrasings.
            seeds: B integers >= 0, one per episode. Draw every random number of episode b from a generator seeded
                only with `seeds[b]`. An episode's actions then do not depend on the other episodes in its batch, on
                B, or on the worker. `vgb policies check` verifies this.
        """

    def act(self, observation: Observation) -> np.ndarray:
        """Returns float32 [B, K, 7]: for each episode the next K actions, the first one for the current step.

        Every value must be finite and within `action_spec.low` and `.high`.
        """
        ...
