"""Labels an episode with one word for how it ended, from its recorded states. Definitions: docs/stages.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STAGES = (
    "success",
    "success_after_recovery",
    "placed_then_lost",
    "grasped_not_placed",
    "dropped",
    "regrasp_loop",
    "wrong_object",
    "swept_off_table",
    "reached_not_grasped",
    "never_reached",
)
"""All labels, from best to worst; tables and colours follow this order."""

REACH_M = 0.03  # end effector to the target's box
LIFT_M = 0.02  # above the target's settled position
OPEN_M = 0.034  # one finger's position; 0.037 is fully open, 0.015 closed
FLICKER_STEPS = 1  # opening the gripper for this many steps or fewer is not a release
SETTLE_STEPS = 2  # after a release, before the target counts as placed or not
LOOP_TRIES = 3
BELOW_TABLE_M = 0.02  # the target's origin below the table top
WORK_CENTRE_M = (0.307, 0.028)  # base frame; the centre of all layouts
WORK_RADIUS_M = 0.30  # no suite places objects farther out; the image ends closer, except far from the robot


@dataclass(frozen=True)
class States:
    """The T + 1 states of an episode: after the reset and after each control step. Base frame, metres.

    Attributes:
        position, rotation: End effector, [T+1, 3] and [T+1, 3, 3]; the x axis is the approach direction.
        opening: [T+1] mean position of the two fingers, 0.015 closed .. 0.037 open.
        target: [T+1, 3] origin of the target; z = 0 is the table top.
        target_extent: [3] axis-aligned size of the target after settling.
        touched, grasped, placed: [T+1] bool: a finger touches the target; the task's grasp; the task's success.
        wrong_touched, wrong_grasped: [T+1] bool: the same for a distractor, cumulative.
    """

    position: np.ndarray
    rotation: np.ndarray
    opening: np.ndarray
    target: np.ndarray
    target_extent: np.ndarray
    touched: np.ndarray
    grasped: np.ndarray
    placed: np.ndarray
    wrong_touched: np.ndarray
    wrong_grasped: np.ndarray

    @property
    def reached(self) -> np.ndarray:
        """[T+1] bool: the end effector is within 3 cm of the target's box, or a finger touches the target."""
        outside = np.maximum(np.abs(self.position - self.target) - self.target_extent / 2, 0)
        return (np.linalg.norm(outside, axis=1) <= REACH_M) | self.touched

    @property
    def lifted(self) -> np.ndarray:
        """[T+1] bool: the target is 2 cm above its settled position."""
        return self.target[:, 2] >= self.target[0, 2] + LIFT_M


@dataclass(frozen=True)
class Try:
    """A closed-gripper attempt at the target, from state `start` up to but excluding `end`.

    Attributes:
        failed: It ended without the target placed.
        dropped: The target slipped while lifted, and was not placed.
    """

    start: int
    end: int
    failed: bool
    dropped: bool


def stage(states: States) -> str:
    """Returns the label of an episode, one of `STAGES`: the first that applies, in the order of docs/stages.md."""
    attempts = tries(states)
    if states.placed[-1]:
        return "success_after_recovery" if _recovered(states, attempts) else "success"
    if _off_table(states):
        return "swept_off_table"
    if states.placed.any():
        return "placed_then_lost"
    if _took_another(states):
        return "wrong_object"
    return _unplaced(states, attempts)


def _unplaced(states: States, attempts: list[Try]) -> str:
    """The label of an episode whose target was never placed and stayed on the table."""
    if sum(not attempt.dropped for attempt in attempts) >= LOOP_TRIES:
        return "regrasp_loop"
    if any(attempt.dropped for attempt in attempts) and not states.grasped[-1]:
        return "dropped"
    if states.grasped.any():
        return "grasped_not_placed"
    return "reached_not_grasped" if states.reached.any() else "never_reached"


def tries(states: States) -> list[Try]:
    """Returns each attempt, a stretch with the gripper closed at the target, in order."""
    closed = (states.opening < OPEN_M) | states.grasped
    at_target = states.reached | states.grasped
    spans = [(start, end) for start, end in runs(closed, FLICKER_STEPS) if at_target[start:end].any()]
    return [_try(states, start, end) for start, end in spans]


def _try(states: States, start: int, end: int) -> Try:
    held = np.flatnonzero(states.grasped[start:end])
    lost = start + int(held[-1]) + 1 if len(held) else end  # the first state without it
    over = lost < len(states.placed)
    dropped = bool(len(held)) and over and bool(states.lifted[lost - 1]) and not _placed_at(states, lost)
    return Try(start, end, end < len(states.placed) and not _placed_at(states, end), dropped)


def _placed_at(states: States, state: int) -> bool:
    return bool(states.placed[state : state + SETTLE_STEPS + 1].any())


def _recovered(states: States, attempts: list[Try]) -> bool:
    """Whether an attempt failed before the target was finally placed."""
    released = np.flatnonzero(states.placed & ~states.grasped)
    after = ~states.placed[released[0] :] if len(released) else np.zeros(0, bool)
    lost = any(end - start > SETTLE_STEPS for start, end in runs(after))
    return lost or any(attempt.failed or attempt.dropped for attempt in attempts) or bool(states.wrong_grasped[-1])


def _off_table(states: States) -> bool:
    """Whether, at the end, the target is below the table top or outside the work area and is not held."""
    x, y, z = states.target[-1]
    away = np.hypot(x - WORK_CENTRE_M[0], y - WORK_CENTRE_M[1]) > WORK_RADIUS_M
    return bool((z < -BELOW_TABLE_M or away) and not states.grasped[-1])


def _took_another(states: States) -> bool:
    """Whether the policy went for a distractor object instead of the target."""
    grasped_it = states.wrong_grasped[-1] and not states.grasped.any()
    return bool(grasped_it or (states.wrong_touched[-1] and not states.reached.any()))


def runs(flags: np.ndarray, bridge: int = 0) -> list[tuple[int, int]]:
    """Returns (start, end) of each run of true flags, `end` excluded; gaps of up to `bridge` flags are bridged."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    spans: list[tuple[int, int]] = []
    for start, end in edges.reshape(-1, 2).tolist():
        if spans and start - spans[-1][1] <= bridge:
            start = spans.pop()[0]
        spans.append((start, end))
    return spans
