"""Worlds: an asset pack, its physics settings, and a camera with size and shader."""

from __future__ import annotations

from dataclasses import dataclass

from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.protocol import CAMERAS

CAMERA, WRIST_CAMERA = "3rd_view_camera", "wrist_camera"  # names in an environment's observations
FIRST_VERSION = "1"  # version of data written before worlds had versions


@dataclass(frozen=True)
class Physics:
    """How PhysX solves contacts; the defaults are ManiSkill's, which the reference uses.

    Attributes:
        position_iterations: Solver iterations per substep.
        contact_offset: Distance in metres at which PhysX starts to compute contacts; the offsets of two bodies add up.
    """

    position_iterations: int = 15
    contact_offset: float = 0.02


@dataclass(frozen=True)
class World:
    """Physics and camera of a world; its assets are the pack of the same name.

    Attributes:
        width, height: Image size in pixels, unless the user or a policy requests another size.
        shader: SAPIEN shader pack. "default" is the reference's; "minimal" costs a third less on a CPU.
        version: Raised whenever the same spec and actions may end differently; results of versions are never mixed.
    """

    name: str
    width: int
    height: int
    shader: str
    cameras: tuple[str, ...] = CAMERAS
    version: str = FIRST_VERSION
    physics: Physics = Physics()

    @property
    def label(self) -> str:
        """Name and version for result headings: "builtin v2"."""
        return world_label(self.name, self.version)


LIGHT = Physics(position_iterations=4, contact_offset=0.005)  # reasons: docs/physics.md
WORLDS = {
    "builtin": World("builtin", 320, 240, "minimal", version="2", physics=LIGHT),  # 1: the reference's physics
    "pretrain": World("pretrain", 320, 240, "minimal", physics=LIGHT),
    "rl4vla": World("rl4vla", 640, 480, "default"),
}


def get_world(name: str) -> World:
    """Returns the world `name`; raises `UserError` with a suggestion for an unknown one."""
    if name not in WORLDS:
        raise UserError(f"unknown world '{name}'{suggest(name, WORLDS)}")
    return WORLDS[name]


def world_label(name: str, version: str) -> str:
    """Returns name and version for result headings, for example "builtin v2"."""
    return f"{name} v{version}"
