"""Toy shapes, not yet coloured. Millimetres, z up, resting on z = 0; sizes are scaled by a factor about 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vla_gen_bench.assets.builtin import meshkit as mk
from vla_gen_bench.assets.builtin.objects_model import lathe_x, lying, lying_round, standing


@dataclass(frozen=True)
class Part:
    """One mesh of a shape.

    Attributes:
        mesh: The unpainted mesh.
        accent: Whether it has the darker shade.
        pieces: Convex point sets for collision; None = its own hull.
    """

    mesh: mk.Mesh
    accent: bool = False
    pieces: tuple[NDArray, ...] | None = None

    @property
    def collision(self) -> tuple[NDArray, ...]:
        return (self.mesh.vertices,) if self.pieces is None else self.pieces


Shape = Callable[[], list[Part]]


def _box(size: ArrayLike, x: float = 0, y: float = 0, z: float = 0, accent: bool = False) -> Part:
    """Box whose bottom is at height `z`."""
    return Part(mk.box(size, 1.5).moved(x, y, z + np.asarray(size)[2] / 2), accent)


def _turned(*profile: tuple[float, float], segments: int = 14, accent: bool = False) -> Part:
    """Convex body of revolution about z of (radius, z) points."""
    return Part(mk.lathe(profile, segments, 35), accent)


def _prism(polygon: ArrayLike, height: float, soft: float = 0.06) -> mk.Mesh:
    steps = ((1 - soft, 0), (1, 0.12 * height), (1, 0.88 * height), (1 - soft, height))
    return mk.extrude(np.asarray(polygon, float), steps)


def _corners(count: int, radius: float, start_deg: float = 0.0) -> NDArray:
    return mk.ring(count, start_deg)[:-1] * radius


def cube() -> list[Part]:
    return [_box((33, 33, 33))]


def brick() -> list[Part]:
    studs = [_turned((6, 24), (6, 28), (0, 28), segments=8, accent=True) for _ in range(3)]
    return [_box((64, 30, 24)), *(Part(stud.mesh.moved(x=x), True, ()) for stud, x in zip(studs, (-20, 0, 20)))]


def ball() -> list[Part]:
    mesh = mk.ellipsoid((19, 19, 19), 14, 9).moved(z=19)
    return [Part(mesh, False, (standing((-0.3, 9), (6, 15.5), (19, 19), (32, 15.5), (38, 7)),))]


def cylinder() -> list[Part]:
    return [_turned((0, 0), (16, 0), (17, 1.5), (17, 44), (16, 45.5), (0, 45.5))]


def cone() -> list[Part]:
    return [_turned((0, 0), (21, 0), (21, 4), (14.5, 5.5), (13, 29), (2, 48), (0, 48.5))]  # a band to grip


def pyramid() -> list[Part]:
    return [Part(mk.extrude(_corners(4, 30, 45), ((1, 0), (1, 4), (0.64, 5.5), (0.6, 27), (0.06, 44)), 15))]


def ring() -> list[Part]:
    angle = np.linspace(0, 2 * np.pi, 19)
    curve = np.stack([17 * np.cos(angle), 17 * np.sin(angle), 0 * angle + 8], axis=1)
    return [Part(mk.sweep(curve, np.full(19, 7.8), 8), False, (standing((0, 20), (5, 24.5), (11, 24.5), (16, 20)),))]


def star() -> list[Part]:
    tips, dents = _corners(5, 31, 90), _corners(5, 14, 126)
    polygon = np.stack([tips, dents], axis=1).reshape(-1, 2)
    kites = [np.array([(0, 0), dents[place - 1], tips[place], dents[place]]) for place in range(5)]
    pieces = tuple(np.concatenate([np.insert(kite, 2, z, 1) for z in (0, 22)]) for kite in kites)
    return [Part(_prism(polygon, 22), False, pieces)]


def cross() -> list[Part]:
    return [_box((62, 20, 22)), _box((20, 62, 22.4))]


def stick() -> list[Part]:
    mesh = lathe_x([(0, -48), (9.5, -47), (10.5, -44), (10.5, 44), (9.5, 47), (0, 48)], 12).moved(z=10.5)
    return [Part(mesh, False, (lying_round(10.5, (-48, 9.5), (-44, 10.5), (44, 10.5), (48, 9.5)),))]


def mushroom() -> list[Part]:
    cap = _turned((0, 21), (19, 21), (21, 24), (19, 31), (12, 37), (0, 40))
    return [_turned((0, 0), (11, 0), (9, 4), (9, 24), (0, 24), segments=10, accent=True), cap]


def wedge() -> list[Part]:
    triangle = np.array([(-30, 0), (30, 0), (-30, 36)], float) - (-10, 12)
    lying_down = _prism(triangle, 30).turned("x", 90)
    return [Part(lying_down.moved(z=12, y=15))]


def dome() -> list[Part]:
    return [_turned((0, 0), (23, 0), (23, 4), (20, 15), (12, 23), (0, 26))]


def spool() -> list[Part]:
    ends = [_turned((0, z), (20, z), (20, z + 7), (0, z + 7)) for z in (0, 31)]
    return [*ends, _turned((0, 5), (11, 5), (11, 33), (0, 33), accent=True)]


def skittle() -> list[Part]:
    body = _turned((0, 0), (14, 0), (17, 12), (15, 28), (7, 42), (0, 42))
    return [body, _turned((0, 40), (6, 41), (9.5, 49), (6, 57), (0, 58), segments=10, accent=True)]


def hexagon() -> list[Part]:
    return [Part(_prism(_corners(6, 24), 24))]


def tower() -> list[Part]:
    return [_box((40, 40, 16)), _box((28, 28, 15), z=16, accent=True), _box((17, 17, 14), z=31)]


def fish() -> list[Part]:
    body = _prism(_corners(14, 1) * (30, 14), 20).moved(x=8)
    tail = _prism(np.array([(-14, -16), (16, -4), (16, 4), (-14, 16)], float), 17).moved(x=-30)
    return [Part(body), Part(tail, True)]


def arch() -> list[Part]:
    return [_box((62, 24, 13), z=20), _box((16, 24, 21), x=-23), _box((16, 24, 21), x=23, accent=True)]


def heart() -> list[Part]:
    t = np.linspace(0, 2 * np.pi, 25)[:-1]
    across, along = 16 * np.sin(t) ** 3, 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [Part(_prism(np.stack([across, along + 2.5], axis=1)[::-1] * 1.5, 22))]


def bell() -> list[Part]:
    return [
        _turned((0, 0), (22, 0), (21, 4), (14, 18), (12, 32), (0, 38)),
        _turned((0, 36), (5, 37), (5, 44), (0, 45), segments=8, accent=True),
    ]


def dumbbell() -> list[Part]:
    balls = [
        Part(
            mk.ellipsoid((15, 17, 17), 12, 7).moved(x, 0, 17),
            False,
            (lying_round(17, (x - 15, 8), (x - 7, 15), (x + 7, 15), (x + 15, 8)),),
        )
        for x in (-28, 28)
    ]
    bar = lathe_x([(7, -22), (7, 22)], 10).moved(z=17)
    return [*balls, Part(bar, True, (lying((-20, 6, 11, 23), (20, 6, 11, 23)),))]


TRAIN: tuple[Shape, ...] = (
    cube,
    brick,
    ball,
    cylinder,
    cone,
    pyramid,
    ring,
    star,
    cross,
    stick,
    mushroom,
    wedge,
    dome,
    spool,
    skittle,
    hexagon,
    tower,
    fish,
)
HELD_OUT: tuple[Shape, ...] = (arch, heart, bell, dumbbell)
