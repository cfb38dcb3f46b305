"""Where is the most colourful thing on the table? Benchmark camera and robot base frame, numpy only.

Base frame: metres, x away from the base over the table, y to the robot's left, z up, z = 0 on the table.
"""

from __future__ import annotations

import numpy as np

# The benchmark camera, mounted on the robot's base; x forward, y left, z up; quaternion (w, x, y, z).
CAMERA_POSITION = np.array([0.0, -0.16, 0.36])
CAMERA_QUATERNION = np.array([0.8992917, -0.09263245, 0.35892478, 0.23209205])
FOCAL, CENTRE_U, CENTRE_V, FULL_WIDTH = 623.588, 319.501, 239.545, 640  # pixels of a 640x480 image

WORKSPACE_X = (0.20, 0.415)  # where objects and receptacles may stand, with a margin
WORKSPACE_Y = (-0.08, 0.135)
BLOB_HEIGHT_M = 0.015  # assumed height of the visible middle of an object


def find_blob(image: np.ndarray) -> np.ndarray:
    """Returns (x, y) in the base frame of the most colourful patch inside the workspace.

    Args:
        image: uint8 [H, W, 3], RGB, the whole view of the benchmark camera at any size.
    """
    points = table_points(*image.shape[:2])
    inside = _within(points[..., 0], WORKSPACE_X) & _within(points[..., 1], WORKSPACE_Y)
    colourful = _saliency(image, inside)
    radius = max(1, image.shape[1] // 40)
    v, u = np.unravel_index(np.argmax(_box_blur(colourful, radius)), colourful.shape)
    rows = slice(max(0, v - radius), v + radius + 1)
    columns = slice(max(0, u - radius), u + radius + 1)
    weights = colourful[rows, columns] + 1e-6
    return np.average(points[rows, columns].reshape(-1, 2), axis=0, weights=weights.ravel())


def table_points(height: int, width: int) -> np.ndarray:
    """Returns [height, width, 2]: base-frame (x, y) where each pixel's ray is `BLOB_HEIGHT_M` above the table."""
    scale = FULL_WIDTH / width
    u = (np.arange(width) + 0.5) * scale - 0.5  # pixel centres in the full-size image
    v = (np.arange(height) + 0.5) * scale - 0.5
    left, up = np.meshgrid((CENTRE_U - u) / FOCAL, (CENTRE_V - v) / FOCAL)
    rays = np.stack([np.ones_like(left), left, up], axis=-1) @ _rotation(CAMERA_QUATERNION).T
    distance = (BLOB_HEIGHT_M - CAMERA_POSITION[2]) / rays[..., 2]
    return CAMERA_POSITION[:2] + distance[..., None] * rays[..., :2]


def _saliency(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Returns [H, W] >= 0: how colourful a pixel is, times how far its hue is from the table's; 0 outside `inside`.

    The first factor leaves out the white plate and the black gripper, the second the table itself.
    """
    red, green, blue = np.moveaxis(image.astype(np.float64) / 255, -1, 0)
    opponent = np.stack([red - green, blue - (red + green) / 2], axis=-1)
    distance = np.linalg.norm(opponent - np.median(opponent[inside], axis=0), axis=-1)
    return np.where(inside, np.ptp(image, axis=-1) / 255 * distance, 0.0)


def _box_blur(values: np.ndarray, radius: int) -> np.ndarray:
    """Returns the sums of `values` over squares of 2 * radius + 1 pixels, by an integral image."""
    size = 2 * radius + 1
    total = np.pad(values, ((radius + 1, radius), (radius + 1, radius))).cumsum(0).cumsum(1)
    return total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]


def _within(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return (values >= limits[0]) & (values <= limits[1])


def _rotation(q: np.ndarray) -> np.ndarray:
    """Returns the matrix of a unit quaternion (w, x, y, z)."""
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
