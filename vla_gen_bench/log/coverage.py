"""Where the end effector went and how it was oriented, small enough for one log line (the paper's Fig. 8)."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import numpy as np

CELL_M = 0.02
ORIGIN_M = (0.0, -0.32, -0.02)  # base frame: x forward, z up from the table top
SHAPE = (32, 32, 16)  # 0.64 x 0.64 x 0.32 m


def coverage(position: np.ndarray, rotation: np.ndarray) -> dict[str, Any]:
    """Returns the coverage fields of a log row for one end-effector path.

    Args:
        position: [N, 3] metres, base frame.
        rotation: [N, 3, 3].

    Returns:
        `states`, N; `cells`, the visited cells, packed by `pack_cells`; `outside`, the number of states outside the
        grid; `mean_rotation`, 9 numbers, the mean of the rotation matrices in row-major order.
    """
    place = np.floor((position - ORIGIN_M) / CELL_M).astype(int)
    inside = ((place >= 0) & (place < SHAPE)).all(axis=1)
    return {
        "states": len(position),
        "cells": pack_cells(np.ravel_multi_index(place[inside].T, SHAPE)),
        "outside": int((~inside).sum()),
        "mean_rotation": [round(float(value), 4) for value in rotation.mean(axis=0).ravel()],
    }


def pack_cells(cells: np.ndarray) -> str:
    """Packs cell numbers (x outermost, z innermost): base64 of their sorted set, uint16 little-endian."""
    return base64.b64encode(np.unique(cells).astype("<u2").tobytes()).decode()


def unpack_cells(text: str) -> np.ndarray:
    """Returns the sorted cell numbers [N]; the inverse of `pack_cells`."""
    return np.frombuffer(base64.b64decode(text), "<u2").astype(int)


def cell_centres(cells: np.ndarray) -> np.ndarray:
    """Returns the centres [N, 3] of cell numbers [N], metres, base frame."""
    return (np.stack(np.unravel_index(cells, SHAPE), axis=1) + 0.5) * CELL_M + ORIGIN_M


def visits(rows: Iterable[dict[str, Any]]) -> np.ndarray:
    """Returns [32, 32, 16]: how many episodes visited each cell; `rows` are `coverage` fields of the log."""
    counts = np.zeros(np.prod(SHAPE), int)
    for row in rows:
        counts[unpack_cells(row["cells"])] += 1
    return counts.reshape(SHAPE)


def orientation_spread_deg(rows: Iterable[dict[str, Any]]) -> float:
    """Returns the angle between the episodes' states and their common mean orientation, in degrees.

    The mean orientation is the rotation nearest to the mean matrix M (Moakher 2002, chordal mean). Over the states,
    the cosine of the angle to it averages (tr(mean^T M) - 1) / 2; the result is the angle with that cosine. It is 0
    for a gripper that never turns, and a for one that spends half its time turned by a to each side.
    """
    rows = list(rows)
    weights = np.array([row["states"] for row in rows], float)
    matrix = np.average([np.reshape(row["mean_rotation"], (3, 3)) for row in rows], axis=0, weights=weights)
    left, sizes, right = np.linalg.svd(matrix)
    sizes[2] *= np.sign(np.linalg.det(left @ right)) or 1.0
    return float(np.degrees(np.arccos(np.clip((sizes.sum() - 1) / 2, -1, 1))))
