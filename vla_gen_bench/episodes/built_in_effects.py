"""The built-in effects: the severities a suite may set and the parameters drawn from them. Imports no simulator."""

from __future__ import annotations

from typing import Any

from vla_gen_bench.episodes import geometry
from vla_gen_bench.episodes.action_effects import ACTION_EFFECTS
from vla_gen_bench.episodes.axes import Levels, Number
from vla_gen_bench.episodes.effect_spec import Draw, Drawing, EffectSpec
from vla_gen_bench.episodes.geometry import Footprint
from vla_gen_bench.episodes.image_effects import IMAGE_EFFECTS
from vla_gen_bench.episodes.scene_effects import SCENE_EFFECTS
from vla_gen_bench.episodes.spec import Placed

SETTLE_SUBSTEPS = 50
TELEPORT_MARGIN_STEPS = 2  # a teleported target may lie up to 3 cm outside the training square
ENVS = "vla_gen_bench.envs.effects"


def teleport(step: int, goal: Placed, keep_velocity: bool, settle_substeps: int = SETTLE_SUBSTEPS) -> dict[str, Any]:
    """Returns the params of a `reposition` effect: the target moves to `goal` after control step `step`."""
    return {
        "step": step,
        "position": list(goal.position),
        "quaternion": list(goal.quaternion),
        "keep_velocity": keep_velocity,
        "settle_substeps": settle_substeps,
    }


def placed(footprint: Footprint, height: float) -> Placed:
    """Returns the body of a footprint, spawned `height` metres above the world's origin."""
    x, y = footprint.xy
    return Placed(
        id=footprint.body.id,
        position=(round(x, 12), round(y, 12), height),
        quaternion=geometry.quaternion(footprint.yaw),
    )


def _overlay(name: str) -> Draw:
    def draw(episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
        texture = episode.stream(f"effects.{name}", episode.catalog.version).choice(episode.pool("textures", "unseen"))
        return {"texture": texture.id, "alpha": round(severities["alpha"] * texture.mix, 12)}

    return draw


def _reposition(episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
    """Draws a goal clear of everything on the table except the target itself, which leaves its place."""
    target, *others = episode.lying
    spare = geometry.fine_grid(), geometry.fine_grid(TELEPORT_MARGIN_STEPS)
    candidates = geometry.third_candidates(
        (episode.points(), *spare),
        target.body,
        target.yaw,
        others[0].xy,
        target.xy,
        others,
        severities["min_distance"],
    )
    goal = target._replace(xy=episode.stream("effects.reposition").choice(candidates))
    return teleport(severities["step"], placed(goal, geometry.TELEPORT_Z), keep_velocity=False)


ALPHA = {"alpha": Number(0.3, 0.0, 1.0)}
ALPHA_LEVELS = Levels(
    {"alpha": (0.1, 0.2, 0.3, 0.4, 0.5)}, "0.3 and 0.5 are the paper's weak and strong rows; the others lie between"
)
FOUNDING = (
    # A texture over robot and objects; a texture over the full image; a target teleported after control step `step`.
    EffectSpec("texture", "image", ALPHA, _overlay("texture"), f"{ENVS}.overlays:Texture", ALPHA_LEVELS),
    EffectSpec("noise", "image", ALPHA, _overlay("noise"), f"{ENVS}.overlays:Noise", ALPHA_LEVELS),
    EffectSpec(
        "reposition",
        "state",
        {"step": Number(5, 1, 1000, whole=True), "min_distance": Number(0.15, 0.05, 0.20)},
        _reposition,
        f"{ENVS}.reposition:Reposition",
    ),
)

BUILT_IN = (*FOUNDING, *SCENE_EFFECTS, *ACTION_EFFECTS, *IMAGE_EFFECTS)
