"""Positions and yaws on the table, and where a third object fits.

World frame, metres, radians. The grid arithmetic copies the reference expression by expression, because its float64
rounding decides which points of nominally equal distance belong to the 2,104 triples of `table1`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from vla_gen_bench.episodes.catalog import Body
from vla_gen_bench.episodes.spec import Quaternion

Point = tuple[float, float]

CENTRE: Point = (-0.16, 0.0)
HALF_EDGE_M = 0.075
CELLS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
PAIR_DISTANCE_M = 0.070
THIRD_DISTANCES_M = (0.15, 0.12, 0.10)
FOOTPRINT_GAP_M = 0.01
ROUNDING_M = 1e-9

SPAWN_Z = 0.95
DISTRACTOR_OBJECT_Z = 1.0
DISTRACTOR_RECEPTACLE_Z = 0.96
TELEPORT_Z = 1.0

YAWS = {
    "train": (0.0, math.pi / 4, math.pi / 2, math.pi * 3 / 4),
    "unseen": (-math.pi / 8, -math.pi * 3 / 8, -math.pi * 5 / 8, -math.pi * 7 / 8),
}


def distance(a: Point, b: Point) -> float:
    """Returns the float64 distance of `a` and `b` in metres, computed as the reference does."""
    dx, dy = a[0] - b[0], a[1] - b[1]
    return math.sqrt(dx * dx + dy * dy)


def _point(u: float, v: float) -> Point:
    return ((u * 2 - 1) * HALF_EDGE_M + CENTRE[0], (v * 2 - 1) * HALF_EDGE_M + CENTRE[1])


@lru_cache(maxsize=None)
def grid() -> tuple[Point, ...]:
    """Returns the 6 x 6 points of the training layout, x outermost."""
    return tuple(_point(u, v) for u in CELLS for v in CELLS)


@lru_cache(maxsize=None)
def ring(displacement: float = 0.03) -> tuple[Point, ...]:
    """Returns the 28 points of the square ring `displacement` metres outside the grid's edge, x outermost.

    0.03 m is the reference's ring; another displacement moves the same 28 points in or out.
    """
    edge = round(displacement / (2 * HALF_EDGE_M), 12)
    outer = (-edge, 1 + edge)
    steps = (outer[0], *CELLS, outer[1])
    return tuple(_point(u, v) for u in steps for v in steps if u in outer or v in outer)


@lru_cache(maxsize=None)
def fine_grid(margin_steps: int = 0) -> tuple[Point, ...]:
    """Returns points every 15 mm over the training square, extended by `margin_steps` such steps beyond its edge."""
    steps = range(-margin_steps, 11 + margin_steps)
    return tuple(_point(i / 10, j / 10) for i in steps for j in steps)


@lru_cache(maxsize=None)
def pairs(points: tuple[Point, ...]) -> tuple[tuple[Point, Point], ...]:
    """Returns the ordered (target, receptacle) pairs more than 0.070 m apart: 784 on the grid, 628 on the ring."""
    return tuple((a, b) for a in points for b in points if distance(a, b) > PAIR_DISTANCE_M)


def quaternion(yaw: float) -> Quaternion:
    """Returns the rotation by `yaw` radians about world z, (w, x, y, z), rounded to agree on every libm."""
    return (round(math.cos(yaw / 2), 12), 0.0, 0.0, round(math.sin(yaw / 2), 12))


class Footprint(NamedTuple):
    """A body's bounding rectangle on the table: the actor's origin is at `xy`, rotated by `yaw` radians."""

    body: Body
    xy: Point
    yaw: float

    def span(self, angle: float) -> tuple[float, float]:
        """Returns the extent (low, high) in metres along the world direction `angle`."""
        cos, sin = math.cos(angle - self.yaw), math.sin(angle - self.yaw)
        (x0, y0, _), (x1, y1, _) = self.body.bbox_min, self.body.bbox_max
        reach = [x * cos + y * sin for x in (x0, x1) for y in (y0, y1)]
        offset = self.xy[0] * math.cos(angle) + self.xy[1] * math.sin(angle)
        return offset + min(reach), offset + max(reach)


def gap(a: Footprint, b: Footprint) -> float:
    """Returns the clearance of two footprints in metres, negative where they overlap (separating axis theorem).

    For two facing corners it is a lower bound of the distance.
    """
    turns = (a.yaw, a.yaw + math.pi / 2, b.yaw, b.yaw + math.pi / 2)
    return max(_gap_along(a.span(turn), b.span(turn)) for turn in turns)


def _gap_along(a: tuple[float, float], b: tuple[float, float]) -> float:
    return max(a[0] - b[1], b[0] - a[1])


def third_candidates(
    points: Sequence[Iterable[Point]],
    body: Body,
    yaw: float,
    near: Point,
    far: Point,
    others: Sequence[Footprint],
    min_distance: float,
) -> list[Point]:
    """Returns the points where a third object may be placed.

    A valid point is more than 0.070 m from `near`, at least `min_distance` from `far`, and 1 cm clear of the
    footprints of `others`. If no point qualifies, the distance to `far` drops to the largest of 0.15, 0.12, 0.10
    that leaves one; then the next set of points is tried in the same way. If footprints still collide, one point is
    returned: the one with the least overlap, among those clear of the first of `others` if there are any.

    Args:
        points: Sets of points in order of preference, the layout's own first.
        body, yaw: The third object and its yaw in radians.
        near: Position of the object it only must not touch (for a distractor object: the receptacle).
        far: Position of the object it must stay away from (for a distractor object: the target).
        others: Footprints already on the table, the most important to avoid first.
        min_distance: Metres.
    """
    ladder = (min_distance, *(step for step in THIRD_DISTANCES_M if step < min_distance))
    tried: list[Point] = []
    for choice in points:
        free = [point for point in choice if distance(point, near) > PAIR_DISTANCE_M]
        for step in ladder:
            rung = [point for point in free if distance(point, far) >= step - ROUNDING_M]
            clear = [p for p in rung if _clearance(Footprint(body, p, yaw), others) >= FOOTPRINT_GAP_M - ROUNDING_M]
            if clear:
                return clear
        tried += rung
    return [max(tried, key=lambda point: _least_evil(Footprint(body, point, yaw), others))]


def _least_evil(placed: Footprint, others: Sequence[Footprint]) -> tuple[float, float]:
    """Returns a sort key, rounded to break ties the same way on every libm."""
    return round(min(gap(placed, others[0]), FOOTPRINT_GAP_M), 9), round(_clearance(placed, others), 9)


def _clearance(placed: Footprint, others: Sequence[Footprint]) -> float:
    return min(gap(placed, other) for other in others)
