"""Outlines of bodies seen from above. Metres, base frame."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import ConvexHull, QhullError

CLEAR_M = 0.005  # kept between open fingers and other things


def footprint(points: np.ndarray) -> np.ndarray:
    """Returns the convex hull [N, 2] of `points` [M, >= 2] seen from above."""
    return cv2.convexHull(points[:, :2].astype(np.float32))[:, 0].astype(np.float64)


def centre_of(points: np.ndarray) -> np.ndarray:
    """Returns the centre of area [2] of the footprint of `points`."""
    hull = footprint(points)
    after = np.roll(hull, -1, axis=0)
    cross = hull[:, 0] * after[:, 1] - after[:, 0] * hull[:, 1]
    if abs(cross.sum()) < 1e-9:
        return hull.mean(axis=0)
    return ((hull + after) * cross[:, None]).sum(axis=0) / (3.0 * cross.sum())


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
    """Returns points [M, 2] along the polygon `hull`, close enough that no strip between fingers misses its edge."""
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
