"""Samples a grounding scene before rendering: the things on the table, and the arm's pose."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vla_gen_bench.episodes.catalog import Body, Catalog, load_catalog
from vla_gen_bench.episodes.geometry import CENTRE, Footprint, gap, quaternion
from vla_gen_bench.episodes.spec import Placed

STREAM = 0x6E0
TABLE_TOP_M = 0.870
OBJECTS, RECEPTACLES = (1, 2, 2, 3, 3, 4), (1, 1, 2, 2, 3)  # counts, sampled uniformly from these
MOST_THINGS = max(OBJECTS) + max(RECEPTACLES)
REACH_M = 0.125  # half the edge of the square that contains them; the benchmark's is 0.075, its ring 0.105
GAP_M = 0.006  # between two footprints
TRIES = 60  # placements tried for a thing before it is left out
ALIKE = 0.5  # fraction of scenes whose objects share a word with the first one
FAMILIAR = 0.35  # fraction of pretraining scenes with only the benchmark's training objects; same for its plate
OFFSETS_RAD = (0.45, 0.35, 0.35, 0.35, 0.35, 0.8)  # maximum offset of each joint from its usual angle
OPEN_M, SHUT_M = 0.037, 0.015  # finger joints


@dataclass(frozen=True)
class Scene:
    """A still scene.

    Attributes:
        objects, receptacles: World frame; things rest on the table.
        joint_offset: Radians, added to the arm's usual joint angles.
        fingers: Of each finger joint, metres.
    """

    objects: tuple[Placed, ...]
    receptacles: tuple[Placed, ...]
    joint_offset: tuple[float, ...]
    fingers: float


def draw_scene(catalog: Catalog, split: str, seed: int, index: int) -> Scene:
    """Returns scene `index` of `seed` from a world's "train" or "unseen" pool; equal arguments give equal scenes.

    All names in a scene differ.
    """
    random = np.random.default_rng((STREAM, seed, index))
    lying: list[Footprint] = []
    counts = {"objects": random.choice(OBJECTS), "receptacles": random.choice(RECEPTACLES)}
    placed: dict[str, list[Placed]] = {}
    for kind in ("receptacles", "objects"):
        placed[kind] = []
        for body in _chosen(_source(catalog, kind, split, random), int(counts[kind]), random):
            footprint = _place(body, lying, random)
            if footprint is not None:
                lying.append(footprint)
                placed[kind].append(_resting(footprint))
    offsets = random.uniform(-1, 1, 6) * OFFSETS_RAD
    fingers = OPEN_M if random.random() < 0.75 else SHUT_M
    return Scene(tuple(placed["objects"]), tuple(placed["receptacles"]), tuple(offsets.tolist()), fingers)


def _source(catalog: Catalog, kind: str, split: str, random: np.random.Generator) -> list[Body]:
    """Returns the candidates; without this, the benchmark's few training assets would rarely appear."""
    pool = [body for body in getattr(catalog, kind) if body.split == split]
    familiar = [body for body in pool if body.id in _familiar(kind)]
    return familiar if familiar and random.random() < FAMILIAR else pool


@lru_cache(maxsize=None)
def _familiar(kind: str) -> frozenset[str]:
    return frozenset(load_catalog("builtin").ids(kind, "train"))


def _chosen(pool: list[Body], count: int, random: np.random.Generator) -> list[Body]:
    """Returns bodies with different names; in some scenes all share a word with the first one."""
    first = pool[random.integers(len(pool))]
    words = set(first.name.split())
    alike = [body for body in pool if words & set(body.name.split())]
    source = alike if random.random() < ALIKE and len(alike) > count else pool
    chosen = {first.name: first}
    for place in random.permutation(len(source)):
        if len(chosen) < count:
            chosen.setdefault(source[place].name, source[place])
    return list(chosen.values())


def _place(body: Body, lying: list[Footprint], random: np.random.Generator) -> Footprint | None:
    """Returns a free place, None if none was found."""
    for _ in range(TRIES):
        x, y = random.uniform(-REACH_M, REACH_M, 2) + CENTRE
        there = Footprint(body, (float(x), float(y)), float(random.uniform(-math.pi, math.pi)))
        if all(gap(there, other) >= GAP_M for other in lying):
            return there
    return None


def _resting(footprint: Footprint) -> Placed:
    height = TABLE_TOP_M - footprint.body.bbox_min[2]
    return Placed(id=footprint.body.id, position=(*footprint.xy, height), quaternion=quaternion(footprint.yaw))
