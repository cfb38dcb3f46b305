"""How alike two assets are: in shape and colour (objects, receptacles), in pixels and statistics (images)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

POINTS = 300
COLOUR_MM = 60.0  # what black and white are apart, as if it were millimetres
QUARTERS = (0, 1, 2, 3)


def coloured_points(path: Path) -> np.ndarray:
    """Returns points [POINTS, 6] of a .glb's surface: centred, mm, and RGB scaled to `COLOUR_MM`."""
    mesh = trimesh.load(path, force="mesh", process=False)
    random = np.random.default_rng(0)
    corners = mesh.triangles
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = random.choice(len(area), POINTS, p=area / area.sum())
    parts = random.dirichlet((1, 1, 1), POINTS)[..., None]
    points = (corners[chosen] * parts).sum(1)
    uv = (np.asarray(mesh.visual.uv)[mesh.faces[chosen]] * parts).sum(1)
    image = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"), float)
    height, width = image.shape[:2]
    column, row = uv[:, 0] * width, (1 - uv[:, 1]) * height  # trimesh turns v upside down
    colour = image[np.clip(row.astype(int), 0, height - 1), np.clip(column.astype(int), 0, width - 1)]
    centre = mesh.bounds.mean(0)
    # SAPIEN and this package: z up; a .glb read by trimesh keeps the file's axes.
    return np.hstack([(points - centre) * 1000, colour / 255 * COLOUR_MM])


def shape_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the mean distance, mm, from points of each to the nearest of the other, best of four quarter turns."""
    tree, found = cKDTree(other), []
    for quarter in QUARTERS:
        turned = one.copy()
        cos, sin = np.cos(quarter * np.pi / 2), np.sin(quarter * np.pi / 2)
        turned[:, 0], turned[:, 1] = cos * one[:, 0] - sin * one[:, 1], sin * one[:, 0] + cos * one[:, 1]
        found.append((tree.query(turned)[0].mean() + cKDTree(turned).query(other)[0].mean()) / 2)
    return min(found)


def thumbnail(path: Path) -> np.ndarray:
    """Returns an image as float RGB [48, 64, 3] in [0, 1]."""
    return np.asarray(Image.open(path).convert("RGB").resize((64, 48), Image.Resampling.BOX), float) / 255


def pixel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the root mean square difference of two thumbnails, the least over mirror images."""
    mirrored = (one, one[::-1], one[:, ::-1], one[::-1, ::-1])
    return min(float(np.sqrt(((image - other) ** 2).mean())) for image in mirrored)


def statistics(path: Path) -> np.ndarray:
    """Returns what an image is like wherever it is moved to: colours, and how fine its structure is."""
    image = np.asarray(Image.open(path).convert("RGB").resize((320, 240), Image.Resampling.BOX), float) / 255
    bins = (np.minimum(image * 4, 3.99)).astype(int)
    counts = np.bincount((bins[..., 0] * 16 + bins[..., 1] * 4 + bins[..., 2]).ravel(), minlength=64)
    grey = image.mean(2) - image.mean()
    power = np.abs(np.fft.rfft2(grey)) ** 2
    rate = np.hypot(np.fft.fftfreq(240)[:, None], np.fft.rfftfreq(320)[None])
    bands = np.digitize(rate, np.geomspace(0.004, 0.5, 9))
    energy = np.array([power[bands == band].sum() for band in range(10)]) / 240 / 320
    return np.concatenate([np.sqrt(counts / counts.sum()), 0.25 * np.log10(energy / 240 / 320 + 1e-6)])


def statistics_distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other))
