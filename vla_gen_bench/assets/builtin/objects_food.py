"""Bread and the hamburger, in millimetres."""

import numpy as np
from numpy.typing import NDArray

from vla_gen_bench.assets.builtin import meshkit as mk
from vla_gen_bench.assets.builtin.objects_model import (
    Model, bands, blob, colour, grain, grid, lying, standing, tint,
)


def _crust(height: int, width: int, seed: int) -> NDArray:
    """Seen from above: pale at the rim, dark golden in the middle."""
    image = np.zeros((height, width, 3)) + colour("d9a35c")
    across, along = grid(image)
    middle = 1 - np.hypot((across - 0.5) * 2, (along - 0.5) * 2)
    return grain(tint(image, middle * 2.2, "a8601f"), 0.05, seed, (2, 2))


def _scored(image: NDArray, centres: list[float], slant: float, width: float) -> NDArray:
    """Pale cuts across the crust at fractions of its length."""
    across, along = grid(image)
    for centre in centres:
        distance = np.abs(across - centre + slant * (along - 0.5))
        inside = np.abs(along - 0.5) < 0.34
        image = tint(image, inside * (1.5 - distance / width), "f3dcae")
    return image


def _flat_bottom(level: float):
    def warp(points):
        points[:, 2] = np.maximum(points[:, 2], level)
        return points
    return warp


def bread_roll() -> Model:
    """Oval golden roll with three cuts."""
    atlas = mk.Atlas()
    crust = atlas.add(_scored(_crust(40, 56, 11), [0.3, 0.5, 0.7], 0.12, 0.028))
    loaf = mk.ellipsoid((35, 22, 18), 16, 9, (0.85, 0.9)).warped(_flat_bottom(-11)).projected("z").painted(crust)
    hull = standing((-11.3, 29, 17), (-6, 33, 20.5), (4, 34, 21), (12, 27, 16), (18, 13, 8))
    return Model([loaf], atlas, [hull], 450)


def baguette() -> Model:
    """Long loaf along x with slanted cuts."""
    x = np.array([-64, -62, -56, -42, -20, 0, 20, 42, 56, 62, 64])
    side = np.array([2, 6, 10.5, 14.5, 16, 16, 16, 14.5, 10.5, 6, 2])
    atlas = mk.Atlas()
    crust = _scored(_crust(24, 96, 12), [0.16, 0.33, 0.5, 0.67, 0.84], -0.1, 0.02)
    loaf = mk.sweep(np.column_stack([x, 0 * x, 0 * x]), np.column_stack([side, 0.86 * side]), segments=10)
    loaf = loaf.warped(_flat_bottom(-10)).projected("z").painted(atlas.add(crust))
    hull = lying((-63, 5, -5, 5), (-46, 13, -10, 11), (-20, 16, -10, 13.7), (20, 16, -10, 13.7), (46, 13, -10, 11))
    return Model([loaf], atlas, [hull, lying((46, 13, -10, 11), (63, 5, -5, 5))], 350)


def _sesame_bun() -> NDArray:
    image = _crust(40, 40, 13)
    generator = np.random.default_rng(14)
    for angle, radius in zip(np.arange(16) * 2.4, np.sqrt(np.linspace(0.01, 0.5, 16))):
        u, v = 0.5 + 0.5 * radius * np.cos(angle), 0.5 + 0.5 * radius * np.sin(angle)
        image = blob(image, u, v, *generator.uniform(0.07, 0.1, 2), "fbeecb")
    return image


def _ruffled(points):
    angle, edge = np.arctan2(points[:, 1], points[:, 0]), np.hypot(points[:, 0], points[:, 1]) / 22
    points[:, :2] *= (1 + 0.07 * np.sin(9 * angle) * edge)[:, None]
    points[:, 2] += 1.8 * np.cos(9 * angle) * edge
    return points


def hamburger() -> Model:
    """Bun, patty, cheese, tomato, lettuce, sesame bun."""
    atlas = mk.Atlas()
    paints = {name: atlas.solid(code) for name, code in (
        ("patty", (74, 40, 20)), ("cheese", (255, 190, 30)), ("tomato", (205, 40, 30)))}
    lettuce = atlas.add(bands((0, "5aa02c"), (0.5, "8fd14a"), (1, "6cb535"), height=8, width=4))
    bottom = mk.lathe([(0, 0), (18, 0), (20.5, 3), (20.5, 9), (0, 9)], 16)
    crumb = bands((0, "c98d45"), (0.45, "d9a35c"), (0.6, "f0d6a0"), (1, "f0d6a0"), height=8, width=4)
    patty = mk.lathe([(19, 9), (21, 11), (21, 15), (19, 17)], 14).painted(paints["patty"])
    cheese = mk.extrude([(17, -17), (17, 17), (-17, 17), (-17, -17)], [(1.03, 14), (1, 18)]).turned("z", 20)
    tomato = mk.lathe([(20, 18), (20, 21.5), (0, 22)], 14).painted(paints["tomato"])
    leaf = mk.lathe([(10, 20), (20.7, 21.7), (10, 24)], 36).warped(_ruffled).painted(lettuce)
    top = mk.lathe([(0, 23), (20.5, 23), (21.5, 26), (20, 32), (15, 38), (8, 41), (0, 42)], 16)
    top = top.projected("z").painted(atlas.add(_sesame_bun()))
    hull = standing((-0.1, 18), (4, 21), (28, 21.4), (36, 16), (42, 7))
    meshes = [bottom.painted(atlas.add(crumb)), patty, cheese.painted(paints["cheese"]), tomato, leaf, top]
    return Model(meshes, atlas, [hull], 500)
