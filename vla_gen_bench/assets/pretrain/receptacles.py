"""Flat bodies to put objects on, named by colour and kind, plus the benchmark's plate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vla_gen_bench.assets.builtin import meshkit, paint
from vla_gen_bench.assets.builtin import receptacles as benchmark
from vla_gen_bench.assets.builtin.receptacles import Receptacle, disc, sheet, slab
from vla_gen_bench.assets.pretrain.colours import COLOURS, darker


class Kind(NamedTuple):
    """A shape of receptacle; `outline` takes a size in millimetres."""

    outline: Callable[[float], np.ndarray]
    steps: tuple[tuple[float, float], ...]


RIM = ((0.78, 0), (0.92, 2.5), (1.0, 8), (0.985, 8.8), (0.95, 8.4), (0.72, 3.5))


def _corners(count: int, start_deg: float = 0.0) -> Callable[[float], np.ndarray]:
    return lambda size: meshkit.ring(count, start_deg)[:-1] * size / 2


TRAIN = {
    "mat": Kind(lambda size: sheet(size, size * 0.8, 8), slab(3.5)),
    "coaster": Kind(lambda size: disc(size * 0.88), slab(6)),
    "tile": Kind(lambda size: sheet(size * 0.86, size * 0.86, 1), slab(9)),
    "dish": Kind(lambda size: disc(size), RIM),
    "cushion": Kind(lambda size: sheet(size * 0.9, size * 0.9, 16), ((0.86, 0), (1.0, 5), (1.0, 8), (0.84, 13))),
    "pad": Kind(_corners(6, 30), slab(7)),
    "slab": Kind(lambda size: sheet(size, size * 0.66, 2), slab(11)),
    "stand": Kind(_corners(8, 22.5), ((1.0, 0), (0.9, 4), (0.9, 8), (1.0, 12))),
}
HELD_OUT = {
    "oval": Kind(lambda size: disc(size) * (0.72, 1.0), slab(6)),
    "triangle": Kind(_corners(3, 180), slab(7)),
}
ARTS = 6
TOO_NEAR = frozenset(  # to an unseen receptacle, see tests/episodes/test_pretrain_world.py
    {
        ("oval", "red"), ("pad", "white"), ("tile", "white"), ("slab", "white"), ("pad", "black"), ("cushion", "white"),
        ("stand", "orange"), ("stand", "white"),
    }
)  # fmt: skip


def combinations(held_out: bool) -> list[tuple[str, str]]:
    """Returns the (kind, colour) pairs of one split, six colours of each pretraining kind."""
    colours = list(COLOURS)
    if held_out:
        absent = [(kind, colours[(place + 7) % 10]) for place, kind in enumerate(TRAIN)]
        pairs = absent + [(kind, colour) for kind in HELD_OUT for colour in ("red", "blue", "green", "yellow")]
    else:
        pairs = [(kind, colours[(place + step) % 10]) for place, kind in enumerate(TRAIN) for step in range(6)]
    return [pair for pair in pairs if pair not in TOO_NEAR]


def write_receptacles(root: Path) -> list[dict]:
    """Writes all receptacles as `builtin` does and returns their entries, split "train" first."""
    entries = [benchmark.write_receptacle(root, benchmark.RECEPTACLES[0], "train")]
    for split, held_out in (("train", False), ("unseen", True)):
        entries += [benchmark.write_receptacle(root, receptacle(*pair), split) for pair in combinations(held_out)]
    return entries


def receptacle(kind: str, colour: str) -> Receptacle:
    """Returns one receptacle; size, shade and art are drawn from its name."""
    random = paint.stream("pretrain receptacle", kind, colour)
    outline, steps = {**TRAIN, **HELD_OUT}[kind]
    size = random.uniform(96, 122)
    return Receptacle(f"{colour}_{kind}", art(colour, random), outline(size), steps, mass=0.2)


def art(colour: str, random: np.random.Generator) -> benchmark.Art:
    """Returns a receptacle's appearance from above: mostly its colour, with one of six ornaments."""
    code = darker(COLOURS[colour][random.integers(3)], 0.88)
    bright = colour in ("white", "yellow", "pink", "orange")
    other = (
        darker(code, 0.45)
        if bright
        else darker(COLOURS[("white", "yellow", "orange", "pink")[random.integers(4)]][0], 0.85)
    )
    main, ink = paint.rgb(code), paint.rgb(other)
    kind, phase, pitch, seed = (
        int(random.integers(ARTS)),
        random.uniform(0, 180),
        random.uniform(14, 26),
        int(random.integers(99)),
    )

    def drawn(r: np.ndarray, d: np.ndarray) -> np.ndarray:
        u, v = paint.turn(r, d, phase)
        radius, angle = np.hypot(r, d), np.arctan2(d, r)
        masks = (
            np.zeros_like(r),
            np.abs(radius - 34) < 3,
            np.abs(u / pitch % 1 - 0.5) < 0.16,
            (np.abs(u) < 3) | (np.abs(v) < 3),
            (paint.edge(u, pitch) ** 2 + paint.edge(v, pitch) ** 2 < 16) + 0.0,
            (np.sin(5 * angle) > 0.75) & (radius > 12) & (radius < 42),
        )
        cloth = main * (0.88 + 0.24 * paint.noise(r, d, 12, seed, "grain"))[..., None]
        return paint.mix(cloth, ink, masks[kind])

    return drawn
