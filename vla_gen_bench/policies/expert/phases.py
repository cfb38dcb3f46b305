"""The expert's phases: approach, close, lift, carry, lower, release, retreat.

The phase follows from the current state as far as possible; `Memory` holds the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vla_gen_bench.envs.privileged import PrivilegedState
from vla_gen_bench.policies.expert.grasp import INNER_M, TIP_M, Grasp, plan_grasps
from vla_gen_bench.policies.expert.motion import CLOSED, OPEN, down_rotation, rotation_vector, yaw_of
from vla_gen_bench.policies.expert.shapes import centre_of, distance_to_way

OPEN_FINGER_M = 0.0325  # finger joint beyond which a gripper counts as open (0.015 closed, 0.037 open)
TOUCH_N, GRIP_N = 0.05, 3.0  # force to keep counting an object as held; force to count it as held in any phase
MISSING_STEPS = 2  # frames without touch after which a held object counts as lost
GIVE_UP_STEPS = 5  # frames an object may rest on the receptacle without success before it is picked up again
HOVER_M = 0.020  # the finger tips pass this far above everything
CARRY_M = 0.020  # the same clearance for the held object
TOUCHDOWN_M, RELEASE_M = 0.002, 0.006  # its lowest point above the receptacle: goal; release height
RETREAT_M = 0.040  # finger tips above the object when at rest
ROLL_STEPS = 2.6  # lead of the goal over a rolling target; an arm with gain k lags by 1 / k steps
HIGHEST_M = 0.210  # end-effector height unless an obstacle requires more
REACH_M, WRIST_M = 0.495, 0.046  # shoulder to wrist, stretched; wrist above shoulder when the end effector is at z = 0
CORRIDOR_M = 0.075  # half width of the corridor checked for obstacles to pass over


@dataclass
class Memory:
    """State of one episode kept between steps.

    Attributes:
        close_steps: Duration of closing, control steps.
        grasps: Grasps planned for the target at `position`, with the bounding box `box` around it.
        choice: Index of the current grasp; the next one after each failure.
        closing: Steps spent closing; 0 while open.
        missing: Steps without touch since the object was held.
        waiting: Steps the object has rested on the receptacle without success.
        seen: The target's last three positions.
        phase: Name of the last step's phase.
    """

    close_steps: int = 3
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
class Goal:
    """The goal: end-effector position [3] metres and rotation [3, 3] in the base frame, and the gripper command."""

    position: np.ndarray
    rotation: np.ndarray
    gripper: float


def decide(memory: Memory, state: PrivilegedState) -> Goal:
    """Returns the goal in `state`; call it once per control step."""
    memory.seen = [*memory.seen[-2:], state.target.position]
    if state.target.position[2] < -0.05:  # fallen off the table
        memory.phase = "lost"
        return Goal(state.position, state.rotation, OPEN)
    if memory.closing:
        return _close(memory, state)
    if _held(memory, state):
        return _carry(memory, state)
    if _lies_there(memory, state):
        return _retreat(memory, state)
    return _approach(memory, state)


# ---- take ----------------------------------------------------------------------------------------------------------


def _approach(memory: Memory, state: PrivilegedState) -> Goal:
    """Moves over the target, down, and closes; stays high while the gripper is far away or misaligned."""
    memory.phase = "approach"
    _plan(memory, state)
    grasp, roll = memory.grasps[memory.choice % len(memory.grasps)], _rolling(memory)
    place, rotation = state.target.position + grasp.offset, down_rotation(grasp.yaw)
    near = float(np.clip(INNER_M - 0.002 - grasp.width / 2, 0.003, 0.007))
    away = float(np.linalg.norm(place[:2] + 0.5 * roll - state.position[:2]))
    turned = float(np.linalg.norm(rotation_vector(rotation @ state.rotation.T)))
    if away < near and turned < 0.08 and abs(place[2] - state.position[2]) < 0.004 and _is_open(state):
        memory.closing = 1
        return _close(memory, state)
    place[:2] += ROLL_STEPS * roll
    rise = 4.0 * max(away - near, 0.0) + 0.3 * max(turned - 0.08, 0.0) + (0.0 if _is_open(state) else 0.05)
    if abs(state.target.position[2] - memory.position[2]) > 0.01:  # still falling
        rise += 0.05
    return _from_above(state, place, rotation, rise, away)


def _from_above(state: PrivilegedState, place: np.ndarray, rotation: np.ndarray, rise: float, away: float) -> Goal:
    """Returns a goal `rise` metres above `place`, at most as high as needed to clear all obstacles on the way.

    A gripper that is too low first moves up; `away` is its horizontal distance, metres.
    """
    tallest = _tallest(state, state.position[:2], place[:2], with_target=True)
    hover = min(max(tallest + TIP_M + HOVER_M, place[2] + 0.03), _ceiling(state.position))
    low = hover - state.position[2]
    free = 1.0 if away < 0.03 else float(np.clip(1.0 - (low - 0.012) / 0.015, 0.0, 1.0))
    across = state.position[:2] + free * (place[:2] - state.position[:2])
    return Goal(np.append(across, min(place[2] + rise, hover)), rotation, OPEN)


def _close(memory: Memory, state: PrivilegedState) -> Goal:
    memory.phase, memory.missing = "close", 0
    memory.closing = 0 if memory.closing >= memory.close_steps else memory.closing + 1
    return Goal(state.position, state.rotation, CLOSED)


def _held(memory: Memory, state: PrivilegedState) -> bool:
    """Whether the closed fingers hold the object; tolerates one frame without touch."""
    force, near = state.finger_forces.min(), np.linalg.norm(_middle(state.target.points) - state.position) < 0.10
    if memory.phase not in ("close", "lift", "carry", "lower"):  # another policy may have closed the gripper
        return bool(state.grasped and force > GRIP_N and state.qpos[6:].mean() < OPEN_FINGER_M)
    memory.missing = 0 if force > TOUCH_N and near else memory.missing + 1
    if memory.missing < MISSING_STEPS:
        return True
    memory.choice += 1
    memory.missing, memory.position = 0, np.zeros(3)
    return False


def _plan(memory: Memory, state: PrivilegedState) -> None:
    """Plans again if the target has moved or turned since the last plan and is at rest or nearly so."""
    target = state.target
    box = np.stack([target.points.min(axis=0), target.points.max(axis=0)]) - target.position
    same = np.linalg.norm(target.position - memory.position) < 0.015 and np.abs(box - memory.box).max() < 0.004
    if memory.grasps and (same or target.speed > 0.10):
        return
    others = [state.receptacle, *state.distractors.values()]
    memory.grasps = plan_grasps(target, [body.points for body in others])
    memory.position, memory.box = target.position, box


# ---- place ---------------------------------------------------------------------------------------------------------


def _carry(memory: Memory, state: PrivilegedState) -> Goal:
    """Moves up, over the receptacle, down, and opens just before the object touches."""
    here, there = _middle(state.target.points)[:2], centre_of(state.receptacle.points)
    distance, top = float(np.linalg.norm(there - here)), state.receptacle.points[:, 2].max()
    bottom, level = state.target.points[:, 2].min(), down_rotation(yaw_of(state.rotation))
    if distance < 0.020 and bottom < top + (0.020 if state.success else RELEASE_M):
        memory.phase = "release"
        return Goal(state.position, level, OPEN)
    clear = max(top, _tallest(state, here, there, with_target=False)) + CARRY_M
    height = state.position[2] + top + TOUCHDOWN_M - bottom + min(clear - top, 3.0 * max(distance - 0.012, 0.0))
    highest = min(_ceiling(state.position), HIGHEST_M)
    gate = float(np.clip((bottom - clear) / 0.006 + 2.0, 0.0, 1.0))  # sideways only once the object is clear
    if distance < 0.03 or height > highest:  # already there, or fully stretched: the arm can only come nearer
        gate = 1.0
    memory.phase = "lift" if gate < 1.0 else "carry" if distance > 0.03 else "lower"
    return Goal(np.append(state.position[:2] + gate * (there - here), min(height, highest)), level, CLOSED)


def _lies_there(memory: Memory, state: PrivilegedState) -> bool:
    """Whether the object rests on the receptacle; if the task reports no success for long, it is picked up again."""
    away = np.linalg.norm(_middle(state.target.points)[:2] - centre_of(state.receptacle.points))
    half = np.ptp(state.receptacle.points[:, :2], axis=0).min() / 2
    gap = state.target.points[:, 2].min() - state.receptacle.points[:, 2].max()
    lying = state.success or (away < half and -0.015 < gap < 0.025)
    memory.waiting = 0 if state.success or not lying else memory.waiting + 1
    return bool(lying and memory.waiting < GIVE_UP_STEPS)


def _retreat(memory: Memory, state: PrivilegedState) -> Goal:
    """Opens, moves straight up, then stays still."""
    memory.phase = "retreat"
    height = state.position[2]
    if _is_open(state):
        height = min(max(height, state.target.points[:, 2].max() + TIP_M + RETREAT_M), HIGHEST_M)
    return Goal(np.append(state.position[:2], height), down_rotation(yaw_of(state.rotation)), OPEN)


# ---- look ----------------------------------------------------------------------------------------------------------


def _rolling(memory: Memory) -> np.ndarray:
    """Returns the target's rolled distance [2], metres, in the last step; zero for a jump, a fall or a rebound."""
    if len(memory.seen) < 3:
        return np.zeros(2)
    last, move = memory.seen[1] - memory.seen[0], memory.seen[2] - memory.seen[1]
    steady = last @ move > 0 and abs(move[2]) < 0.005 and 0.003 < np.linalg.norm(move) < 0.04
    return move[:2] if steady else np.zeros(2)


def _ceiling(position: np.ndarray) -> float:
    """Returns the largest height, metres, of a gripper pointing down at the distance of `position` from the base."""
    return float(np.sqrt(max(REACH_M**2 - position[0] ** 2 - position[1] ** 2, 0.0))) - WRIST_M


def _is_open(state: PrivilegedState) -> bool:
    return bool(state.qpos[6:].mean() > OPEN_FINGER_M)


def _middle(points: np.ndarray) -> np.ndarray:
    return np.append(centre_of(points), (points[:, 2].min() + points[:, 2].max()) / 2)


def _tallest(state: PrivilegedState, start: np.ndarray, end: np.ndarray, with_target: bool) -> float:
    """Returns the height, metres, of the tallest body within `CORRIDOR_M` of the path from `start` to `end`."""
    bodies = [state.receptacle, *state.distractors.values()] + ([state.target] if with_target else [])
    near = [body.points for body in bodies if distance_to_way(body.points, start, end) < CORRIDOR_M]
    return max((float(points[:, 2].max()) for points in near), default=0.0)
