"""Where the end effector went and how it was oriented, small enough for one log line (the paper's Fig. 8)."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vla_gen_bench.errors import UserError, one_line

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
    """Returns [32, 32, 16]: how many episodes visited each cell; `rows` are `coverage` fields of the log.

    Raises:
        UserError: Cells that `pack_cells` did not write.
    """
    try:
        packed = [base64.b64decode(row["cells"]) for row in rows]
        if any(len(cells) % 2 for cells in packed):
            raise ValueError("half a cell")
        counts = np.bincount(np.frombuffer(b"".join(packed), "<u2"), minlength=int(np.prod(SHAPE)))
        return counts.reshape(SHAPE)
    except (ValueError, TypeError) as error:
        what = one_line(error, 80)
        raise UserError(f"coverage: cells of an episode are damaged ({what}); evaluate it again") from None


def covered(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns how much of the workspace the end effector covered in episodes; `rows` are `coverage` fields of the log.

    Returns:
        `episodes`; `cells_per_episode`, the mean number of 2 cm cells; `cells`, visited by any episode;
        `outside_share`, of the states, outside the grid; `orientation_spread_deg`, pooled over all states.
    """
    counts = visits(rows)
    return {
        "episodes": len(rows),
        "cells_per_episode": counts.sum() / len(rows),
        "cells": np.count_nonzero(counts),
        "outside_share": sum(row["outside"] for row in rows) / sum(row["states"] for row in rows),
        "orientation_spread_deg": orientation_spread_deg(rows),
    }


def orientation_spread_deg(rows: Iterable[dict[str, Any]]) -> float:
    """Returns the angle between the episodes' states and their common mean orientation, in degrees.

    The mean orientation is the rotation nearest to the mean matrix M (Moakher 2002, chordal mean). Over the states,
    the cosine of the angle to it averages (tr(mean^T M) - 1) / 2; the result is the angle with that cosine. It is 0
    for a gripper that never turns, and a for one that spends half its time turned by a to each side.
    """
    rows = list(rows)
    weights = np.array([row["states"] for row in rows], float)
    matrix = np.average(np.array([row["mean_rotation"] for row in rows]).reshape(-1, 3, 3), axis=0, weights=weights)
    left, sizes, right = np.linalg.svd(matrix)
    sizes[2] *= np.sign(np.linalg.det(left @ right)) or 1.0
    return float(np.degrees(np.arccos(np.clip((sizes.sum() - 1) / 2, -1, 1))))
