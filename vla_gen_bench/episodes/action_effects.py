"""Effects on actions, between the policy and the controller. The log keeps the policy's own action."""

from __future__ import annotations

from typing import Any

from vla_gen_bench.episodes.axes import Levels, Number
from vla_gen_bench.episodes.effect_spec import Drawing, EffectSpec

REALISED = "vla_gen_bench.envs.effects.actuation"


def _gain(episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
    sign = episode.stream("effects.action_gain").choice((-1, 1))
    return {"gain": round(1 + sign * severities["percent"] / 100, 12)}


ACTION_EFFECTS = (
    EffectSpec(
        "latency",
        "action",
        {"steps": Number(1, 0, 20, whole=True, unit="control steps")},
        lambda _, severities: dict(severities),
        f"{REALISED}:Latency",
        Levels(
            {"steps": (1, 2, 3, 4, 5)},
            "a control step is 0.2 s: one is a slow camera or a 7B model on one GPU, five a model far away; the "
            "expert, which foresees nothing, itself reaches 14, 5, 0, 0 and 0 of 16",
        ),
    ),
    EffectSpec(
        "action_noise",
        "action",
        {
            "metres": Number(0.004, 0.0, 0.05, unit="m"),
            "radians": Number(0.02, 0.0, 0.5, unit="rad"),
        },
        None,
        f"{REALISED}:ActionNoise",
        Levels(
            {"metres": (0.0005, 0.001, 0.002, 0.003, 0.004), "radians": (0.0025, 0.005, 0.01, 0.015, 0.02)},
            "per step and axis, adding up in the commanded pose; 1 mm is the repeatability of a WidowX; at twice level "
            "5 the expert itself falls to 7 of 16",
        ),
    ),
    EffectSpec(
        "action_gain",
        "action",
        {"percent": Number(20.0, 0.0, 90.0, unit="%")},
        _gain,
        f"{REALISED}:ActionGain",
        Levels(
            {"percent": (10.0, 20.0, 30.0, 40.0, 50.0)},
            "10% is an uncalibrated robot, 50% a policy whose action statistics are another robot's",
        ),
    ),
)
