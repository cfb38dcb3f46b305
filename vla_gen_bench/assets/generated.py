"""The worlds that this package generates: one set of assets each, of the same kinds, by modules of the same names."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from vla_gen_bench.episodes.catalog import Catalog

GENERATED = {"builtin": "1", "pretrain": "2"}  # world, also its package below `assets` -> version of its catalogue
KINDS = ("objects", "receptacles", "tables", "textures")


class Known(NamedTuple):
    """What a generated pack should be.

    Attributes:
        content: Digest of its files' contents (`assets/content.py`); a change of the generator changes it.
        stated: How logs state it: the digest of the files' bytes where the published logs were made.
    """

    content: str
    stated: str


KNOWN = {
    "builtin": Known("3c37fc312db8f898", "79e6ba89b867036e"),
    "pretrain": Known("536af2c2a1d29968", "9b7d9b48b0663ef1"),
}


def write_pack(world: str, root: Path) -> Catalog:
    """Writes all assets of a generated world under `root` and returns their catalogue; every run makes the same."""
    from vla_gen_bench.assets.builtin.robot import write_robot  # all worlds share the robot

    rows = {kind: _writer(world, kind)(root) for kind in KINDS}
    return Catalog(world=world, version=GENERATED[world], **rows, robot_urdf=write_robot(root)["urdf"])


def _writer(world: str, kind: str):
    """Returns `write_<kind>` of the module that makes a world's assets of that kind."""
    return getattr(import_module(f"vla_gen_bench.assets.{world}.{kind}"), f"write_{kind}")
