"""Effects: named disturbances of the scene, the action, the state or the image. One `EffectSpec` says all of one.

An installed package adds an effect through the entry point group `vla_gen_bench.effects`: name -> an `EffectSpec`, or a
class with `kind` and `apply`, whose params then pass unchecked. A suite may also name one as `module:attr`, without
any installation. A plug-in is imported where a suite or an episode names it, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Literal, Protocol

from vla_gen_bench.episodes.axes import Levels, Number
from vla_gen_bench.episodes.catalog import Catalog
from vla_gen_bench.episodes.geometry import Footprint, Point
from vla_gen_bench.episodes.streams import POOLS_VERSION, Stream
from vla_gen_bench.errors import UserError, suggest

GROUP = "vla_gen_bench.effects"
KINDS = ("scene", "action", "state", "image")
Kind = Literal["scene", "action", "state", "image"]


class Drawing(Protocol):
    """The episode an effect's `draw` draws for; axes are settled by then.

    Attributes:
        catalog: Of the episode's world.
        lying: Footprints on the table: target, receptacle, then distractors.
    """

    catalog: Catalog
    lying: list[Footprint]

    def stream(self, axis: str, version: str = POOLS_VERSION) -> Stream:
        """Returns the episode's random numbers for `axis`; an effect's own axis is "effects.<name>"."""

    def pool(self, kind: str, split: str) -> tuple[Any, ...]:
        """Returns the catalogue rows of `kind` ("objects", "textures", ...) in `split` ("train", "unseen")."""

    def points(self) -> tuple[Point, ...]:
        """Returns the points of the episode's layout, world frame, metres."""


Draw = Callable[[Drawing, dict[str, Any]], dict[str, Any]]


def seeded(name: str) -> Draw:
    """Returns a draw that passes severities on and adds `seed`, an integer that depends on the episode alone."""
    return lambda episode, severities: {"seed": episode.stream(f"effects.{name}").below(2**31), **severities}


@dataclass(frozen=True)
class EffectSpec:
    """Everything there is to know about an effect.

    Attributes:
        name: As suites write it; also the key of its random numbers, "effects.<name>".
        kind: What it changes: the "scene" before the episode, every "action", the "state" after a control step, or
            every "image". See `vla_gen_bench.envs.effects` for what `apply` must offer.
        severities: What a suite may set, and in which range; None passes on whatever is written.
        draw: Maps the severities to the params stored in the episode's spec; None adds a `seed` to them.
        apply: A class, or "module:attr" of one, imported when an environment realises the effect. It is built once
            per episode as `apply(env, rows, params)`.
        levels: Severities of the levels 1 to 5 and why these; None for an effect without levels.
        worlds: Those that can realise it; None = all.
    """

    name: str
    kind: Kind
    severities: Mapping[str, Number] | None = field(default_factory=lambda: MappingProxyType({}))
    draw: Draw | None = None
    apply: type | str = ""
    levels: Levels | None = None
    worlds: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"effect '{self.name}': kind {self.kind!r}; expected one of {', '.join(KINDS)}")

    def drawn(self, episode: Drawing, severities: dict[str, Any]) -> dict[str, Any]:
        """Returns the params of this effect in `episode`."""
        return (self.draw or seeded(self.name))(episode, severities)

    def check_world(self, world: str) -> None:
        """Raises `UserError` if `world` cannot realise the effect."""
        if self.worlds is not None and world not in self.worlds:
            can = ", ".join(self.worlds)
            raise UserError(f"effect '{self.name}': world '{world}' cannot realise it; expected {can}")

    @property
    def factory(self) -> type:
        """The class that realises the effect."""
        return _load(self.apply, f"effect '{self.name}'") if isinstance(self.apply, str) else self.apply


def find_effect(name: str) -> EffectSpec:
    """Returns the effect `name`: built in, `module:attr`, or of an installed package.

    Raises:
        UserError: There is none of that name, or what the package offers is no effect.
    """
    built_in = built_in_effects()
    if name in built_in:
        return built_in[name]
    if ":" in name:
        return _adopted(name, _load(name, f"effect '{name}'"))
    points = plugin_points()
    if name not in points:
        raise UserError(f"unknown effect '{name}'{suggest(name, [*built_in, *points])}")
    return _adopted(name, _load(points[name], f"effect '{name}'"))


def known_effects() -> list[str]:
    """Returns the names of all effects, built in and installed; nothing is imported."""
    return [*built_in_effects(), *plugin_points()]


@lru_cache(maxsize=1)
def plugin_points() -> dict[str, EntryPoint]:
    """Returns the effects that installed packages add."""
    return {point.name: point for point in entry_points(group=GROUP)}


@lru_cache(maxsize=1)
def built_in_effects() -> Mapping[str, EffectSpec]:
    """Returns the effects of this package by name."""
    from vla_gen_bench.episodes.built_in_effects import BUILT_IN  # which is written in the terms of this module

    return MappingProxyType({effect.name: effect for effect in BUILT_IN})


def _load(point: str | EntryPoint, what: str) -> Any:
    """Loads `module:attr`; a plug-in may raise anything, and the message names the plug-in."""
    text = point if isinstance(point, str) else point.value
    module, _, attribute = text.partition(":")
    try:
        found = import_module(module.strip())
        for part in attribute.split("[")[0].strip().split("."):
            found = getattr(found, part)
        return found
    except Exception as error:
        raise UserError(f"{what}: {text} cannot be loaded: {type(error).__name__}: {error}") from error


def _adopted(name: str, found: Any) -> EffectSpec:
    if isinstance(found, EffectSpec):
        if found.name != name and ":" not in name:
            raise UserError(f"effect '{name}': its EffectSpec is named '{found.name}'; the two must be equal")
        return found
    if getattr(found, "kind", None) in KINDS and hasattr(found, "apply"):
        return EffectSpec(name, found.kind, severities=None, apply=found)
    raise UserError(f"effect '{name}': {found!r} is neither an EffectSpec nor a class with kind and apply")
