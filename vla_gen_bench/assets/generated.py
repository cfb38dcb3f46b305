"""The worlds that this package generates: one set of assets each, of the same kinds, by modules of the same names."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from vla_gen_bench.episodes.catalog import Catalog

GENERATED = {"builtin": "1", "pretrain": "2"}  # world, also its package below `assets` -> version of its catalogue
KINDS = ("objects", "receptacles", "tables", "textures")


def write_pack(world: str, root: Path) -> Catalog:
    """Writes all assets of a generated world under `root` and returns their catalogue; every run writes the same."""
    from vla_gen_bench.assets.builtin.robot import write_robot  # all worlds share the robot

    rows = {kind: _writer(world, kind)(root) for kind in KINDS}
    return Catalog(world=world, version=GENERATED[world], **rows, robot_urdf=write_robot(root)["urdf"])


def _writer(world: str, kind: str):
    """Returns `write_<kind>` of the module that makes a world's assets of that kind."""
    return getattr(import_module(f"vla_gen_bench.assets.{world}.{kind}"), f"write_{kind}")
