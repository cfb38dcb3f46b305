"""`SceneSetup`: everything a scene is built from except the bodies' ids and poses. Scene effects modify it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vla_gen_bench.envs import robot

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class CameraSetup:
    """The third-person camera.

    Attributes:
        position: On the robot's base link, metres: x away from the base over the table, y left, z up.
        quaternion: wxyz; the camera looks along its x axis, y left, z up.
        zoom: Factor on the focal length; above 1 the field of view is narrower.
    """

    position: tuple[float, float, float] = robot.CAMERA_POSITION
    quaternion: tuple[float, float, float, float] = robot.CAMERA_QUATERNION
    zoom: float = 1.0


@dataclass(frozen=True)
class LightSetup:
    """A directional light: where it shines to (world frame, any length) and its colour (1 = full)."""

    direction: tuple[float, float, float]
    colour: Colour


@dataclass(frozen=True)
class BodySetup:
    """How a body differs from its row of the catalogue.

    Attributes:
        scale: Size factor, about the actor's origin.
        density: Density factor, in addition to the effect of `scale` on the mass.
        friction: Friction of its surface; None = `BODY_FRICTION`.
    """

    scale: float = 1.0
    density: float = 1.0
    friction: float | None = None


AS_IT_IS = BodySetup()
LIGHTS = (
    LightSetup((0, 0, -1), (2.2, 2.2, 2.2)),
    LightSetup((-1, -0.5, -1), (0.7, 0.7, 0.7)),
    LightSetup((1, 1, -1), (0.7, 0.7, 0.7)),
)
"""One strong light from above, two weak ones from the sides; no shadows: the reference's."""


@dataclass(frozen=True)
class SceneSetup:
    """The setup of one sub-scene.

    Attributes:
        camera, ambient, lights: Camera and lighting.
        bodies: Role ("target", "receptacle", "distractor_object_0", ...) -> its changes; only for changed bodies.
        table_friction: Friction of the table's surface; None = ManiSkill's default material.
        shadow: Share of the main light, the first, that bodies keep off what lies below them.
    """

    camera: CameraSetup = CameraSetup()
    ambient: Colour = (0.3, 0.3, 0.3)
    lights: tuple[LightSetup, ...] = LIGHTS
    bodies: Mapping[str, BodySetup] = field(default_factory=dict)
    table_friction: float | None = None
    shadow: float = 0.0

    def body(self, role: str) -> BodySetup:
        """Returns how the body in `role` differs from the catalogue."""
        return self.bodies.get(role, AS_IT_IS)

    def with_body(self, role: str, **changes: object) -> SceneSetup:
        """Returns the setup with fields of one body changed."""
        return replace(self, bodies={**self.bodies, role: replace(self.body(role), **changes)})


STANDARD = SceneSetup()
