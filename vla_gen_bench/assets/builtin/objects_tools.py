"""Watering can, pipe, paint brush and spoon, in millimetres."""

import numpy as np

from vla_gen_bench.assets.builtin import meshkit as mk
from vla_gen_bench.assets.builtin.objects_model import (
    Model, bands, block, grain, grid, lathe_x, lying, lying_round, standing, tint,
)


def watering_can() -> Model:
    """Teal can standing, spout towards +x, handle towards -x."""
    atlas = mk.Atlas()
    teal = atlas.add(bands((0, "13776d"), (0.08, "1f9a8d"), (0.5, "26ab9c"), (0.52, "f2c53d"), (0.6, "f2c53d"),
                           (0.62, "26ab9c"), (1, "2fbcac"), width=4))
    plain, dark, yellow = atlas.solid((34, 160, 147)), atlas.solid((12, 48, 46)), atlas.solid((242, 197, 61))
    profile = [(0, 0), (18.5, 0), (20, 1.5), (18.5, 33), (17, 36), (11, 39), (10.5, 41), (9.5, 41)]
    body = mk.lathe(profile, 16, 40).painted(teal)
    hole = mk.lathe([(9.5, 41), (0, 39)], 12).painted(dark)
    spout = mk.sweep([(14, 0, 10), (30, 0, 20), (48, 0, 38)], [5.5, 4, 3], segments=8, up=(0, 1, 0)).painted(plain)
    rose = mk.lathe([(3, -3), (8, 5), (8, 6.5), (0, 8)], 10, 40).turned("y", 45).moved(48, 0, 38).painted(yellow)
    loop = [(-16, 0, 34), (-26, 0, 40), (-34, 0, 37), (-37, 0, 27), (-32, 0, 15), (-18, 0, 7)]
    handle = mk.sweep(loop, [(2.8, 2.8)] * 6, segments=6, up=(0, 1, 0)).painted(plain)
    pieces = [standing((0, 20), (33, 18.7), (41, 10.5)), lying((14, 4.5, 7, 19), (36, 3.8, 21, 31), (50, 4, 32, 45)),
              lying((-37, 2.8, 20, 36), (-30, 2.8, 12, 41), (-18, 2.8, 7, 37)),
              lying((46, 7.5, 36, 46), (57, 7.5, 38, 46))]
    return Model([body, hole, spout, rose, handle], atlas, pieces, 450)


def pipe() -> Model:
    """Steel pipe with a flange at both ends, lying."""
    steel = bands((0, "8b949b"), (1, "8b949b"), height=32, width=32)
    across, along = grid(steel)
    steel = tint(steel, 0.7 * np.exp(-(((across - 0.45) / 0.1) ** 2)), "e3e9ec")
    steel = tint(steel, 0.6 * np.exp(-(((across - 0.02) / 0.25) ** 2)), "596067")
    ring = bands((0, "5d646a"), (0.45, "a9b1b7"), (0.7, "a9b1b7"), (1, "70777d"), height=16, width=4)
    atlas = mk.Atlas()
    metal, flange = atlas.add(grain(steel, 0.02, 31)), atlas.add(ring)
    dark = atlas.add(bands((0, "3a3f44"), (1, "0c0d0e"), height=8, width=4))
    tube = lathe_x([(13.5, 11), (13.5, 99)], 16).painted(metal)
    left = lathe_x([(9.5, 0), (17, 0), (18, 1), (18, 10), (17, 11), (13.5, 11)], 16, 40).painted(flange)
    hole = lathe_x([(9.5, 0), (8.5, -12), (0, -12)], 12).painted(dark).turned("z", 180)
    meshes = [tube, left, hole, *(mesh.turned("z", 180).moved(110) for mesh in (left, hole))]
    pieces = [lying_round(18, (0, 18), (11, 18)), lying_round(18, (10, 13.5), (100, 13.5)),
              lying_round(18, (99, 18), (110, 18))]
    return Model([mesh.moved(z=18) for mesh in meshes], atlas, pieces, 900)


def paint_brush() -> Model:
    """Flat brush lying, red handle at -x, bristles dipped in blue at +x."""
    atlas = mk.Atlas()
    red = atlas.add(bands((0, "8c1f16"), (0.12, "c23a26"), (0.8, "d24a30"), (1, "a82e1e"), height=16, width=4))
    steel = bands((0, "b4bac0"), (1, "b4bac0"), height=16, width=16)
    across, _ = grid(steel)
    steel = tint(steel, 1.0 * (np.abs(across % 0.5 - 0.18) < 0.07), "70777e")
    hair = bands((0, "d9bd86"), (1, "d9bd86"), height=24, width=32)
    across, along = grid(hair)
    hair = grain(hair, 0.14, 32, (1, 32))
    hair = tint(hair, (across - 0.55 + 0.05 * np.sin(along * 30)) * 12, "1d56c4")
    x = np.array([0, 2, 10, 24, 42, 58, 68, 72])
    side = np.array([4, 6.5, 8.5, 8, 7, 8, 11.5, 13])
    tall = np.array([4, 7, 9, 8, 7, 7.5, 8, 8])
    handle = mk.sweep(np.column_stack([x, 0 * x, 9 + 0 * x]), np.column_stack([side, tall]), segments=10).painted(red)
    ferrule = mk.box((20, 32, 18), 2).moved(80, 0, 9).painted(atlas.add(steel))

    def taper(points):
        end = np.clip((points[:, 0] - 88) / 38, 0, 1)
        points[:, 2] = 9 + (points[:, 2] - 9) * (1 - 0.6 * end)
        points[:, 1] *= 1 - 0.08 * end
        return points

    bristles = mk.box((38, 30, 16), 2).moved(107, 0, 9).warped(taper).painted(atlas.add(hair))
    pieces = [lying((0, 5, 3, 15), (10, 8.5, 0, 18), (42, 7, 2, 16), (71, 12, 1, 17)),
              block((70, -16, 0), (90, 16, 18), 2), lying((89, 15, 1, 17), (126, 14, 5.5, 12.5))]
    return Model([handle, ferrule, bristles], atlas, pieces, 600)


def spoon() -> Model:
    """Steel spoon lying on its bowl and the end of its arched handle; bowl at -x."""
    atlas = mk.Atlas()
    back = atlas.add(bands((0, "8f979d"), (0.7, "b9c0c5"), (1, "d5dadd"), height=16, width=4))
    hollow = atlas.add(bands((0, "dfe4e7"), (0.2, "a3abb1"), (0.6, "6f777d"), (1, "b9c0c5"), height=16, width=4))
    shine = bands((0, "98a0a6"), (0.5, "a6aeb4"), (1, "8b949b"), width=16)
    across, _ = grid(shine)
    shine = tint(shine, 0.7 * np.exp(-(((across - 0.25) / 0.07) ** 2)), "e6eaed")
    stretch = (1.45, 1, 1)
    under = mk.lathe([(0, 0), (6, 1), (11, 5), (14, 12)], 16).scaled(stretch).painted(back)
    inner = mk.lathe([(14, 12), (13, 12.3), (9, 6), (4, 3.4), (0, 3)], 16).scaled(stretch).painted(hollow)
    curve = [(17, 0, 11), (26, 0, 14), (40, 0, 14.5), (62, 0, 10.5), (82, 0, 5.5), (92, 0, 4.2), (96, 0, 4)]
    radii = [(4, 2), (4.5, 3.4), (5.5, 4), (6.8, 4), (7.8, 4), (7, 3.8), (3.5, 2.5)]
    handle = mk.sweep(curve, radii, segments=8, up=(0, 0, 1)).painted(atlas.add(shine))
    pieces = [standing((-0.1, 9, 6), (5, 16, 11), (12, 20, 14)),
              lying((17, 4.5, 8, 13), (26, 5, 10, 17.4), (40, 5.8, 10.2, 18.5), (62, 6.8, 6.5, 14.5)),
              lying((62, 6.8, 6.5, 14.5), (82, 7.8, 1.2, 9.5), (95, 5, 1, 7))]
    return Model([under, inner, handle], atlas, pieces, 1500)
