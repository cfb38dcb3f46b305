"""Where to grip: a search over gripper yaws and places along the target's footprint.

A grasp is scored by the width between the fingers, how slanted the gripped sides are, the distance from the middle,
the turn of the gripper, and by what the open fingers would stand on. The footprint is that of the convex hull's part
above the finger tips, so a mug is gripped as if its handle were filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_gen_bench.envs.privileged import BodyState
from vla_gen_bench.policies.expert.shapes import Prism, boundary, centre_of, cut_above, footprint

# The gripper, metres from the end effector; the same in both worlds.
TIP_M = 0.0156  # finger tips below it
PALM_M = 0.0205  # the bar between the fingers above it: nothing gripped may reach higher
BREADTH_M = 0.0145  # half breadth of a finger
INNER_M, OUTER_M = 0.026, 0.042  # faces of an open finger; closed, 8 mm are left between the two
PALM_REACH_M = 0.055  # half length of the bar

TABLE_GAP_M, PALM_GAP_M = 0.003, 0.004  # kept below the tips and below the bar
NARROW_M, WIDE_M, WIDEST_M = 0.013, 0.047, 0.0508  # too thin to hold; tight; does not fit
YAWS = np.radians(np.arange(-90.0, 90.0, 7.5))
OFFSETS_M = np.arange(-0.060, 0.0601, 0.005)
YAW_BIAS_RAD = 0.12  # keeps the choice between two equal yaws from flickering


@dataclass(frozen=True)
class Grasp:
    """An end-effector pose, pointing down.

    Attributes:
        offset: [3] metres, end effector minus the target's origin when the grasp was planned.
        yaw: Radians about base z, in [-pi/2, pi/2).
        width: Metres between the fingers there.
        cost: Lower is better, millimetres of width.
    """

    offset: np.ndarray
    yaw: float
    width: float
    cost: float


def plan_grasps(target: BodyState, obstacles: Sequence[np.ndarray]) -> list[Grasp]:
    """Returns up to four distinct grasps, best first; never empty.

    Args:
        target: The body to grip.
        obstacles: Points [N, 3] of every other body, base frame, metres.
    """
    middle, prisms = centre_of(target.points), [Prism(points) for points in obstacles]
    tip = max(float(target.points[:, 2].max()) - PALM_M + PALM_GAP_M - TIP_M, 0.0)
    outline = boundary(footprint(cut_above(target.points, tip))) - middle
    rows = np.concatenate([_at_yaw(target.points, outline, middle, yaw, prisms) for yaw in YAWS])
    return _distinct(rows[np.argsort(rows[:, 5], kind="stable")], target.position)


def _at_yaw(
    points: np.ndarray, outline: np.ndarray, middle: np.ndarray, yaw: float, prisms: Sequence[Prism]
) -> np.ndarray:
    """Returns rows (x, y, z, yaw, width, cost) of the grasps whose closing axis is base y turned by `yaw`."""
    closing, across = np.array([-np.sin(yaw), np.cos(yaw)]), np.array([np.cos(yaw), np.sin(yaw)])
    along, side = outline @ across, outline @ closing
    low, high = _extent(along, side, BREADTH_M)
    some = (OFFSETS_M > along.min()) & (OFFSETS_M < along.max())
    slant = _slant(along, side)[some]
    offset, low, high = OFFSETS_M[some], low[some], high[some]
    centres = middle + offset[:, None] * across + ((low + high) / 2)[:, None] * closing
    heights, blocked = _heights(points, centres, closing, across, prisms)
    costs = _costs(high - low, offset, yaw) + 25.0 * slant + blocked
    return np.column_stack([centres, heights, np.full(len(costs), yaw), high - low, costs])


def _extent(along: np.ndarray, side: np.ndarray, breadth: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and the largest `side` within `breadth` of each of `OFFSETS_M`; inf and -inf for none."""
    inside = np.abs(along - OFFSETS_M[:, None]) <= breadth
    return np.where(inside, side, np.inf).min(axis=1), np.where(inside, side, -np.inf).max(axis=1)


def _slant(along: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Returns the larger slope of the two gripped sides at each of `OFFSETS_M`: fingers slip off above about 0.6."""
    slopes = np.zeros((2, len(OFFSETS_M)))
    for row, edge in enumerate(_extent(along, side, 0.004)):
        steps = (edge[4:] - edge[:-4]) / (OFFSETS_M[4] - OFFSETS_M[0])
        slopes[row, 2:-2] = np.where(np.isfinite(steps), np.abs(steps), 0.5)
    return slopes.max(axis=0)


def _costs(width: np.ndarray, offset: np.ndarray, yaw: float) -> np.ndarray:
    """Returns costs in millimetres of width; what does not fit or cannot be held outweighs all else."""
    tight = 2e3 * np.maximum(width - WIDE_M, 0.0) + 1e5 * np.maximum(width - WIDEST_M, 0.0)
    thin = 2e4 * np.maximum(NARROW_M - width, 0.0)
    return 1e3 * width + 0.8e3 * np.abs(offset) + 12.0 * abs(yaw - YAW_BIAS_RAD) + tight + thin


def _heights(
    points: np.ndarray, centres: np.ndarray, closing: np.ndarray, across: np.ndarray, prisms: Sequence[Prism]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns end-effector heights [M], metres, and the cost [M] of what stands in the way."""
    fingers = centres[:, None] + _grid(closing, across, (INNER_M, OUTER_M), (-BREADTH_M, 0.0, BREADTH_M))
    palm = centres[:, None] + _grid(closing, across, (0.0, 0.028, PALM_REACH_M), (-BREADTH_M, 0.010, 0.035))
    low, top = points[:, 2].min(), points[:, 2].max()
    floor, blocked = np.zeros(len(centres)), np.zeros(len(centres))
    for prism in prisms:
        floor = np.where(prism.under(fingers), np.maximum(floor, prism.top), floor)
        blocked += 200.0 * (prism.under(palm) & (prism.top > top))
    heights = np.maximum(top - PALM_M + PALM_GAP_M, floor + TIP_M + TABLE_GAP_M)
    covered = top - (heights - TIP_M)
    return heights, blocked + 4e3 * np.maximum(0.010 - covered, 0.0) + 1e3 * np.maximum(floor - low, 0.0)


def _grid(closing: np.ndarray, across: np.ndarray, reach: Sequence[float], breadth: Sequence[float]) -> np.ndarray:
    """Returns points [P, 2] at +-`reach` along the closing axis and `breadth` across it."""
    reaches = np.array([sign * value for sign in (1.0, -1.0) for value in reach])
    return (reaches[:, None, None] * closing + np.array(breadth)[None, :, None] * across).reshape(-1, 2)


def _distinct(rows: np.ndarray, origin: np.ndarray, most: int = 4) -> list[Grasp]:
    """Returns the first rows that differ from all before by 12 mm or 0.4 rad: what to try after a failure."""
    chosen: list[Grasp] = []
    for x, y, z, yaw, width, cost in rows:
        grasp = Grasp(np.array([x, y, z]) - origin, float(yaw), float(width), float(cost))
        if all(_differs(grasp, other) for other in chosen):
            chosen.append(grasp)
        if len(chosen) == most:
            break
    return chosen


def _differs(a: Grasp, b: Grasp) -> bool:
    turn = abs((a.yaw - b.yaw + np.pi / 2) % np.pi - np.pi / 2)
    return bool(turn > 0.4 or np.linalg.norm(a.offset - b.offset) > 0.012)
