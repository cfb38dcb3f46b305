"""Overlay patterns from families not among the benchmark's 16, in three colourings each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vla_gen_bench.assets.builtin import paint
from vla_gen_bench.assets.pretrain.colours import drawn

WIDTH, HEIGHT = 320, 240
VARIANTS = 3
TOO_NEAR = frozenset(
    {"veins_0", "rectangles_1", "rays_0"}
)  # to an unseen overlay, see tests/episodes/test_pretrain_world.py

Pattern = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""Pixel coordinates (column, row) and a generator -> field in [0, 1], coloured afterwards."""


def grating(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Straight waves of one direction."""
    return 0.5 + 0.5 * np.sin(paint.turn(u, v, random.uniform(0, 180))[0] / random.uniform(3, 12))


def spiral(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Arms that wind around the middle."""
    radius, angle = np.hypot(u - 160, v - 120), np.arctan2(v - 120, u - 160)
    return 0.5 + 0.5 * np.sin(angle * random.integers(2, 6) + radius / random.uniform(6, 16))


def rays(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A sunburst."""
    angle = np.arctan2(v - random.uniform(20, 220), u - random.uniform(40, 280))
    return (np.sin(angle * random.integers(8, 24)) > 0).astype(float)


def frames(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Squares in squares."""
    reach = np.maximum(np.abs(u - random.uniform(100, 220)), np.abs(v - random.uniform(80, 160)))
    return (reach / random.uniform(10, 28) % 1 < 0.5).astype(float)


def triangles(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Flat triangles, each of its own tone."""
    size, seed = random.uniform(26, 60), int(random.integers(99))
    x, y = u / size - v / size / 1.73, 2 * v / size / 1.73
    upper = (x % 1 + y % 1 > 1).astype(int)
    return paint.hashed(np.floor(x) * 2 + upper, np.floor(y), seed)


def rectangles(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Overlapping upright rectangles."""
    field = np.full_like(u, 0.1)
    for _ in range(28):
        x, y, w, h = random.uniform(0, 320), random.uniform(0, 240), random.uniform(16, 80), random.uniform(16, 80)
        field[(np.abs(u - x) < w / 2) & (np.abs(v - y) < h / 2)] = random.random()
    return field


def scribble(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Crossing pen strokes: thin level lines of slow noise."""
    seed = int(random.integers(99))
    fields = [paint.noise(u, v, 160, seed + k, "smooth") for k in range(3)]
    return np.minimum.reduce([np.clip(paint.edge(field, 0.12) / 0.015, 0, 1) for field in fields])


def drops(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Large soft spots."""
    field = np.zeros_like(u)
    for _ in range(14):
        x, y, size = random.uniform(0, 320), random.uniform(0, 240), random.uniform(14, 50)
        field = np.maximum(field, np.exp(-((u - x) ** 2 + (v - y) ** 2) / size**2))
    return field


def scales(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Overlapping arcs, as on a roof."""
    size = random.uniform(24, 44)
    row = np.floor(v / size * 2)
    x, y = (u / size + 0.5 * (row % 2)) % 1 - 0.5, v / size * 2 % 1
    return np.hypot(x, 0.5 * y) * 1.6


def maze(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Diagonal strokes that turn either way."""
    size, seed = random.uniform(14, 26), int(random.integers(99))
    x, y = u / size % 1, v / size % 1
    flip = paint.hashed(np.floor(u / size), np.floor(v / size), seed) < 0.5
    return (np.abs(np.where(flip, x - y, x + y - 1)) < 0.22).astype(float)


def halftone(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Square lattice of spots that grow to one side."""
    size = random.uniform(9, 16)
    x, y = paint.turn(u, v, random.uniform(0, 90))
    return (np.hypot(paint.edge(x, size), paint.edge(y, size)) < size * (0.1 + 0.4 * u / WIDTH)).astype(float)


def veins(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Branching lines on clouds."""
    seed = int(random.integers(99))
    cloud = paint.noise(u, v, 200, seed)
    return 0.7 * cloud + 0.5 * np.exp(-((paint.noise(u, v, 130, seed + 1, "smooth") - 0.5) ** 2) / 6e-4)


def blends(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One slow gradient."""
    x, _ = paint.turn(u - 160, v - 120, random.uniform(0, 360))
    return np.clip(0.5 + x / 260 + 0.1 * paint.noise(u, v, 100, 1), 0, 1)


def pinwheel(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A lattice of small windmills."""
    size = random.uniform(34, 60)
    x, y = u - size * np.round(u / size), v - size * np.round(v / size)
    return (np.sin(4 * np.arctan2(y, x) + np.hypot(x, y) / 6) > 0).astype(float)


def weaving(u: np.ndarray, v: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Broad bands over and under each other."""
    size = random.uniform(16, 30)
    over = paint.checks(u, v, size)
    bulge = np.where(over > 0.5, paint.edge(v, size), paint.edge(u, size)) / size
    return 0.5 * over + bulge


TRAIN: tuple[Pattern, ...] = (
    grating,
    spiral,
    rays,
    frames,
    triangles,
    rectangles,
    scribble,
    drops,
    scales,
    maze,
    halftone,
    veins,
)
HELD_OUT: tuple[Pattern, ...] = (blends, pinwheel, weaving)


def write_textures(root: Path) -> list[dict]:
    """Writes `root/textures/<id>.png`, 320x240, and returns the entries: "neutral", pretraining, development."""
    paint.save_png(root / "textures" / "neutral.png", np.full((HEIGHT, WIDTH, 3), 0.5))
    entries = [_entry("neutral", "train", 0.0)]
    for split, patterns in (("train", TRAIN), ("unseen", HELD_OUT)):
        for pattern in patterns:
            entries += [_write(root, pattern, variant, split) for variant in range(VARIANTS)]
    return [entry for entry in entries if entry["id"] not in TOO_NEAR]


def _write(root: Path, pattern: Pattern, variant: int, split: str) -> dict:
    id = f"{pattern.__name__}_{variant}"
    paint.save_png(root / "textures" / f"{id}.png", texture(pattern, variant))
    return _entry(id, split, 1.0)


def texture(pattern: Pattern, variant: int) -> np.ndarray:
    """Returns one overlay, float RGB [240, 320, 3]: its field through two to five colours."""
    random = paint.stream("pretrain texture", pattern.__name__, variant)
    u, v = np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32))
    field = pattern(u, v, random)
    codes = [drawn(random, (0.05, 0.95), (0.1, 1.0)) for _ in range(random.integers(2, 6))]
    return paint.ramp(field, *codes)


def _entry(id: str, split: str, mix: float) -> dict:
    return {"id": id, "name": id.replace("_", " "), "split": split, "mix": mix, "image": f"textures/{id}.png"}
