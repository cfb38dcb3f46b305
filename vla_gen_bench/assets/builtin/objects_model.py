"""The result type of object builders, convex pieces for collision, and small colour images for the atlas.

Builders work in millimetres, z up, in the object's resting pose; ``objects.write_objects`` centres the result.
Images are float [H, W, 3], 0..255, and their row 0 is at the first point of a profile (see ``meshkit``).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_gen_bench.assets.builtin import meshkit as mk

FLAT_MM = 7.0  # half width of the flat that keeps lying round objects from rolling
SINK_MM = 0.3  # depth of that flat below the round surface


@dataclass(frozen=True)
class Model:
    """One object: textured meshes and convex pieces in millimetres, density in kg/m^3."""

    meshes: list[mk.Mesh]
    atlas: mk.Atlas
    pieces: list[NDArray]
    density: float


def lathe_x(profile: ArrayLike, segments: int = 14, crease_deg: float = mk.CREASE_DEG) -> mk.Mesh:
    """Surface of revolution about x of (radius, x) points. u = 0.5 is the top, 0.25 the +y side."""
    return mk.lathe(profile, segments, crease_deg).turned("y", 90)


def lying(*stations: tuple[float, ...]) -> NDArray:
    """Convex piece along x with a flat underneath and upright sides.

    Args:
        stations: (x, half width, low z, high z) or (x, half width, low z, high z, y offset), one per cross-section.
    """
    points = []
    for x, half, low, high, *offset in stations:
        flat, y, step = min(FLAT_MM, 0.6 * half), offset[0] if offset else 0.0, 0.3 * (high - low)
        for side in (-1, 1):
            points += [(x, y + side * flat, low - SINK_MM), (x, y + side * half, low + step),
                       (x, y + side * half, high - step), (x, y + side * flat, high)]
    return np.array(points)


def lying_round(axis_z: float, *stations: tuple[float, float]) -> NDArray:
    """``lying`` for circular cross-sections (x, radius) about a level axis at height ``axis_z``."""
    return lying(*((x, r, axis_z - r, axis_z + r) for x, r in stations))


def standing(*stations: tuple[float, ...], x: float = 0.0, y: float = 0.0) -> NDArray:
    """Upright octagonal convex piece; stations are (z, radius) or (z, x radius, y radius), flats towards the axes."""
    octagon = mk.ring(8, 22.5)[:-1] / np.cos(np.radians(22.5))
    rings = []
    for z, *radii in stations:
        plane = octagon * (radii if len(radii) == 2 else radii * 2) + (x, y)
        rings.append(np.column_stack([plane, np.full(8, z)]))
    return np.concatenate(rings)


def block(low: ArrayLike, high: ArrayLike, bevel: float = 0.0) -> NDArray:
    """Convex box between two corners, its vertical edges chamfered by ``bevel``."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    plane = [(x0 + bevel, y0), (x1 - bevel, y0), (x1, y0 + bevel), (x1, y1 - bevel),
             (x1 - bevel, y1), (x0 + bevel, y1), (x0, y1 - bevel), (x0, y0 + bevel)]
    return np.array([(x, y, z) for z in (z0, z1) for x, y in plane])


def colour(code: str) -> NDArray:
    """sRGB 0..255 of a hex code such as "c08040"."""
    return np.array([int(code[i:i + 2], 16) for i in (0, 2, 4)], float)


def bands(*stops: tuple[float, str], height: int = 32, width: int = 16) -> NDArray:
    """Image that blends along its rows through (position in [0, 1], hex); equal positions make a sharp edge."""
    rows = (np.arange(height) + 0.5) / height
    knots = np.array([position for position, _ in stops])
    codes = np.array([colour(code) for _, code in stops])
    knots = knots + 1e-6 * np.arange(len(knots))
    column = np.stack([np.interp(rows, knots, codes[:, i]) for i in range(3)], axis=1)
    return np.repeat(column[:, None], width, axis=1)


def grid(image: NDArray) -> tuple[NDArray, NDArray]:
    """Pixel centres of an image in [0, 1]: across [H, W] and along (from row 0) [H, W]."""
    height, width = image.shape[:2]
    return np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)


def tint(image: NDArray, weight: NDArray, code: str) -> NDArray:
    """Blends a colour into an image where ``weight`` [H, W] is above 0 (1 replaces it)."""
    weight = np.clip(weight, 0, 1)[..., None]
    return image * (1 - weight) + colour(code) * weight


def blob(image: NDArray, u: float, v: float, width: float, height: float, code: str) -> NDArray:
    """Paints an ellipse of full size ``width`` x ``height``, all in fractions of the image, with soft edges."""
    across, along = grid(image)
    distance = np.hypot((across - u) / width, (along - v) / height) * 2
    return tint(image, (1 - distance) * 4 + 0.5, code)


def patch(image: NDArray, u: tuple[float, float], v: tuple[float, float], code: str) -> NDArray:
    """Paints a rectangle, in fractions of the image."""
    across, along = grid(image)
    inside = (across >= u[0]) & (across <= u[1]) & (along >= v[0]) & (along <= v[1])
    return tint(image, inside.astype(float), code)


def grain(image: NDArray, amount: float, seed: int, stretch: tuple[int, int] = (1, 1)) -> NDArray:
    """Multiplies by fixed noise of relative deviation ``amount``, stretched over (rows, columns) of pixels."""
    height, width = image.shape[:2]
    shape = (-(-height // stretch[0]), -(-width // stretch[1]))
    noise = np.random.default_rng(seed).uniform(-1.7, 1.7, shape)
    noise = np.kron(noise, np.ones(stretch))[:height, :width]
    return image * (1 + amount * noise[..., None])
