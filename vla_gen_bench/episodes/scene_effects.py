"""Effects on the scene: camera, light, the target's body, the table's surface.

Directions and signs are drawn once per episode; the magnitude comes only from the severity. The levels of one effect
therefore share their draws: level 3 of an episode goes one step further in the direction of level 2.
"""

from __future__ import annotations

import math
from typing import Any

from vla_gen_bench.episodes.axes import Levels, Number
from vla_gen_bench.episodes.effect_spec import Draw, Drawing, EffectSpec
from vla_gen_bench.episodes.streams import Stream

REALISED = "vla_gen_bench.envs.effects.scene_changes"
STEPS = 1 << 30


def _unit(stream: Stream, draw: int = 0) -> float:
    """Returns a number in [0, 1)."""
    return stream.below(STEPS, draw) / STEPS


def _direction(stream: Stream) -> tuple[float, float, float]:
    """Returns a unit vector, uniform on the sphere."""
    up, turn = 2 * _unit(stream) - 1, 2 * math.pi * _unit(stream, 1)
    level = math.sqrt(1 - up * up)
    return level * math.cos(turn), level * math.sin(turn), up


def _sign(stream: Stream) -> int:
    return stream.choice((-1, 1))


def _rounded(*values: float) -> list[float]:
    return [round(value, 12) for value in values]


def _camera_position(episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
    way = _direction(episode.stream("effects.camera_position"))
    return {"offset": _rounded(*(value * severities["metres"] for value in way))}


def _camera_rotation(episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
    axis, angle = _direction(episode.stream("effects.camera_rotation")), math.radians(severities["degrees"])
    return {"rotation": _rounded(*(value * angle for value in axis))}


def _camera_zoom(episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
    factor = 1 + severities["percent"] / 100
    return {"zoom": round(factor ** _sign(episode.stream("effects.camera_zoom")), 12)}


def _light_intensity(episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
    return {"factor": round(2.0 ** (_sign(episode.stream("effects.light_intensity")) * severities["stops"]), 12)}


def _light_direction(episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
    tilt, turn = math.radians(severities["degrees"]), 2 * math.pi * _unit(episode.stream("effects.light_direction"))
    level = math.sin(tilt)
    return {"direction": _rounded(level * math.cos(turn), level * math.sin(turn), -math.cos(tilt))}


def _hue(stream: Stream) -> tuple[float, float, float]:
    """Returns a pure colour whose channels have mean 1, so coloured light is as strong as white light."""
    turn = 6 * _unit(stream)
    channels = [min(max(abs((turn - shift) % 6 - 3) - 1, 0.0), 1.0) for shift in (0, 2, 4)]
    return tuple(3 * value / sum(channels) for value in channels)


def draw_tint(name: str) -> Draw:
    """Returns a draw of a colour gain: a drawn hue, mixed with white by the severity `share`."""

    def draw(episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
        share = severities["share"]
        return {"gain": _rounded(*(1 - share + share * value for value in _hue(episode.stream(f"effects.{name}"))))}

    return draw


def _target_scale(episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
    factor = 1 + severities["percent"] / 100
    return {"scale": round(factor ** _sign(episode.stream("effects.target_scale")), 12)}


def _as_written(_: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
    return dict(severities)


SCENE_EFFECTS = (
    EffectSpec(
        "camera_position",
        "scene",
        {"metres": Number(0.06, 0.0, 0.25, unit="m")},
        _camera_position,
        f"{REALISED}:CameraPosition",
        Levels(
            {"metres": (0.02, 0.04, 0.06, 0.09, 0.12)},
            "2 cm is a typical error when a camera is remounted by hand; at 12 cm, a quarter of its distance from the "
            "table, some of the training square leaves the image in 1 of 8 episodes",
        ),
    ),
    EffectSpec(
        "camera_rotation",
        "scene",
        {"degrees": Number(3.0, 0.0, 20.0, unit="degrees")},
        _camera_rotation,
        f"{REALISED}:CameraRotation",
        Levels(
            {"degrees": (1.0, 2.0, 4.0, 6.0, 8.0)},
            "1 degree moves the image by 5 of 320 pixels; at 8 the training square is still all in view",
        ),
    ),
    EffectSpec(
        "camera_zoom",
        "scene",
        {"percent": Number(10.0, 0.0, 60.0, unit="%")},
        _camera_zoom,
        f"{REALISED}:CameraZoom",
        Levels(
            {"percent": (4.0, 8.0, 14.0, 20.0, 28.0)},
            "a few percent is the spread within one model of camera; at 28% the training square is still all in view",
        ),
    ),
    EffectSpec(
        "light_intensity",
        "scene",
        {"stops": Number(0.75, 0.0, 4.0, unit="stops")},
        _light_intensity,
        f"{REALISED}:LightIntensity",
        Levels(
            {"stops": (0.25, 0.5, 1.0, 1.5, 2.0)},
            "one stop doubles or halves the light: from a lamp switched on to a cloud before the window",
        ),
    ),
    EffectSpec(
        "light_direction",
        "scene",
        {"degrees": Number(30.0, 0.0, 85.0, unit="degrees")},
        _light_direction,
        f"{REALISED}:LightDirection",
        Levels(
            {"degrees": (15.0, 30.0, 45.0, 60.0, 75.0)},
            "the main light leaves the vertical in equal steps; 90 degrees would light the table from its edge",
        ),
    ),
    EffectSpec(
        "light_colour",
        "scene",
        {"share": Number(0.2, 0.0, 1.0)},
        draw_tint("light_colour"),
        f"{REALISED}:LightColour",
        Levels(
            {"share": (0.1, 0.2, 0.3, 0.45, 0.6)},
            "0.2 towards orange is about daylight to a 4000 K lamp; 0.6 is a coloured stage light",
        ),
    ),
    EffectSpec(
        "light_shadow",
        "scene",
        {"share": Number(0.6, 0.0, 1.0, unit="of the main light")},
        _as_written,
        f"{REALISED}:LightShadow",
        Levels(
            {"share": (0.2, 0.4, 0.6, 0.8, 1.0)},
            "from a faint shadow to one that blocks all of the main light, which is 65% of the light on the "
            "table: pixel values there fall to 0.62 of what they were",
        ),
    ),
    EffectSpec(
        "target_scale",
        "scene",
        {"percent": Number(10.0, 0.0, 40.0, unit="%")},
        _target_scale,
        f"{REALISED}:TargetScale",
        Levels(
            {"percent": (4.0, 8.0, 12.0, 16.0, 20.0)},
            "the widest objects are 45 mm (rl4vla: 51), the fingers open to 74: at 20% 10 mm (6) are left on each side",
        ),
    ),
    EffectSpec(
        "target_mass",
        "scene",
        {"factor": Number(2.0, 0.1, 20.0, unit="x")},
        _as_written,
        f"{REALISED}:TargetMass",
        Levels({"factor": (1.5, 2.0, 3.0, 5.0, 8.0)}, "from an empty to a full bottle is a factor of about 8"),
    ),
    EffectSpec(
        "target_friction",
        "scene",
        {"coefficient": Number(0.5, 0.0, 1.0)},
        _as_written,
        f"{REALISED}:TargetFriction",
        Levels(
            {"coefficient": (0.8, 0.6, 0.45, 0.3, 0.2)},
            "training has 1.0 (rubber); 0.5 is wood, 0.2 polished plastic",
        ),
    ),
    EffectSpec(
        "table_friction",
        "scene",
        {"coefficient": Number(0.15, 0.0, 1.0)},
        _as_written,
        f"{REALISED}:TableFriction",
        Levels(
            {"coefficient": (0.25, 0.2, 0.15, 0.1, 0.05)},
            "training has 0.3 (a painted table); 0.05 is wet glass",
        ),
    ),
)
