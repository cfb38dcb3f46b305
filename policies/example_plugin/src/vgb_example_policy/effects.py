"""Four effects of a third party, one of each kind. Importing this needs no simulator: suites are read without one."""

from vla_gen_bench.episodes.axes import Number
from vla_gen_bench.episodes.effects import EffectSpec

SIM = "vgb_example_policy.realise"  # imported when an environment realises an effect


def _camera(episode, severities):
    """Which way the camera goes round depends on the episode alone: a random number of the effect's own stream."""
    side = episode.stream("effects.example-camera").choice((-1.0, 1.0))
    return {"degrees": side * severities["degrees"]}


CAMERA = EffectSpec("example-camera", "scene", {"degrees": Number(5.0, 0.0, 15.0)}, _camera, f"{SIM}:Orbit")
DEADBAND = EffectSpec(
    "example-deadband", "action", {"metres": Number(0.002, 0.0, 0.05)}, lambda _, it: it, f"{SIM}:Deadband"
)
NUDGE = EffectSpec(
    "example-nudge",
    "state",
    {"step": Number(5, 1, 1000, whole=True), "speed": Number(0.3, 0.0, 1.0)},
    lambda _, it: it,
    f"{SIM}:Nudge",
)
STRIPES = EffectSpec("example-stripes", "image", {"every": Number(8, 2, 64, whole=True)}, None, f"{SIM}:Stripes")
