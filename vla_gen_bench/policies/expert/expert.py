"""The expert's phases. Each is a function of the state just seen; the little that is remembered sits in `_Memory`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vla_gen_bench.envs.privileged import BodyState, PrivilegedState
from vla_gen_bench.policies.expert.grasp import INNER_M, TIP_M, Grasp, plan_grasps
from vla_gen_bench.policies.expert.motion import CLOSED, OPEN, Limits, action_towards, down_rotation, rotation_vector, yaw_of
from vla_gen_bench.policies.expert.shapes import centre_of
from vla_gen_bench.policies.protocol import ACTION_DIMS, ActionSpec, Observation

NOISE_STREAM = 0xE4BE
NOISE_SIGMA = np.array([0.004] * 3 + [0.0, 0.0, 0.04, 0.0])  # metres, radians per step, times the option `noise`

OPEN_FINGER_M = 0.0325  # finger joint beyond which a gripper counts as open (0.015 closed, 0.037 open)
TOUCH_N = 0.05
CLOSE_STEPS = 3
MISSING_STEPS = 2  # frames without touch after which a held object counts as lost
GIVE_UP_STEPS = 5  # frames an object may lie on the receptacle without success before it is taken up again
HOVER_M = 0.020  # finger tips pass this far above everything
CARRY_M = 0.020  # the held object passes this far above everything
RELEASE_M = 0.006  # its lowest point above the receptacle when let go
ROLL_STEPS = 2.6  # how far ahead of a rolling target the goal is set; an arm with gain k trails by 1 / k steps
RETREAT_M = 0.080
HIGHEST_M = 0.210  # end effector, where nothing asks for more
REACH_M, WRIST_M = 0.495, 0.046  # shoulder to wrist, stretched; wrist above shoulder when the end effector is at z = 0
CORRIDOR_M = 0.075  # half width of the way looked at for things to pass over


@dataclass
class _Memory:
    """What one row remembers between steps.

    Attributes:
        grasps: Planned for the target where it lay at `position`, its bounding box around that `box`.
        choice: Which of them is tried; the next one after each failure.
        closing: Steps spent closing; 0 while open.
        missing: Steps without touch since the object was held.
        waiting: Steps the object has lain on the receptacle without success.
        seen: The target's last three positions.
    """

    rng: np.random.Generator
    grasps: list[Grasp] = field(default_factory=list)
    position: np.ndarray = field(default_factory=lambda: np.zeros(3))
    box: np.ndarray = field(default_factory=lambda: np.zeros((2, 3)))
    choice: int = 0
    closing: int = 0
    missing: int = 0
    waiting: int = 0
    seen: list[np.ndarray] = field(default_factory=list)
    phase: str = "start"


@dataclass(frozen=True)
class _Goal:
    """Where to go: end-effector position [3] and rotation [3, 3] in the base frame, and the gripper command."""

    position: np.ndarray
    rotation: np.ndarray
    gripper: float


class Expert:
    """Picks the target up and puts it on the receptacle, closed loop, looking again at every step.

    Needs `Observation.privileged`; ignores image and instruction. Deterministic: an episode's actions follow from the
    states seen since `reset`, and with `noise` from the episode's seed.

    Args:
        noise: Scale of Gaussian noise added to the returned actions: 4 mm and, about z, 0.04 rad at 1.0.
        gain, step, turn: Part of the remaining way commanded per step; its caps in metres and radians.
    """

    def __init__(self, noise: float = 0.0, gain: float = 0.45, step: float = 0.025, turn: float = 0.30) -> None:
        self.action_spec = ActionSpec()
        self._noise = noise
        self._limits = Limits(gain=gain, step_m=step, step_rad=turn)
        self._rows: list[_Memory] = []

    def reset(self, instructions: Sequence[str], seeds: Sequence[int]) -> None:
        self._rows = [_Memory(np.random.default_rng((NOISE_STREAM, seed))) for seed in seeds]

    def act(self, observation: Observation) -> np.ndarray:
        if observation.privileged is None:
            raise ValueError("the expert needs the simulator's state; its card must say `privileged: true`")
        pairs = zip(self._rows, observation.privileged, strict=True)
        actions = np.stack([self._act(memory, state) for memory, state in pairs])
        return actions.astype(np.float32).reshape(len(actions), 1, ACTION_DIMS)

    @property
    def phases(self) -> list[str]:
        """What each row was doing at the last `act`; for looking at failures."""
        return [memory.phase for memory in self._rows]

    def _act(self, memory: _Memory, state: PrivilegedState) -> np.ndarray:
        memory.seen = [*memory.seen[-2:], state.target.position]
        goal = _decide(memory, state)
        action = action_towards(state, goal.position, goal.rotation, goal.gripper, self._limits)
        return action + self._noise * NOISE_SIGMA * memory.rng.standard_normal(ACTION_DIMS)


# ---- phases --------------------------------------------------------------------------------------------------------


def _decide(memory: _Memory, state: PrivilegedState) -> _Goal:
    if state.target.position[2] < -0.05:  # fallen off the table
        memory.phase = "lost"
        return _Goal(state.position, state.rotation, OPEN)
    if memory.closing:
        return _close(memory, state)
    if _held(memory, state):
        return _carry(memory, state)
    if _lies_there(memory, state):
        return _retreat(memory, state)
    return _approach(memory, state)


def _held(memory: _Memory, state: PrivilegedState) -> bool:
    """Whether closed fingers have the object; one frame without touch is forgiven."""
    if memory.phase not in ("close", "lift", "carry", "lower"):
        return False
    touched = state.finger_forces.min() > TOUCH_N and np.linalg.norm(_middle(state.target) - state.position) < 0.10
    memory.missing = 0 if touched else memory.missing + 1
    if memory.missing < MISSING_STEPS:
        return True
    memory.choice += 1
    memory.missing, memory.position = 0, np.zeros(3)
    return False


def _approach(memory: _Memory, state: PrivilegedState) -> _Goal:
    """Over the target, down, and closed when there; high while the gripper is far off or turned."""
    memory.phase = "approach"
    _plan(memory, state)
    grasp = memory.grasps[memory.choice % len(memory.grasps)]
    place, rotation = state.target.position + grasp.offset, down_rotation(grasp.yaw)
    roll = _rolling(memory)
    near = float(np.clip(INNER_M - 0.002 - grasp.width / 2, 0.003, 0.007))
    away = float(np.linalg.norm(place[:2] + 0.5 * roll - state.position[:2]))
    turned = float(np.linalg.norm(rotation_vector(rotation @ state.rotation.T)))
    if away < near and turned < 0.08 and abs(place[2] - state.position[2]) < 0.004 and _is_open(state):
        memory.closing = 1
        return _close(memory, state)
    rise = 4.0 * max(away - near, 0.0) + 0.3 * max(turned - 0.08, 0.0) + (0.0 if _is_open(state) else 0.05)
    if abs(state.target.position[2] - memory.position[2]) > 0.01:  # still falling
        rise += 0.05
    place[:2] += ROLL_STEPS * roll
    hover = max(_tallest(state, state.position[:2], place[:2], True) + TIP_M + HOVER_M, place[2] + 0.03)
    hover = min(hover, _ceiling(state.position))
    return _Goal(np.append(_gated(state, place[:2], hover, away), min(place[2] + rise, hover)), rotation, OPEN)


def _gated(state: PrivilegedState, place: np.ndarray, hover: float, away: float) -> np.ndarray:
    """Returns the horizontal goal [2]: stay while too low to pass over what lies on the way."""
    low = hover - state.position[2]
    free = 1.0 if away < 0.03 else float(np.clip(1.0 - (low - 0.012) / 0.015, 0.0, 1.0))
    return state.position[:2] + free * (place - state.position[:2])


def _close(memory: _Memory, state: PrivilegedState) -> _Goal:
    memory.phase = "close"
    memory.missing = 0
    memory.closing = 0 if memory.closing >= CLOSE_STEPS else memory.closing + 1
    return _Goal(state.position, state.rotation, CLOSED)


def _carry(memory: _Memory, state: PrivilegedState) -> _Goal:
    """Up, over the receptacle, down, and open when the object is about to touch."""
    away = centre_of(state.receptacle.points) - _middle(state.target)[:2]
    distance, top = float(np.linalg.norm(away)), _top(state.receptacle)
    bottom = float(state.target.points[:, 2].min())
    level = down_rotation(yaw_of(state.rotation))
    if distance < 0.020 and (bottom < top + RELEASE_M or (state.success and bottom < top + 0.020)):
        memory.phase = "release"
        return _Goal(state.position, level, OPEN)
    here, there = _middle(state.target)[:2], centre_of(state.receptacle.points)
    clear = max(top, _tallest(state, here, there, False)) + CARRY_M
    wanted = top + RELEASE_M - 0.004 + min(clear - top, 3.0 * max(distance - 0.012, 0.0))
    height = state.position[2] + wanted - bottom
    highest = min(_ceiling(state.position), HIGHEST_M)
    clear_enough = distance < 0.03 or height > highest  # the arm is stretched: it can only come nearer
    free = 1.0 if clear_enough else float(np.clip((bottom - clear) / 0.006 + 2.0, 0.0, 1.0))
    memory.phase = "lift" if free < 1.0 else "carry" if distance > 0.03 else "lower"
    return _Goal(np.append(state.position[:2] + free * away, min(height, highest)), level, CLOSED)


def _lies_there(memory: _Memory, state: PrivilegedState) -> bool:
    """Whether the object lies on the receptacle; if the task's rule denies it for long, it is picked up again."""
    away = np.linalg.norm(_middle(state.target)[:2] - centre_of(state.receptacle.points))
    half = np.ptp(state.receptacle.points[:, :2], axis=0).min() / 2
    gap = state.target.points[:, 2].min() - _top(state.receptacle)
    lying = state.success or (away < half and -0.015 < gap < 0.025)
    memory.waiting = 0 if state.success or not lying else memory.waiting + 1
    return bool(lying and memory.waiting < GIVE_UP_STEPS)


def _retreat(memory: _Memory, state: PrivilegedState) -> _Goal:
    """Open, then straight up, then still."""
    memory.phase = "retreat"
    height = state.position[2]
    if _is_open(state):
        height = min(max(height, state.target.points[:, 2].max() + TIP_M + RETREAT_M * 0.5), HIGHEST_M)
    return _Goal(np.append(state.position[:2], height), down_rotation(yaw_of(state.rotation)), OPEN)


# ---- looking -------------------------------------------------------------------------------------------------------


def _plan(memory: _Memory, state: PrivilegedState) -> None:
    """Plans anew where the target has moved or turned since, and has come to rest or nearly so."""
    target = state.target
    box = np.stack([target.points.min(axis=0), target.points.max(axis=0)]) - target.position
    same = np.linalg.norm(target.position - memory.position) < 0.015 and np.abs(box - memory.box).max() < 0.004
    if memory.grasps and (same or target.speed > 0.10):
        return
    others = [state.receptacle, *state.distractors.values()]
    memory.grasps = plan_grasps(target, [body.points for body in others])
    memory.position, memory.box = target.position, box


def _rolling(memory: _Memory) -> np.ndarray:
    """Returns how far [2], metres, the target rolled in the last step; nothing for a jump, a fall or a rebound."""
    if len(memory.seen) < 3:
        return np.zeros(2)
    last, move = memory.seen[1] - memory.seen[0], memory.seen[2] - memory.seen[1]
    steady = last @ move > 0 and abs(move[2]) < 0.005 and 0.003 < np.linalg.norm(move) < 0.04
    return move[:2] if steady else np.zeros(2)


def _ceiling(position: np.ndarray) -> float:
    """Returns how high, metres, a gripper pointing down gets at the distance of `position` from the base."""
    return float(np.sqrt(max(REACH_M**2 - position[0] ** 2 - position[1] ** 2, 0.0))) - WRIST_M


def _is_open(state: PrivilegedState) -> bool:
    return bool(state.qpos[6:].mean() > OPEN_FINGER_M)


def _middle(body: BodyState) -> np.ndarray:
    return np.append(centre_of(body.points), (body.points[:, 2].min() + body.points[:, 2].max()) / 2)


def _top(body: BodyState) -> float:
    return float(body.points[:, 2].max())


def _tallest(state: PrivilegedState, start: np.ndarray, end: np.ndarray, with_target: bool) -> float:
    """Returns the height, metres, of the tallest thing within `CORRIDOR_M` of the way from `start` to `end`."""
    bodies = [state.receptacle, *state.distractors.values()] + ([state.target] if with_target else [])
    return max([_top(body) for body in bodies if _distance(body.points, start, end) < CORRIDOR_M], default=0.0)


def _distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """Returns the least horizontal distance, metres, of `points` from the segment between `start` and `end`."""
    way = end - start
    along = np.clip((points[:, :2] - start) @ way / max(float(way @ way), 1e-9), 0.0, 1.0)
    return float(np.linalg.norm(points[:, :2] - start - along[:, None] * way, axis=1).min())
