"""Fruit and vegetables of the builtin pack, in millimetres."""

import numpy as np

from vla_gen_bench.assets.builtin import meshkit as mk
from vla_gen_bench.assets.builtin.objects_model import (
    Model, bands, blob, grain, grid, lathe_x, lying, lying_round, standing, tint,
)


def _frond(tip: tuple[float, float, float], root: tuple[float, float, float], width: float) -> mk.Mesh:
    """Flat feather of a leaf from root to tip."""
    curve = np.linspace(root, tip, 4)
    return mk.sweep(curve, [(1, 1), (width, 1.5), (width, 1.2), (0.4, 0.4)], segments=4)


def carrot() -> Model:
    """Lies on its flank, tip towards -x, leaves towards +x."""
    x = np.array([0, 3, 14, 30, 48, 66, 80, 88, 91])
    radius = np.array([1, 3, 6, 9, 11.5, 13.5, 15, 14, 8.5])
    height = np.where(x < 85, radius, 15)
    skin = grain(bands((0, "d9661a"), (0.2, "f07d1e"), (0.9, "f58a28"), (1, "b5651d"), height=48), 0.03, 1)
    across, along = grid(skin)
    for v, u in ((0.2, 0.3), (0.33, 0.7), (0.45, 0.2), (0.55, 0.6), (0.66, 0.35), (0.76, 0.75), (0.85, 0.3)):
        skin = tint(skin, (np.abs(along - v) < 0.012) * (np.abs(across - u) < 0.22) * 0.55, "a8480f")
    atlas = mk.Atlas()
    body = mk.sweep(np.column_stack([x, 0 * x, height]), radius, segments=10).painted(atlas.add(skin))
    green = atlas.add(bands((0, "5f9e33"), (0.5, "3f8a26"), (1, "6fc043"), height=8, width=4))
    tips = [(124, 0, 17), (118, 13, 14), (118, -13, 14), (116, 8, 27), (116, -8, 26)]
    fronds = [_frond(tip, (88, 0, 15), 4.2).painted(green) for tip in tips]
    hull = lying((1, 3, 0, 4), (30, 9, 0, 18), (66, 13.5, 0, 27), (80, 15, 0, 30), (91, 11, 4, 26))
    return Model([body, *fronds], atlas, [hull, lying((91, 6, 10, 20), (118, 10, 11, 22))], 900)


def banana() -> Model:
    """Lies on its side, curved in the table plane, ends towards +y, stem at -x."""
    t = np.array([-1, -0.93, -0.84, -0.7, -0.4, 0, 0.4, 0.72, 0.9, 0.97, 1])
    radius = np.array([4, 3.4, 4.5, 9, 12.3, 13.2, 12.5, 9.5, 5.5, 3, 2.5])
    curve = np.column_stack([58 * t, 26 * t**2, 11.4 + 0 * t])
    skin = bands((0, "4a3a1c"), (0.06, "6b5a22"), (0.1, "a8b03a"), (0.2, "f2d03c"), (0.5, "fbdc45"),
                 (0.86, "f2d03c"), (0.93, "b9a63a"), (0.96, "4a3216"), (1, "3a2712"), height=48, width=24)
    for u, v in ((0.2, 0.4), (0.32, 0.55), (0.28, 0.66), (0.7, 0.45), (0.1, 0.6), (0.45, 0.35)):
        skin = blob(skin, u, v, 0.07, 0.035, "b58a2a")
    across, _ = grid(skin)
    skin = tint(skin, 0.35 * (np.abs(across * 6 % 1 - 0.0) < 0.13), "c9a227")
    atlas = mk.Atlas()
    body = mk.sweep(curve, radius, segments=6, crease_deg=40).painted(atlas.add(grain(skin, 0.02, 2)))
    pieces = [lying((-58, 4, 7, 15, 26), (-48, 5, 6, 16, 18), (-41, 9, 2.5, 20, 12.8), (-24, 12.8, 0, 22.5, 4.6)),
              lying((-24, 12.8, 0, 22.5, 4.6), (0, 13, 0, 22.8, 0), (24, 12.8, 0, 22.5, 4.6)),
              lying((24, 12.8, 0, 22.5, 4.6), (41, 10, 2.5, 20.5, 12.8), (53, 5.5, 6, 17, 21), (58, 3, 8, 14, 26))]
    return Model([body], atlas, pieces, 800)


def zucchini() -> Model:
    """Slightly bent green zucchini with a pale stem at +x."""
    x = np.array([0, 2, 8, 25, 50, 75, 95, 104, 106])
    radius = np.array([5, 9, 13, 15, 14.6, 13.8, 12, 9, 6])
    bend = 5e-4 * (x - 50.0) ** 2
    skin = bands((0, "b7a95a"), (0.05, "3f6b22"), (0.5, "2f5c1c"), (0.95, "3d6e25"), (1, "8fae5e"), height=48, width=48)
    across, _ = grid(skin)
    skin = tint(skin, 0.35 * (np.sin(across * 2 * np.pi * 7) > 0.55), "6f9a3e")
    skin = grain(skin, 0.12, 3)
    atlas = mk.Atlas()
    body = mk.sweep(np.column_stack([x, bend, 15 + 0 * x]), radius, segments=12).painted(atlas.add(skin))
    stem = mk.sweep([(104, 1.5, 15), (112, 2.2, 15.5), (119, 3, 16.5)], [6, 4.2, 5.2], segments=6, crease_deg=30)
    stem = stem.painted(atlas.add(bands((0, "8fae5e"), (0.85, "a9bf74"), (1, "d8d6a0"), height=8, width=4)))
    pieces = [lying((0, 6, 7, 23, 1), (8, 13, 2, 28, 0.9), (25, 15, 0, 30, 0.3), (75, 14, 0, 29, 0.3),
                    (106, 8, 7, 23, 1.6)),
              lying((106, 4.5, 10.5, 19.5, 1.6), (119, 5, 11.5, 21, 3))]
    return Model([body, stem], atlas, pieces, 700)


def _four_lobes(depth: float):
    def warp(points):
        angle = np.arctan2(points[:, 1], points[:, 0])
        points[:, :2] *= 1 - depth * np.cos(4 * angle)[:, None]
        return points
    return warp


def pepper() -> Model:
    """Red bell pepper standing on its four lobes, green stem up."""
    profile = [(0, 5), (7, 2), (13, 0), (18.5, 6), (21, 18), (22.5, 31), (20.5, 40), (14, 44), (7, 41), (0, 39)]
    skin = bands((0, "8f0f12"), (0.2, "c4161c"), (0.6, "dc1f22"), (0.85, "c8191d"), (1, "8a1512"), width=32)
    across, along = grid(skin)
    skin = tint(skin, 0.45 * (np.cos(across * 8 * np.pi) - 0.75) / 0.25 * (along > 0.2), "7a0a0e")
    skin = tint(skin, 0.8 * np.exp(-(((across % 0.25 - 0.09) / 0.025) ** 2 + ((along - 0.6) / 0.09) ** 2)), "ff8a80")
    atlas = mk.Atlas()
    body = mk.lathe(profile, 16).warped(_four_lobes(0.09)).scaled((1.08, 1, 1)).painted(atlas.add(skin))
    green = atlas.add(bands((0, "3c7a26"), (1, "86b24a"), height=8, width=4))
    stem = mk.sweep([(0, 0, 39), (0.5, 0, 46), (3, 0, 55)], [4.5, 3, 3.4], segments=6, up=(0, 1, 0)).painted(green)
    crown = mk.lathe([(9, 43), (5, 43.5), (0, 44)], 8).warped(_four_lobes(0.25)).painted(green)
    hull = standing((0, 13, 12.5), (6, 18, 16.5), (18, 21, 19.5), (34, 22, 20.5), (44, 13, 12))
    return Model([body, crown, stem], atlas, [hull, standing((43, 4), (55, 3.6), x=1)], 600)


def _lumps(points):
    x, y, z = points.T
    swell = 1 + 0.05 * np.sin(x / 9 + 1) + 0.045 * np.sin(y / 7 + x / 21) + 0.03 * np.cos(z / 6 + x / 12)
    return points * swell[:, None]


def potato() -> Model:
    """Lumpy and speckled, with eyes."""
    skin = grain(bands((0, "b08a55"), (0.5, "c9a468"), (1, "d2b07a"), height=40, width=48), 0.06, 4, (2, 2))
    for u, v in ((0.12, 0.6), (0.3, 0.8), (0.45, 0.5), (0.62, 0.72), (0.8, 0.55), (0.9, 0.82), (0.22, 0.42),
                 (0.7, 0.35)):
        skin = blob(blob(skin, u, v, 0.09, 0.07, "a37d4b"), u, v, 0.05, 0.04, "6e4f2a")
    atlas = mk.Atlas()
    body = mk.ellipsoid((32, 20, 17.5), 14, 9).warped(_lumps).painted(atlas.add(skin))
    body = body.moved(z=-body.vertices[:, 2].min())
    hull = standing((-0.3, 13, 8), (6, 24, 15.5), (17, 30, 20), (28, 24, 15), (34.5, 11, 7))
    return Model([body], atlas, [hull], 900)


def onion() -> Model:
    """Red onion standing on its root, dry neck up."""
    profile = [(0, 0), (6, 0.3), (13, 4), (20, 12), (21.8, 20), (19, 29), (12, 36), (6, 41), (3.6, 46), (5, 53),
               (0, 52)]
    skin = bands((0, "d9c39a"), (0.06, "c7a884"), (0.13, "9c3566"), (0.4, "8e2357"), (0.62, "9a3263"), (0.75, "b9708a"),
                 (0.84, "cfa982"), (1, "a9814f"), height=40, width=48)
    across, along = grid(skin)
    skin = tint(skin, 0.4 * (np.sin(across * 2 * np.pi * 12 + 3 * np.sin(along * 4)) > 0.6) * (along > 0.1), "d79ab4")
    atlas = mk.Atlas()
    body = mk.lathe(profile, 16).painted(atlas.add(skin))
    hull = standing((-0.3, 11), (5, 14.5), (13, 20.5), (23, 21), (36, 12))
    return Model([body], atlas, [hull, standing((36, 7), (52, 4.6))], 800)


def lemon() -> Model:
    """Lies along x, nipple at +x, stem scar at -x."""
    profile = [(0, -32), (4, -31), (6.5, -28), (13, -22.5), (18.5, -13), (20.5, 0), (18.5, 12), (13, 21.5), (7, 27.5),
               (4.5, 31), (0, 33.5)]
    skin = bands((0, "7d8a3a"), (0.03, "a8a83a"), (0.1, "e8cf2c"), (0.5, "fbe63c"), (0.9, "efd52e"), (1, "c9b52c"),
                 width=32)
    atlas = mk.Atlas()
    body = lathe_x(profile, 12).moved(z=20.5).painted(atlas.add(grain(skin, 0.05, 5)))
    hull = lying_round(20.5, (-31, 4.5), (-22, 14), (-8, 20), (8, 20), (28, 7.5))
    return Model([body], atlas, [hull], 700)
