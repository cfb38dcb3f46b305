"""Randomly drawn tables, fixed by their seeds: any hue, including dark and high-contrast ones.

The pattern families are those of the builtin training tables and some more, without those of its unseen tables
(hexagonal tiles, dots, blossoms, slate, glass).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla_gen_bench.assets.builtin import paint
from vla_gen_bench.assets.builtin import tables as benchmark
from vla_gen_bench.assets.builtin.tables import Material, Table
from vla_gen_bench.assets.pretrain.colours import darker, drawn

COUNTS = {"train": 74, "unseen": 17}  # before some are excluded
TOO_NEAR = {  # to an unseen table, see tests/episodes/test_pretrain_world.py
    "train": frozenset({7, 26, 28, 40, 43, 44, 48, 49, 52, 56, 57, 67, 69}),
    "unseen": frozenset({4}),
}
DARK = 0.3  # share of the tables whose top is dark
CONTRAST = 0.35  # share of those with two colours far apart
MIDDLE = ((0.5, 0.5),)  # of a pixel of 640x480: four samples for each one kept


def _two(random: np.random.Generator) -> tuple[str, str]:
    """Returns two colours of a top: similar, or far apart in lightness."""
    dark = random.random() < DARK
    first = drawn(random, (0.06, 0.2) if dark else (0.3, 0.85))
    if random.random() < CONTRAST:
        return first, drawn(random, (0.65, 0.92) if dark else (0.05, 0.25))
    return first, darker(first, random.uniform(1.25, 1.9) if dark else random.uniform(0.55, 0.85))


def _wave(u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    return (np.sin(2 * np.pi * (u / size + 0.35 * np.sin(v * 4 / size))) > 0).astype(np.float32)


def _rings(u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    return (np.hypot(u + 0.16, v) / size % 1 < 0.5).astype(np.float32)


def _diamonds(u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    return (paint.edge(u, size) + 0.6 * paint.edge(v, size) < 0.3 * size).astype(np.float32)


def _crosses(u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    a, b = paint.edge(u, size), paint.edge(v, size)
    return ((np.minimum(a, b) < 0.08 * size) & (np.maximum(a, b) < 0.3 * size)).astype(np.float32)


def _stripes(u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    return (u / size % 1 < 0.45).astype(np.float32)


def _zigzag(u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    return ((u + 0.7 * paint.edge(v, size)) / size % 1 < 0.5).astype(np.float32)


def _lines(u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    return paint.grid_lines(u, v, size, 0.1 * size)


MASKS = (_wave, _rings, _diamonds, _crosses, _stripes, _zigzag, _lines, paint.checks)


def _masked(random: np.random.Generator) -> Material:
    first, second = _two(random)
    mask, size, turn = MASKS[random.integers(len(MASKS))], random.uniform(0.03, 0.11), random.uniform(0, 180)

    def material(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        u, v = paint.turn(u, v, turn)
        image = paint.mix(paint.rgb(first), paint.rgb(second), mask(u, v, np.float32(size)))
        return image * (0.92 + 0.16 * paint.noise(u, v, 0.02, 1, "grain"))[..., None]

    return material


def _natural(random: np.random.Generator) -> Material:
    first, second = _two(random)
    third, seed, turn = darker(second, 0.8), int(random.integers(50)), random.uniform(0, 180)
    size = random.uniform(0.7, 1.5)
    patterns = (
        lambda u, v: paint.wood(u, v, (first, second, third), 0.024 * size, seed),
        lambda u, v: paint.planks(u, v, (first, second, third), 0.9, 0.1 * size, seed),
        lambda u, v: paint.speckle(u, v, (first, second), 0.03 * size, seed),
        lambda u, v: paint.terrazzo(u, v, 0.025 * size, first, (second, third, "b8b0a4"), seed),
        lambda u, v: paint.brushed(u, v, (third, second, first), 0.03 * size, seed),
        lambda u, v: paint.marble(u, v, 0.3 * size, (first, second), third, seed),
        lambda u, v: paint.leather(u, v, (third, second, first), 0.007 * size, seed),
        lambda u, v: paint.ramp(paint.noise(u, v, 0.3 * size, seed), first, second, third),
        lambda u, v: paint.rgb(first) * (0.95 + 0.06 * paint.noise(u, v, 0.4, seed, "smooth"))[..., None],
    )
    pattern = patterns[random.integers(len(patterns))]
    return lambda u, v: pattern(*paint.turn(u, v, turn))


def table(number: int, split: str) -> Table:
    """Returns table `number` of a split."""
    random = paint.stream("pretrain table", split, number)
    material = (_masked if random.random() < 0.45 else _natural)(random)
    near, far = random.uniform(0.24, 0.34), random.uniform(0.28, 0.5)
    floor = paint.speckle
    codes = drawn(random, (0.2, 0.7), (0, 0.4)), drawn(random, (0.2, 0.7), (0, 0.4))
    wall = (drawn(random, (0.25, 0.85), (0, 0.5)), random.uniform(180, 230), random.uniform(0.9, 1.25))
    return Table(
        f"{'table' if split == 'train' else 'development_table'}_{number:02d}", material, drawn(random, (0.1, 0.8)),
        lambda u, v: floor(u, v, codes, 0.05, number), wall if random.random() < 0.7 else None,
        centre=(-0.2 + random.uniform(-0.03, 0.03), random.uniform(0.0, 0.15)), half=(near, far),
        corner=random.choice([0.01, 0.04, 0.12, min(near, far) - 0.001]), degrees=random.uniform(-15, 15),
        thickness=random.uniform(0.02, 0.1), gloss=random.uniform(0, 0.2), rim=random.uniform(0, 0.03),
    )  # fmt: skip


def write_tables(root: Path) -> list[dict]:
    """Writes `root/tables/<id>.png`, 320x240 as the world's camera, and returns the entries, "train" first."""
    entries = []
    for split, count in COUNTS.items():
        for number in sorted(set(range(count)) - TOO_NEAR[split]):
            entries.append(_write(root, table(number, split), split))
    benchmark.forget_rays()
    return entries


def _write(root: Path, item: Table, split: str) -> dict:
    image = benchmark.render(item, MIDDLE).reshape(240, 2, 320, 2, 3).mean((1, 3))
    path = f"tables/{item.id}.png"
    paint.save_png(Path(root) / path, image)
    return {"id": item.id, "name": item.id.replace("_", " "), "split": split, "image": path}
