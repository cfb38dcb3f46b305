"""A world: an asset pack seen through a camera of a given size and shader."""

from __future__ import annotations

from dataclasses import dataclass

from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.protocol import CAMERAS

CAMERA, WRIST_CAMERA = "3rd_view_camera", "wrist_camera"  # their names in an environment's observations


@dataclass(frozen=True)
class World:
    """Camera settings of a world; its assets are the pack of the same name.

    Attributes:
        width, height: Of its images in pixels, unless the user or a policy asks for another size.
        shader: SAPIEN shader pack. "default" is the reference's; "minimal" costs a third less on a CPU.
    """

    name: str
    width: int
    height: int
    shader: str
    cameras: tuple[str, ...] = CAMERAS


WORLDS = {
    "builtin": World("builtin", 320, 240, "minimal"),
    "pretrain": World("pretrain", 320, 240, "minimal"),
    "rl4vla": World("rl4vla", 640, 480, "default"),
}


def get_world(name: str) -> World:
    """Returns the world `name`; raises `UserError` with a suggestion for an unknown one."""
    if name not in WORLDS:
        raise UserError(f"unknown world '{name}'{suggest(name, WORLDS)}")
    return WORLDS[name]
