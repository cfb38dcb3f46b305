"""The pretraining world: colourful toys, receptacles, tables and overlay patterns that no evaluation uses.

`openvla-base` learns general features of robots, images and words here, as OpenVLA did on other data before the paper
fine-tuned it. Split "train" is for pretraining. Split "unseen" is the **development split**: `vgb eval --world
pretrain` runs any suite on it, so model sizes, budgets and data can be chosen without using evaluated pools.

Families and parameters differ from those of world `builtin`; a test verifies that nothing here is equal or near to an
unseen asset there. The 16 training objects and the plate of `builtin` are part of split "train": they are not held
out, and a policy can only learn their names from scenes with several of them.
"""

from __future__ import annotations

from pathlib import Path

from vla_gen_bench.episodes.catalog import Catalog

VERSION = "2"


def write_pack(root: Path) -> Catalog:
    """Writes all assets of the pretraining world under `root` and returns their catalogue."""
    from vla_gen_bench.assets.builtin import robot
    from vla_gen_bench.assets.pretrain import objects, receptacles, tables, textures

    return Catalog(
        world="pretrain",
        version=VERSION,
        objects=objects.write_objects(root),
        receptacles=receptacles.write_receptacles(root),
        tables=tables.write_tables(root),
        textures=textures.write_textures(root),
        robot_urdf=robot.write_robot(root)["urdf"],
    )
