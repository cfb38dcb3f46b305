"""The builtin world: this package generates its meshes, images and robot, identical on every run."""

from __future__ import annotations

from pathlib import Path

from vla_gen_bench.episodes.catalog import Catalog

VERSION = "1"


def write_pack(root: Path) -> Catalog:
    """Writes all builtin assets under `root` and returns their catalogue."""
    from vla_gen_bench.assets.builtin import objects, receptacles, robot, tables, textures

    return Catalog(
        world="builtin",
        version=VERSION,
        objects=objects.write_objects(root),
        receptacles=receptacles.write_receptacles(root),
        tables=tables.write_tables(root),
        textures=textures.write_textures(root),
        robot_urdf=robot.write_robot(root)["urdf"],
    )
