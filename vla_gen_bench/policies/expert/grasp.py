"""Plans grasps: a search over gripper yaws and positions along the target's footprint.

The score of a grasp combines the width between the fingers, the slant of the gripped sides, the distance from the
centre of mass, the turn of the gripper, and obstacles below the open fingers. The footprint is that of the convex
hull's part above the finger tips: a mug is gripped as if its handle were filled in. The search uses the vertices too
only where an object is too thin or too slanted to hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_gen_bench.envs.privileged import BodyState
from vla_gen_bench.policies.expert.shapes import Prism, boundary, centre_of_mass, cut_above, footprint

# The gripper, metres from the end effector; the same in both worlds.
TIP_M = 0.0156  # finger tips below it
PALM_M = 0.0205  # height of the bar between the fingers: a gripped object may not reach higher
BREADTH_M = 0.0145  # half breadth of a finger
INNER_M, OUTER_M = 0.026, 0.042  # faces of an open finger; closed fingers are 8 mm apart
PALM_REACH_M = 0.055  # half length of the bar

TABLE_GAP_M, PALM_GAP_M = 0.003, 0.004  # clearance below the tips and below the bar
NARROW_M, WIDE_M, WIDEST_M = 0.016, 0.047, 0.0508  # hard to hold; tight; does not fit
YAWS = np.radians(np.arange(-90.0, 90.0, 7.5))
OFFSETS_M = np.arange(-0.060, 0.0601, 0.005)
SLANT_COST = 25.0  # millimetres of width for sides at 45 degrees
YAW_BIAS_RAD = 0.12  # stops the choice from alternating between two equal yaws


@dataclass(frozen=True)
class Grasp:
    """An end-effector pose, pointing down.

    Attributes:
        offset: [3] metres, end effector minus the target's origin when the grasp was planned.
        yaw: Radians about base z, in [-pi/2, pi/2).
        width: Metres between the fingers at this grasp.
        cost: Lower is better, millimetres of width.
    """

    offset: np.ndarray
    yaw: float
    width: float
    cost: float


@dataclass(frozen=True)
class _Shape:
    """The target's geometry for the search.

    Attributes:
        middle: [2] centre of mass from above.
        outline, vertices: [N, 2], relative to `middle`: the hull's edge and the vertices above the finger tips.
        low, top: Heights, metres.
    """

    middle: np.ndarray
    outline: np.ndarray
    vertices: np.ndarray
    low: float
    top: float

    @classmethod
    def of(cls, points: np.ndarray) -> _Shape:
        middle, low, top = centre_of_mass(points)[:2], float(points[:, 2].min()), float(points[:, 2].max())
        tip = max(top - PALM_M + PALM_GAP_M - TIP_M, 0.0)
        outline = boundary(footprint(cut_above(points, tip)))
        return cls(middle, outline - middle, points[points[:, 2] >= tip, :2] - middle, low, top)


def plan_grasps(target: BodyState, obstacles: Sequence[np.ndarray]) -> list[Grasp]:
    """Returns up to four distinct grasps, best first; never empty.

    Args:
        target: The body to grip.
        obstacles: Points [N, 3] of every other body, base frame, metres.
    """
    shape, prisms = _Shape.of(target.points), [Prism(points) for points in obstacles]
    rows = np.concatenate([_at_yaw(shape, yaw, prisms) for yaw in YAWS])
    if not len(rows):  # a top far from the centre of mass and thinner than the search's steps
        place = shape.middle + shape.vertices.mean(axis=0)
        rows = np.array([[*place, shape.top, 0.0, NARROW_M, np.inf]])
    return _distinct(rows[np.argsort(rows[:, 5], kind="stable")], target.position)


def _at_yaw(shape: _Shape, yaw: float, prisms: Sequence[Prism]) -> np.ndarray:
    """Returns rows (x, y, z, yaw, width, cost) of the grasps whose closing axis is base y rotated by `yaw`."""
    closing, across = np.array([-np.sin(yaw), np.cos(yaw)]), np.array([np.cos(yaw), np.sin(yaw)])
    outline = shape.outline @ across, shape.outline @ closing
    vertices = shape.vertices @ across, shape.vertices @ closing
    some = (OFFSETS_M > outline[0].min()) & (OFFSETS_M < outline[0].max())
    low, high = (edge[some] for edge in _extent(*outline, BREADTH_M))
    slant = np.maximum(_slant(*outline, 0.004), _slant(*vertices, 0.007))[some]
    thinnest = np.minimum(_seen_width(*vertices)[some], high - low)
    centres = shape.middle + OFFSETS_M[some, None] * across + ((low + high) / 2)[:, None] * closing
    heights, blocked = _heights(shape, centres, closing, across, prisms)
    costs = _costs(high - low, thinnest, slant) + 0.8e3 * np.abs(OFFSETS_M[some]) + 12.0 * abs(yaw - YAW_BIAS_RAD)
    return np.column_stack([centres, heights, np.full(len(costs), yaw), high - low, costs + blocked])


def _extent(along: np.ndarray, side: np.ndarray, breadth: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and the largest `side` within `breadth` of each of `OFFSETS_M`; inf and -inf for none."""
    inside = np.abs(along - OFFSETS_M[:, None]) <= breadth
    return np.where(inside, side, np.inf).min(axis=1), np.where(inside, side, -np.inf).max(axis=1)


def _seen_width(along: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Returns the width between vertices at each of `OFFSETS_M`, infinite where there are too few vertices."""
    low, high = _extent(along, side, BREADTH_M)
    count = (np.abs(along - OFFSETS_M[:, None]) <= BREADTH_M).sum(axis=1)
    return np.where(count >= 4, high - low, np.inf)


def _slant(along: np.ndarray, side: np.ndarray, breadth: float) -> np.ndarray:
    """Returns the larger slope of the two gripped sides at each of `OFFSETS_M`; 0 where points are missing.

    Fingers slip off above about 0.6. A spoon's hull hides the narrowing from bowl to handle; its vertices show it.
    """
    low, high = _extent(along, side, breadth)
    known = np.isfinite(low[4:]) & np.isfinite(low[:-4])
    slopes = np.zeros(len(OFFSETS_M))
    for edge in (np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0)):
        steps = np.abs(edge[4:] - edge[:-4]) / (OFFSETS_M[4] - OFFSETS_M[0])
        slopes[2:-2] = np.maximum(slopes[2:-2], np.where(known, steps, 0.0))
    return slopes


def _costs(width: np.ndarray, thinnest: np.ndarray, slant: np.ndarray) -> np.ndarray:
    """Returns costs in millimetres of width; a grasp that does not fit outweighs all other costs."""
    tight = 2e3 * np.maximum(width - WIDE_M, 0.0) + 1e5 * np.maximum(width - WIDEST_M, 0.0)
    return 1e3 * width + tight + 2e4 * np.maximum(NARROW_M - thinnest, 0.0) + SLANT_COST * slant


def _heights(
    shape: _Shape, centres: np.ndarray, closing: np.ndarray, across: np.ndarray, prisms: Sequence[Prism]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns end-effector heights [M], metres, and the cost [M] of obstacles."""
    fingers = centres[:, None] + _grid(closing, across, (INNER_M, OUTER_M), (-BREADTH_M, 0.0, BREADTH_M))
    palm = centres[:, None] + _grid(closing, across, (0.0, 0.028, PALM_REACH_M), (-BREADTH_M, 0.010, 0.035))
    floor, blocked = np.zeros(len(centres)), np.zeros(len(centres))
    for prism in prisms:
        floor = np.where(prism.under(fingers), np.maximum(floor, prism.top), floor)
        blocked += 200.0 * (prism.under(palm) & (prism.top > shape.top))
    heights = np.maximum(shape.top - PALM_M + PALM_GAP_M, floor + TIP_M + TABLE_GAP_M)
    covered = shape.top - (heights - TIP_M)
    return heights, blocked + 4e3 * np.maximum(0.010 - covered, 0.0) + 1e3 * np.maximum(floor - shape.low, 0.0)


def _grid(closing: np.ndarray, across: np.ndarray, reach: Sequence[float], breadth: Sequence[float]) -> np.ndarray:
    """Returns points [P, 2] at +-`reach` along the closing axis and `breadth` across it."""
    reaches = np.array([sign * value for sign in (1.0, -1.0) for value in reach])
    return (reaches[:, None, None] * closing + np.array(breadth)[None, :, None] * across).reshape(-1, 2)


def _distinct(rows: np.ndarray, origin: np.ndarray, most: int = 4) -> list[Grasp]:
    """Returns the first rows that differ from all earlier ones by 12 mm or 0.4 rad, as retries after a failure."""
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
