"""Outlines of bodies seen from above. Metres, base frame."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull, QhullError

CLEAR_M = 0.005  # clearance between open fingers and other bodies


def footprint(points: np.ndarray) -> np.ndarray:
    """Returns the convex hull [N, 2] of `points` [M, >= 2] seen from above, counter-clockwise from its largest x.

    Rounds coordinates to float32, which merges nearly equal mesh points into one corner.
    """
    plan = np.unique(points[:, :2].astype(np.float32), axis=0).astype(np.float64)  # sorted by x, then y
    try:
        corners = plan[ConvexHull(plan).vertices]
    except (QhullError, ValueError):  # on a line, or fewer than three points
        return plan[[0, -1]]
    return np.roll(corners, -_last(corners), axis=0)


def _last(corners: np.ndarray) -> int:
    """Returns the index of the corner with the largest x, and among those the largest y."""
    return int(np.lexsort((corners[:, 1], corners[:, 0]))[-1])


def centre_of(points: np.ndarray) -> np.ndarray:
    """Returns the centre of area [2] of the footprint of `points`."""
    hull = footprint(points)
    after = np.roll(hull, -1, axis=0)
    cross = hull[:, 0] * after[:, 1] - after[:, 0] * hull[:, 1]
    if abs(cross.sum()) < 1e-9:
        return hull.mean(axis=0)
    return ((hull + after) * cross[:, None]).sum(axis=0) / (3.0 * cross.sum())


def centre_of_mass(points: np.ndarray) -> np.ndarray:
    """Returns the centre of volume [3] of the convex hull of `points` [N, 3], which approximates the centre of mass."""
    try:
        hull = ConvexHull(points)
    except QhullError:  # flat
        return points.mean(axis=0)
    inside = points[hull.vertices].mean(axis=0)
    corners = points[hull.simplices] - inside  # [T, 3, 3]; a tetrahedron with `inside` each
    volumes = np.abs(np.linalg.det(corners))
    return inside + (volumes[:, None] * corners.sum(axis=1)).sum(axis=0) / (4.0 * volumes.sum())


def cut_above(points: np.ndarray, height: float) -> np.ndarray:
    """Returns points [N, 3] whose convex hull is that of `points` [M, 3] cut off below `height`."""
    try:
        hull = ConvexHull(points)
    except QhullError:  # flat
        return points
    edges = points[hull.simplices[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)]  # [E, 2, 3]
    crossing = (edges[:, 0, 2] - height) * (edges[:, 1, 2] - height) < 0
    a, b = edges[crossing, 0], edges[crossing, 1]
    part = (height - a[:, 2]) / (b[:, 2] - a[:, 2])
    return np.concatenate([points[points[:, 2] >= height], a + part[:, None] * (b - a)])


def boundary(hull: np.ndarray, spacing: float = 0.0015) -> np.ndarray:
    """Returns points [M, 2] along the polygon `hull`, dense enough for every strip between fingers to contain some."""
    pieces = []
    for a, b in zip(hull, np.roll(hull, -1, axis=0), strict=True):
        count = max(1, int(np.ceil(np.linalg.norm(b - a) / spacing)))
        pieces.append(a + (b - a) * (np.arange(count) / count)[:, None])
    return np.concatenate(pieces)


class Prism:
    """A body simplified to its convex footprint, as half planes, and its top."""

    def __init__(self, points: np.ndarray) -> None:
        hull = footprint(points)
        edges = np.roll(hull, -1, axis=0) - hull
        normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        if ((hull.mean(axis=0) - hull[0]) * normals[0]).sum() > 0:
            normals = -normals  # outward
        self._normals, self._levels = normals, (hull * normals).sum(axis=1)
        self.top = float(points[:, 2].max())

    def under(self, places: np.ndarray) -> np.ndarray:
        """Returns bool [M]: whether any of `places` [M, P, 2] is less than `CLEAR_M` from the footprint."""
        return ((places @ self._normals.T - self._levels).max(axis=-1) < CLEAR_M).any(axis=-1)


def distance_to_way(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """Returns the least horizontal distance of `points` [N, >= 2] from the segment between `start` and `end` [2]."""
    way = end - start
    along = np.clip((points[:, :2] - start) @ way / max(float(way @ way), 1e-9), 0.0, 1.0)
    return float(np.linalg.norm(points[:, :2] - start - along[:, None] * way, axis=1).min())
