"""Scene effects: camera, light, the target's body, the table's surface. Each maps one `SceneSetup` to another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from scipy.spatial.transform import Rotation

from vla_gen_bench.envs.effects.setup import LightSetup, SceneSetup


class SceneChange:
    """A scene effect with independent rows; subclasses change one setup."""

    kind: ClassVar[str] = "scene"

    def __init__(self, env: Any, rows: list[int], params: list[dict[str, Any]]) -> None:
        self._params = params

    def apply(self, setups: list[SceneSetup]) -> list[SceneSetup]:
        return [self.changed(setup, **params) for setup, params in zip(setups, self._params, strict=True)]

    def changed(self, setup: SceneSetup, **params: Any) -> SceneSetup:
        """Returns the setup of one sub-scene with this effect applied."""
        raise NotImplementedError


class CameraPosition(SceneChange):
    """Moves the camera by `offset`, metres along the base link's axes."""

    def changed(self, setup: SceneSetup, offset: list[float]) -> SceneSetup:
        position = tuple(float(a + b) for a, b in zip(setup.camera.position, offset, strict=True))
        return replace(setup, camera=replace(setup.camera, position=position))


class CameraRotation(SceneChange):
    """Turns the camera by the rotation vector `rotation`, radians, about its own axes: forward, left, up."""

    def changed(self, setup: SceneSetup, rotation: list[float]) -> SceneSetup:
        turned = Rotation.from_quat(setup.camera.quaternion, scalar_first=True) * Rotation.from_rotvec(rotation)
        quaternion = tuple(turned.as_quat(scalar_first=True).tolist())
        return replace(setup, camera=replace(setup.camera, quaternion=quaternion))


class CameraZoom(SceneChange):
    """Multiplies the focal length by `zoom`."""

    def changed(self, setup: SceneSetup, zoom: float) -> SceneSetup:
        return replace(setup, camera=replace(setup.camera, zoom=setup.camera.zoom * zoom))


def _coloured(setup: SceneSetup, gain: list[float]) -> SceneSetup:
    def times(colour: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(float(a * b) for a, b in zip(colour, gain, strict=True))

    lights = tuple(replace(light, colour=times(light.colour)) for light in setup.lights)
    return replace(setup, ambient=times(setup.ambient), lights=lights)


class LightIntensity(SceneChange):
    """Multiplies all light by `factor`."""

    def changed(self, setup: SceneSetup, factor: float) -> SceneSetup:
        return _coloured(setup, [factor] * 3)


class LightColour(SceneChange):
    """Multiplies the channels of all light by `gain`."""

    def changed(self, setup: SceneSetup, gain: list[float]) -> SceneSetup:
        return _coloured(setup, gain)


class LightDirection(SceneChange):
    """Sets the direction of the main light to `direction`, world frame."""

    def changed(self, setup: SceneSetup, direction: list[float]) -> SceneSetup:
        main, *others = setup.lights
        return replace(setup, lights=(replace(main, direction=tuple(direction)), *others))


class LightShadow(SceneChange):
    """Lets bodies keep `share` of the main light off what lies below them."""

    def changed(self, setup: SceneSetup, share: float) -> SceneSetup:
        return replace(setup, shadow=share)


class TargetScale(SceneChange):
    """Multiplies the target's size by `scale`; its mass follows its volume."""

    def changed(self, setup: SceneSetup, scale: float) -> SceneSetup:
        return setup.with_body("target", scale=setup.body("target").scale * scale)


class TargetMass(SceneChange):
    """Multiplies the target's mass by `factor`."""

    def changed(self, setup: SceneSetup, factor: float) -> SceneSetup:
        return setup.with_body("target", density=setup.body("target").density * factor)


class TargetFriction(SceneChange):
    """Sets the target's coefficient of friction."""

    def changed(self, setup: SceneSetup, coefficient: float) -> SceneSetup:
        return setup.with_body("target", friction=coefficient)


class TableFriction(SceneChange):
    """Sets the table's coefficient of friction."""

    def changed(self, setup: SceneSetup, coefficient: float) -> SceneSetup:
        return replace(setup, table_friction=coefficient)


def irradiance(ambient: tuple[float, ...], lights: tuple[LightSetup, ...]) -> np.ndarray:
    """Returns the irradiance [3] on a horizontal surface: ambient plus each light times the cosine of its angle."""
    total = np.array(ambient, float)
    for light in lights:
        direction = np.array(light.direction, float)
        total += np.array(light.colour) * max(0.0, -direction[2] / np.linalg.norm(direction))
    return total
