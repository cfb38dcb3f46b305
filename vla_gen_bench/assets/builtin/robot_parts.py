"""Part primitives of the robot's shape, in mm: thin wrappers over meshkit for corners, axes and mirror images."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_gen_bench.assets.builtin import meshkit as kit

TURN = {"x": (2, 0, 1), "y": (1, 2, 0), "z": (0, 1, 2)}  # column order that maps the z axis to the named axis


class Part(NamedTuple):
    paint: str
    mesh: kit.Mesh


def block(paint: str, low: ArrayLike, high: ArrayLike, bevel: float = 0.0) -> Part:
    """Box between two corners."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    return Part(paint, kit.box(high - low, bevel).moved(*((low + high) / 2)))


def prism(paint: str, axis: str, polygon: ArrayLike, low: float, high: float, centre: ArrayLike = (0, 0)) -> Part:
    """Polygon, star-shaped about ``centre``, extruded from low to high along an axis.

    Polygon axes: (y, z) along x, (x, z) along y, (x, y) along z.
    """
    polygon = np.asarray(polygon, float) - centre
    if axis == "y":
        polygon, centre = polygon[:, ::-1], centre[::-1]
    following = np.roll(polygon, -1, axis=0)
    if (polygon[:, 0] * following[:, 1] - polygon[:, 1] * following[:, 0]).sum() < 0:
        polygon = polygon[::-1]
    mesh = kit.extrude(polygon, ((1, low), (1, high))).moved(*centre)
    return Part(paint, replace(mesh, vertices=mesh.vertices[:, TURN[axis]]))


def drum(paint: str, axis: str, radius: float, low: float, high: float, centre: ArrayLike = (0, 0), sides: int = 16) -> Part:
    """Round disc or post about a point; ``centre`` in the polygon axes of :func:`prism`."""
    return prism(paint, axis, radius * kit.ring(sides)[:-1] + np.asarray(centre), low, high, centre)


def solid(paint: str, points: ArrayLike) -> Part:
    """Convex hull of points, every face flat."""
    vertices, faces = kit.hull(points)
    return Part(paint, kit.Mesh(vertices, faces, np.zeros((len(vertices), 2)), 1.0))


def mirrored(points: ArrayLike, axis: int) -> NDArray:
    """The points and their mirror images across one coordinate plane (0 = x, 1 = y, 2 = z)."""
    points = np.asarray(points, float)
    return np.concatenate([points, points * np.where(np.arange(3) == axis, -1, 1)])


def corners(low: ArrayLike, high: ArrayLike) -> NDArray:
    """Eight corners of a box."""
    return np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])], float)


def circle(axis: str, radius: float, at: float, sides: int = 8) -> NDArray:
    """Corners of a regular polygon about the named axis, offset by half a corner to put flats on the other axes."""
    flat = radius * kit.ring(sides, 180 / sides)[:-1]
    return np.column_stack([flat, np.full(sides, at)])[:, TURN[axis]]


def both_sides(make) -> list[Part]:
    """``make(side)`` for side = -1 and +1; each returns a list of parts."""
    return [*make(-1), *make(1)]


def span(side: int, near: float, far: float) -> tuple[float, float]:
    """The interval near..far on one side of zero, in ascending order."""
    return (near, far) if side > 0 else (-far, -near)
