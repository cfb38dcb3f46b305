"""The catalogue of a world: which assets exist, their split and sizes. Names and numbers only, no files."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Literal

from vla_gen_bench.episodes.spec import Frozen, Vector3, digest_of
from vla_gen_bench.errors import UserError, suggest

Split = Literal["train", "unseen"]


class Body(Frozen):
    """A graspable object or a receptacle.

    Attributes:
        id: Unique within its kind.
        name: Its name in instructions.
        split: "train" for the in-distribution pool, "unseen" for the held-out pool.
        density: kg / m^3 of the collision shapes.
        bbox_min, bbox_max: Extent of the mesh in its own frame, metres.
        visual, collision: Files relative to the pack's root.
    """

    id: str
    name: str
    split: Split
    density: float
    bbox_min: Vector3
    bbox_max: Vector3
    visual: str
    collision: str


class Table(Frozen):
    """A table image, 640x480, as the benchmark camera would see the empty table."""

    id: str
    name: str
    split: Split
    image: str


class Texture(Frozen):
    """An overlay texture; `mix` scales the strength an effect sets (0 = no effect)."""

    id: str
    name: str
    split: Split
    mix: float
    image: str


class Catalog(Frozen):
    """All assets of one world, each list in a fixed order.

    `version` changes whenever a list does. It is part of every random stream's key, so a draw never silently
    selects a different asset.
    """

    world: str
    version: str
    objects: tuple[Body, ...]
    receptacles: tuple[Body, ...]
    tables: tuple[Table, ...]
    textures: tuple[Texture, ...]
    robot_urdf: str

    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))

    def ids(self, kind: str, split: str | None = None) -> list[str]:
        """Returns the ids of `kind` ("objects", "receptacles", "tables", "textures"), of one split or all."""
        return [item.id for item in getattr(self, kind) if split is None or item.split == split]

    def get(self, kind: str, id: str) -> Body | Table | Texture:
        """Returns the asset `id` of `kind`; raises `UserError` for an unknown id."""
        for item in getattr(self, kind):
            if item.id == id:
                return item
        raise UserError(f"world '{self.world}': no {kind[:-1]} '{id}'{suggest(id, self.ids(kind))}")


@lru_cache(maxsize=None)
def load_catalog(world: str) -> Catalog:
    """Returns the catalogue shipped for `world`; raises `UserError` for an unknown world."""
    if world not in worlds():
        raise UserError(f"unknown world '{world}'{suggest(world, worlds())}")
    file = resources.files("vla_gen_bench.episodes") / "catalogs" / f"{world}.json"
    return Catalog.model_validate(json.loads(file.read_text(encoding="utf-8")))


def worlds() -> list[str]:
    """Returns the names of the worlds that a catalogue is shipped for."""
    folder = resources.files("vla_gen_bench.episodes") / "catalogs"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".json"))
