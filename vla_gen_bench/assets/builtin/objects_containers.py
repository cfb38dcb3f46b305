"""Cans, bottles, cups and glasses, in millimetres. Lying ones point their opening towards +x."""

import numpy as np
from numpy.typing import NDArray

from vla_gen_bench.assets.builtin import meshkit as mk
from vla_gen_bench.assets.builtin.objects_model import (
    Model, bands, blob, grid, lathe_x, lying, lying_round, patch, standing, tint,
)


def _streaks(code: str, light: str, height: int = 16, width: int = 24) -> NDArray:
    """Metal or glass: bright lines along the axis."""
    image = bands((0, code), (1, code), height=height, width=width)
    across, _ = grid(image)
    return tint(image, 0.8 * np.cos(across * 2 * np.pi * 3 + 0.6) ** 6, light)


def _can_end() -> NDArray:
    """Lid seen from outside: rim, opening and pull tab."""
    lid = bands((0, "c9ced2"), (1, "c9ced2"), height=24, width=24)
    lid = blob(blob(lid, 0.5, 0.5, 0.98, 0.98, "8d9499"), 0.5, 0.5, 0.84, 0.84, "d5dadd")
    lid = blob(lid, 0.5, 0.75, 0.34, 0.26, "3a3f44")
    return blob(blob(lid, 0.5, 0.45, 0.26, 0.42, "8b9298"), 0.5, 0.36, 0.12, 0.16, "c3c9cd")


def soda_can() -> Model:
    """Red can with a white wave, lying."""
    label = bands((0, "c7ccd0"), (0.08, "c7ccd0"), (0.09, "c8102e"), (0.9, "c8102e"), (0.91, "c7ccd0"), (1, "aab0b5"),
                  height=48, width=64)
    across, along = grid(label)
    wave = along - 0.5 - 0.13 * np.sin(across * 4 * np.pi)
    label = tint(label, 4 - np.abs(wave) * 60, "ffffff")
    label = tint(label, (2 - np.abs(wave - 0.13) * 100) * 0.9, "8a0a1e")
    atlas = mk.Atlas()
    body = lathe_x([(14.5, 0), (19, 5), (19, 64), (15, 71), (15.3, 72), (14.3, 72), (14, 70)], 18, 30)
    lid = lathe_x([(14, 70), (0, 70)], 18).projected("x").painted(atlas.add(_can_end()))
    bottom = atlas.add(bands((0, "8d9499"), (1, "c9ced2"), height=8, width=4))
    base = lathe_x([(0, 3), (10, 1), (14.5, 0)], 18).painted(bottom)
    hull = lying_round(19, (0, 14.5), (5, 19), (65, 19), (72, 15))
    return Model([mesh.moved(z=19) for mesh in (body.painted(atlas.add(label)), lid, base)], atlas, [hull], 600)


def water_bottle() -> Model:
    """Clear-blue bottle with a blue label and cap, lying."""
    shell = _streaks("b4dcf0", "f2fbff", 16, 32)
    _, along = grid(shell)
    shell = tint(shell, 0.35 * (np.sin(along * 2 * np.pi * 5) > 0.5), "7fbfe0")
    label = bands((0, "ffffff"), (0.08, "ffffff"), (0.09, "1f62b8"), (0.9, "1f62b8"), (0.91, "ffffff"), (1, "ffffff"),
                  width=48)
    across, along = grid(label)
    label = tint(label, 3 - np.abs(along - 0.6 - 0.12 * np.sin(across * 6 * np.pi)) * 40, "bfe4ff")
    cap = bands((0, "123f86"), (1, "1d55ad"), height=8, width=32)
    cap = tint(cap, 0.5 * (grid(cap)[0] * 8 % 1 < 0.5), "0c2c60")
    atlas = mk.Atlas()
    glass, paper, plastic = atlas.add(shell), atlas.add(label), atlas.add(cap)
    base = lathe_x([(0, 2), (14, 0), (17, 3), (17.5, 10), (16.3, 14), (17.5, 18), (17.5, 34)], 14).painted(glass)
    band = lathe_x([(17.8, 34), (17.8, 70)], 14).painted(paper)
    neck = lathe_x([(17.5, 70), (17.2, 84), (14, 95), (8, 106), (7.5, 112)], 14).painted(glass)
    lid = lathe_x([(7.5, 110), (9.5, 110), (9.5, 123), (8.5, 124.5), (0, 124.5)], 14).painted(plastic)
    hull = lying_round(17.8, (0, 14), (3, 17.5), (84, 17.5), (108, 8.5))
    pieces = [hull, lying_round(17.8, (106, 9), (124.5, 9))]
    return Model([mesh.moved(z=17.8) for mesh in (base, band, neck, lid)], atlas, pieces, 500)


def ketchup_bottle() -> Model:
    """Flat red squeeze bottle with a white cap and a tomato on the label, lying."""
    skin = bands((0, "8f0d10"), (0.15, "c01518"), (0.8, "cc1a1c"), (1, "a01214"), height=64, width=64)
    for u in (0.5, 0.0, 1.0):
        skin = patch(skin, (u - 0.15, u + 0.15), (0.3, 0.72), "f6f0e2")
        skin = blob(skin, u, 0.44, 0.2, 0.14, "d4201f")
        skin = blob(skin, u, 0.375, 0.09, 0.035, "3f8f2f")
        skin = patch(skin, (u - 0.1, u + 0.1), (0.56, 0.6), "2f5d23")
        skin = patch(skin, (u - 0.07, u + 0.07), (0.64, 0.67), "c01518")
    atlas = mk.Atlas()
    flat, lift = (1, 1, 0.76), 15.6
    body = lathe_x([(0, 0), (17, 0), (20, 3), (20.5, 20), (19.5, 45), (20, 66), (17, 82), (11, 92), (9.5, 95)], 16)
    cap = lathe_x([(9.5, 94), (12, 94), (12, 102), (8.5, 105), (6.5, 120), (5, 122), (0, 122)], 14)
    white = bands((0, "e8e8e4"), (0.45, "fafaf7"), (0.5, "d9d9d4"), (1, "ffffff"), height=16, width=4)
    hull = lying((0, 17, 2, 29), (3, 20, 0.3, 31), (66, 20, 0.4, 30.8), (94, 11, 6, 25))
    pieces = [hull, lying((93, 12, 6.5, 24.7), (104, 10, 8, 23), (122, 5.5, 11, 20))]
    painted = body.painted(atlas.add(skin)), cap.painted(atlas.add(white))
    return Model([mesh.scaled(flat).moved(z=lift) for mesh in painted], atlas, pieces, 450)


def mustard_bottle() -> Model:
    """Yellow bottle with a long cone nozzle and a red and white label, lying."""
    skin = bands((0, "d9a400"), (0.15, "f4c20d"), (0.85, "f7c815"), (1, "e0ae05"), height=64, width=64)
    across, along = grid(skin)
    skin = tint(skin, (0.19 - np.abs(along - 0.5)) * 50, "f8f4e6")
    skin = tint(skin, (0.11 - np.abs(along - 0.5 - 0.05 * np.cos(across * 4 * np.pi))) * 40, "c4151c")
    for u in (0.0, 0.5, 1.0):
        skin = patch(skin, (u - 0.13, u + 0.13), (0.515, 0.555), "ffffff")
        skin = patch(skin, (u - 0.07, u + 0.07), (0.64, 0.665), "1f3f8f")
    atlas = mk.Atlas()
    body = lathe_x([(0, 0), (16, 0), (18.5, 3), (18.5, 70), (16, 79), (10.5, 84)], 16).painted(atlas.add(skin))
    yellow = bands((0, "e0ae05"), (0.35, "f9d12e"), (0.85, "f9d12e"), (0.86, "d42a20"), (1, "d42a20"), width=4)
    nozzle = lathe_x([(10, 83), (11.5, 83), (11.5, 92), (8, 93), (6.5, 95), (2.4, 118), (1.5, 120), (0, 120)], 12, 40)
    pieces = [lying_round(18.5, (0, 16), (3, 18.5), (71, 18.5), (84, 11)),
              lying_round(18.5, (84, 11), (92, 11), (119, 3))]
    return Model([mesh.moved(z=18.5) for mesh in (body, nozzle.painted(atlas.add(yellow)))], atlas, pieces, 450)


def paper_cup() -> Model:
    """White coffee cup with a brown sleeve, standing, empty."""
    skin = bands((0, "f4f1ea"), (0.24, "f4f1ea"), (0.25, "b98a55"), (0.72, "c2935d"), (0.73, "f7f5ef"), (1, "ffffff"),
                 width=64)
    for u in (0.0, 1 / 3, 2 / 3, 1.0):
        skin = blob(blob(skin, u, 0.48, 0.16, 0.36, "1f6b45"), u, 0.48, 0.07, 0.16, "f4f1ea")
    atlas = mk.Atlas()
    wall = mk.lathe([(14, 0), (20.5, 53), (21.5, 54), (21.2, 55.5), (20, 55)], 18).painted(atlas.add(skin))
    inside = mk.lathe([(20, 55), (14.2, 6), (0, 6)], 18, 30)
    inside = inside.painted(atlas.add(bands((0, "f2efe8"), (0.76, "b9b3a6"), (0.78, "cfc9bd"), (1, "c4beb2"), width=4)))
    return Model([wall, inside], atlas, [standing((0, 14), (53, 20.8), (55.4, 20.8))], 350)


def soup_can() -> Model:
    """Tin with a red and white label and a gold seal, standing."""
    label = bands((0, "f7f3ea"), (0.5, "f7f3ea"), (0.51, "c5161d"), (1, "c5161d"), height=48, width=64)
    for u in (0.0, 0.25, 0.5, 0.75, 1.0):
        label = blob(blob(label, u, 0.5, 0.11, 0.24, "d9a520"), u, 0.5, 0.06, 0.13, "f4dd8a")
        label = patch(label, (u - 0.09, u + 0.09), (0.74, 0.84), "ffffff")
        label = patch(label, (u - 0.08, u + 0.08), (0.18, 0.26), "c5161d")
    rim = _streaks("9aa1a6", "eef1f3", 4, 24)
    lid = bands((0, "dfe3e6"), (0.12, "7f868b"), (0.2, "c3c9cd"), (0.5, "d3d8db"), (0.53, "8d9499"), (0.58, "c9ced2"),
                (0.75, "d3d8db"), (0.78, "969da2"), (0.83, "cdd2d6"), (1, "d9dde0"), width=4)
    atlas = mk.Atlas()
    steel = atlas.add(rim)
    foot = mk.lathe([(18, 0.5), (20.5, 0), (21, 1), (21, 4), (20.3, 4.5)], 20, 30).painted(steel)
    side = mk.lathe([(20.3, 4.5), (20.3, 50.5)], 20).painted(atlas.add(label))
    rim_mesh = mk.lathe([(20.3, 50.5), (21, 51), (21, 55), (20, 55.5)], 20, 30).painted(steel)
    top = mk.lathe([(20, 55.5), (19, 53.5), (0, 53.5)], 20).painted(atlas.add(lid))
    return Model([foot, side, rim_mesh, top], atlas, [standing((0, 20.8), (55.2, 20.8))], 900)


def wine_glass() -> Model:
    """Pale glass lying on its bowl and foot, rim towards +x."""
    clear = _streaks("b9cdd6", "ffffff", 48, 32)
    _, along = grid(clear)
    clear = tint(clear, 0.6 * (along > 0.9) + 0.7 * (along < 0.04), "eef7fb")
    inside = bands((0, "f4fafc"), (0.12, "a9c0cb"), (1, "7d98a5"), width=4)
    atlas = mk.Atlas()
    outer = lathe_x([(0, 0), (19.5, 0), (20.5, 1.3), (10, 3.5), (4, 7), (3, 12), (3, 30), (5, 35), (14, 40), (19, 47),
                     (20.5, 58), (19.5, 74), (16.5, 92)], 16, 60).painted(atlas.add(clear))
    inner = lathe_x([(16.5, 92), (15.7, 91.5), (18.8, 74), (19, 56), (12, 43), (0, 39)], 14).painted(atlas.add(inside))
    foot = lying_round(20.5, (0, 20.5), (3, 20.5))
    stem = lying_round(20.5, (3, 5), (35, 4.5))
    bowl = lying_round(20.5, (35, 7), (43, 18), (50, 20.5), (66, 20.5), (92, 16.5))
    return Model([outer.moved(z=20.5), inner.moved(z=20.5)], atlas, [foot, stem, bowl], 400)


def mug() -> Model:
    """Blue mug with a white band and coffee in it, handle towards +x."""
    skin = bands((0, "1f4e9c"), (0.3, "2b62b8"), (0.34, "2b62b8"), (0.35, "f4f4f0"), (0.62, "f4f4f0"), (0.63, "2b62b8"),
                 (0.94, "2b62b8"), (0.95, "dfe8f6"), (1, "dfe8f6"), width=64)
    for u in (0.1, 0.3, 0.5, 0.7, 0.9):
        skin = blob(skin, u, 0.485, 0.08, 0.17, "e0532f")
    atlas = mk.Atlas()
    outside = mk.lathe([(0, 0), (17, 0), (19.5, 2), (20, 6), (20, 43), (18.8, 44)], 18).painted(atlas.add(skin))
    white = atlas.add(bands((0, "f4f4f0"), (1, "c9ccd0"), height=8, width=4))
    inside = mk.lathe([(18.8, 44), (17.6, 43), (17.4, 35)], 18).painted(white)
    brew = atlas.add(bands((0, "8a5a33"), (0.15, "5a3218"), (1, "4a2812"), height=8, width=4))
    coffee = mk.lathe([(17.4, 35), (0, 35)], 18).painted(brew)
    curve = [(18, 0, 35), (26, 0, 36.5), (32, 0, 31), (32.5, 0, 22), (28, 0, 13), (18, 0, 9)]
    handle = mk.sweep(curve, [(3.2, 2.6)] * 6, segments=7, up=(0, 1, 0)).painted(atlas.solid((43, 98, 184)))
    pieces = [standing((0, 17.5), (3, 20), (43.5, 20)), lying((18, 3, 8, 37), (30, 3, 15, 36), (35, 3, 20, 32))]
    return Model([outside, inside, coffee, handle], atlas, pieces, 600)
