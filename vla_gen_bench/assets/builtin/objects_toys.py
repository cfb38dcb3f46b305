"""Toy bear, rubber duck and potted plant, in millimetres. The animals look towards +x."""

import numpy as np

from vla_gen_bench.assets.builtin import meshkit as mk
from vla_gen_bench.assets.builtin.objects_model import Model, bands, block, grain, standing


Triple = tuple[float, float, float]


def _ball(centre: Triple, radii: Triple, segments: int = 8, rows: int = 5) -> mk.Mesh:
    return mk.ellipsoid(radii, segments, rows).moved(*centre)


def _pair(centre: Triple, radii: Triple, segments: int = 8, rows: int = 5) -> list[mk.Mesh]:
    """A ball and its mirror image across y."""
    x, y, z = centre
    return [_ball((x, side * y, z), radii, segments, rows) for side in (1, -1)]


def toy_bear() -> Model:
    """Brown teddy sitting, legs forward."""
    fur = [_ball((0, 0, 19), (15, 16.5, 19), 10, 6), _ball((1, 0, 43), (14, 15.5, 13), 10, 7),
           *_pair((-1, 12, 53), (4, 6, 6), 6, 4), *_pair((7, 16, 23), (7.5, 5.5, 11), 7),
           *_pair((13, 12, 8), (13, 8, 8), 7)]
    cream = [_ball((7, 0, 18), (9.5, 11, 13), 8, 5), _ball((11, 0, 39.5), (7.5, 8, 6), 8, 4),
             *_pair((1.5, 12, 53), (2.5, 4.4, 4.4), 5, 3), *_pair((24.5, 12, 8), (2.2, 6, 6), 6, 3)]
    dark = [_ball((18, 0, 42.5), (2.4, 3.8, 2.6), 6, 3), *_pair((13, 6, 47), (2, 2.4, 2.4), 5, 3)]
    atlas = mk.Atlas()
    brown = atlas.add(grain(bands((0, "6e4220"), (0.6, "96602f"), (1, "a36a36")), 0.06, 21))
    pale = atlas.add(grain(bands((0, "d3a873"), (1, "e6c391"), height=8, width=8), 0.03, 22))
    black = atlas.solid((24, 16, 12))
    meshes = [mesh.painted(ink) for ink, group in ((brown, fur), (pale, cream), (black, dark)) for mesh in group]
    pieces = [block((-13, -19.5, 0), (26, 19.5, 15), 5), block((-13, -20.5, 14), (14, 20.5, 33), 4),
              block((-12, -14.5, 32), (16, 14.5, 55), 5)]
    return Model(meshes, atlas, pieces, 600)


def rubber_duck() -> Model:
    """Yellow bath duck with an orange beak."""
    def sit(points):
        points[:, 2] = np.maximum(points[:, 2], 0)
        return points

    body = _ball((0, 0, 15), (30, 20, 17.5), 12, 7).warped(sit)
    tail = mk.sweep([(-18, 0, 18), (-29, 0, 25), (-36, 0, 36)], [(11, 9), (8, 6), (1, 1)], segments=6, up=(0, 1, 0))
    head = _ball((15, 0, 41), (14.5, 14, 14), 10, 7)
    wings = [wing.turned("y", 12).moved(z=1) for wing in _pair((-6, 17.5, 19), (15, 4, 8.5), 8, 4)]
    beak = [_ball((30, 0, 39.5), (10, 8, 2.6), 8, 4), _ball((29, 0, 36.5), (7.5, 6.5, 2.2), 8, 3)]
    atlas = mk.Atlas()
    yellow = atlas.add(bands((0, "e0a800"), (0.4, "fbd21f"), (1, "ffe04a"), height=16, width=4))
    meshes = [mesh.painted(yellow) for mesh in (body, tail, head)]
    meshes += [wing.painted(atlas.add(bands((0, "dd9f00"), (1, "f0bd12"), height=8, width=4))) for wing in wings]
    meshes += [mesh.painted(ink) for mesh, ink in zip(beak, (atlas.solid((240, 110, 20)), atlas.solid((205, 80, 15))))]
    white, black = atlas.solid((250, 250, 250)), atlas.solid((15, 15, 18))
    meshes += [eye.painted(white) for eye in _pair((25, 7.5, 46), (2.8, 3.2, 3.6), 6, 3)]
    meshes += [eye.painted(black) for eye in _pair((26.8, 8.2, 46.3), (2.2, 2.6, 2.8), 6, 3)]
    pieces = [standing((-0.3, 24, 14.5), (6, 29, 19), (18, 29, 20), (28, 19, 14)),
              standing((28, 12, 12), (40, 14, 13.5), (54, 7), x=15),
              block((-36, -5, 24), (-24, 5, 33), 2), block((27, -6, 35), (39, 6, 42), 2)]
    return Model(meshes, atlas, pieces, 450)


def _leaf(angle_deg: float, reach: float, height: float, width: float) -> mk.Mesh:
    """Arched sheet from the soil outwards, folded along its midrib."""
    t = np.array([0, 0.3, 0.6, 0.85, 1])
    across = np.array([0.15, 0.75, 1, 0.6, 0.0]) * width / 2
    spine = np.column_stack([reach * t**1.4, 0 * t, 25 + height * np.sin(t * 1.9) / np.sin(1.57)])
    edges = [spine + np.stack([0 * t, side * across, 0.35 * across * abs(side)], axis=1) for side in (1, 0, -1)]
    return mk.surface(np.stack(edges, axis=1), crease_deg=25).turned("z", angle_deg).two_sided()


def potted_plant() -> Model:
    """Green leaves in a terracotta pot."""
    atlas = mk.Atlas()
    clay = bands((0, "a14f2a"), (0.6, "c0653a"), (0.62, "8f4322"), (0.68, "c96d40"), (1, "d07a4c"))
    clay = atlas.add(grain(clay, 0.03, 23))
    soil = atlas.add(grain(bands((0, "4a3220"), (1, "3a2616"), height=8, width=8), 0.15, 24))
    green = [atlas.add(bands((0, low), (1, high), height=16, width=8)) for low, high in (
        ("1f5a22", "3f9a3a"), ("2f7d2c", "6cc04f"))]
    pot = mk.lathe([(0, 0), (15, 0), (17.5, 18), (20, 18), (20.5, 19), (20.5, 27), (17.8, 27.5)], 16, 40).painted(clay)
    earth = mk.lathe([(17.8, 27.5), (17.5, 25.5), (0, 26)], 12).painted(soil)
    outer = [_leaf(60 * i + 10, 21, 18, 13).painted(green[0]) for i in range(6)]
    inner = [_leaf(90 * i + 40, 11, 33, 11).painted(green[1]) for i in range(4)]
    pieces = [standing((0, 15.2), (17, 18.5), (19, 20.3), (27.5, 20.3)), standing((27, 14), (44, 18), (58, 9))]
    return Model([pot, earth, *outer, *inner], atlas, pieces, 500)
