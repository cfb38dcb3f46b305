"""Toys named by colour and shape, and the benchmark's training objects again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_gen_bench.assets.builtin import meshkit as mk
from vla_gen_bench.assets.builtin import objects as benchmark
from vla_gen_bench.assets.builtin import paint
from vla_gen_bench.assets.builtin.objects_model import Model, bands, grain
from vla_gen_bench.assets.pretrain.colours import COLOURS, darker
from vla_gen_bench.assets.pretrain.shapes import HELD_OUT, TRAIN, Shape

ATLAS = 32  # side in texels: toys are plain
HELD_OUT_COLOURS = ("red", "blue", "yellow")  # of the held-out shapes
DENSITY = 550.0  # kg / m^3, of wood
TOO_NEAR = frozenset(  # to an unseen object, see tests/episodes/test_pretrain_world.py
    {
        ("yellow", "ball"),
        ("yellow", "dome"),
        ("yellow", "hexagon"),
        ("red", "hexagon"),
        ("red", "spool"),
        ("white", "stick"),
    }
)


def write_objects(root: Path) -> list[dict]:
    """Writes all objects as `builtin` does and returns their entries, split "train" first.

    Split "unseen" holds one colour of each pretraining shape, so both words are known but not their combination, and
    four shapes that pretraining lacks.
    """
    known = [benchmark.write_object(root, build(), build.__name__, "train") for build in benchmark.TRAIN]
    toys = [_write(root, shape, colour, "train") for shape, colour in combinations(held_out=False)]
    return known + toys + [_write(root, shape, colour, "unseen") for shape, colour in combinations(held_out=True)]


def combinations(held_out: bool) -> list[tuple[Shape, str]]:
    """Returns the (shape, colour) pairs of one split: of each pretraining shape one colour is held out."""
    colours = list(COLOURS)
    absent = [(shape, colours[3 * place % len(colours)]) for place, shape in enumerate(TRAIN)]
    if held_out:
        pairs = absent + [(shape, colour) for shape in HELD_OUT for colour in HELD_OUT_COLOURS]
    else:
        pairs = [(shape, colour) for shape in TRAIN for colour in colours if (shape, colour) not in absent]
    return [(shape, colour) for shape, colour in pairs if (colour, shape.__name__) not in TOO_NEAR]


def _write(root: Path, shape: Shape, colour: str, split: str) -> dict:
    id = f"{colour}_{shape.__name__}"
    return benchmark.write_object(root, toy(shape, colour), id, split)


def toy(shape: Shape, colour: str) -> Model:
    """Returns a shape in a colour; size, shade and pattern are drawn from its name."""
    random = paint.stream("pretrain object", colour, shape.__name__)
    size = random.uniform(0.88, 1.08, 3) * random.uniform(0.95, 1.05)
    code = COLOURS[colour][random.integers(3)]
    atlas = mk.Atlas(ATLAS)
    regions = (
        atlas.add(_pattern(code, random)),
        atlas.add(bands((0, darker(code, 0.6)), (1, darker(code, 0.72)), height=4, width=4)),
    )
    parts = shape()
    meshes = [part.mesh.scaled(size).painted(regions[part.accent]) for part in parts]
    return Model(meshes, atlas, [piece * size for part in parts for piece in part.collision], DENSITY)


def _pattern(code: str, random: np.random.Generator) -> NDArray:
    """Returns the image of the main part: plain, banded, speckled or shaded, mostly in its colour."""
    kind, other = random.integers(4), darker(code, random.choice([0.62, 1.35]))
    if kind == 0:
        image = bands((0, code), (1, code), height=16, width=16)
    elif kind == 1:
        edges = np.linspace(0, 1, 9)
        image = bands(
            *((edge, (code, code, other)[place % 3]) for place, edge in enumerate(edges)), height=16, width=16
        )
    elif kind == 2:
        image = grain(bands((0, code), (1, code), height=16, width=16), 0.2, int(random.integers(2**31)), (2, 2))
    else:
        image = bands((0, darker(code, 0.7)), (0.5, code), (1, darker(code, 1.15)), height=16, width=16)
    return grain(image, 0.04, int(random.integers(2**31)))
