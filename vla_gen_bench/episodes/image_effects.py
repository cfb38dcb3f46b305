"""Effects on the image: sensor faults, lost frames, the target's colour, and removal of the image.

Sizes are relative to the image's width, so images of both worlds are disturbed equally.
"""

from __future__ import annotations

from typing import Any

from vla_gen_bench.episodes.axes import Levels, Number
from vla_gen_bench.episodes.effect_spec import Drawing, EffectSpec
from vla_gen_bench.episodes.scene_effects import draw_tint

REALISED = "vla_gen_bench.envs.effects.sensor"
IMAGENET_C = "ImageNet-C (Hendrycks and Dietterich, 2019)"
GREY = 114  # brightness of the patch: the usual padding value of image pipelines


def _as_written(_: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
    return dict(severities)


def _exposure(episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
    return {"stops": episode.stream("effects.exposure").choice((-1, 1)) * severities["stops"]}


def _occlusion(episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
    """Draws the patch's centre within the middle half of the image, where the task takes place."""
    stream = episode.stream("effects.occlusion")
    centre = [round(0.25 + 0.5 * stream.below(1001, draw) / 1000, 12) for draw in (0, 1)]
    return {"centre": centre, "area": round(severities["percent"] / 100, 12), "grey": GREY}


IMAGE_EFFECTS = (
    EffectSpec(
        "sensor_noise",
        "image",
        {"sigma": Number(0.12, 0.0, 1.0, unit="of full scale")},
        None,
        f"{REALISED}:SensorNoise",
        Levels({"sigma": (0.08, 0.12, 0.18, 0.26, 0.38)}, f"Gaussian noise of {IMAGENET_C}"),
    ),
    EffectSpec(
        "blur",
        "image",
        {"sigma": Number(0.006, 0.0, 0.05, unit="of the width")},
        _as_written,
        f"{REALISED}:Blur",
        Levels(
            {"sigma": (0.0025, 0.0045, 0.009, 0.0135, 0.018)},
            f"0.6 to 4 pixels at 224: the upper four are Gaussian blur 1, 2, 3, 4 of {IMAGENET_C}",
        ),
    ),
    EffectSpec(
        "jpeg",
        "image",
        {"quality": Number(18, 1, 100, whole=True)},
        _as_written,
        f"{REALISED}:Jpeg",
        Levels({"quality": (25, 18, 15, 10, 7)}, f"JPEG compression of {IMAGENET_C}"),
    ),
    EffectSpec(
        "exposure",
        "image",
        {"stops": Number(0.75, 0.0, 4.0, unit="stops")},
        _exposure,
        f"{REALISED}:Exposure",
        Levels(
            {"stops": (0.25, 0.5, 1.0, 1.5, 2.0)},
            "as light_intensity, at the sensor, where white clips; an automatic exposure is off by up to 2 stops",
        ),
    ),
    EffectSpec(
        "occlusion",
        "image",
        {"percent": Number(8.0, 0.0, 60.0, unit="% of the image")},
        _occlusion,
        f"{REALISED}:Occlusion",
        Levels(
            {"percent": (1.0, 3.0, 6.0, 10.0, 15.0)},
            "the training square is 8% of the image: 1% hides an eighth as much, 15% twice as much",
        ),
    ),
    EffectSpec(
        "frame_drop",
        "image",
        {"share": Number(0.35, 0.0, 1.0, unit="of frames")},
        None,
        f"{REALISED}:FrameDrop",
        Levels(
            {"share": (0.1, 0.2, 0.35, 0.5, 0.7)},
            "a lost frame repeats the last one; 0.1 is a busy wireless link, at 0.7 an image is 0.5 s old on average",
        ),
    ),
    EffectSpec(
        "target_colour",
        "image",
        {"share": Number(0.4, 0.0, 1.0)},
        draw_tint("target_colour"),
        f"{REALISED}:TargetColour",
        Levels(
            {"share": (0.2, 0.4, 0.6, 0.8, 1.0)},
            "how far the object's colour goes towards one drawn hue; at 1 it is that hue alone",
        ),
    ),
    EffectSpec("black_image", "image", {}, _as_written, f"{REALISED}:BlackImage"),
    EffectSpec("frozen_image", "image", {}, _as_written, f"{REALISED}:FrozenImage"),
    EffectSpec("no_state", "image", {}, _as_written, f"{REALISED}:NoState"),
)
