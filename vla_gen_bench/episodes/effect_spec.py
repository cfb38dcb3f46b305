"""`EffectSpec`: the definition of one effect, a named disturbance of scene, action, state or image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint
from types import MappingProxyType
from typing import Any, Literal, Protocol

from vla_gen_bench.episodes.axes import Levels, Number
from vla_gen_bench.episodes.catalog import Catalog
from vla_gen_bench.episodes.geometry import Footprint, Point
from vla_gen_bench.episodes.streams import POOLS_VERSION, Stream
from vla_gen_bench.errors import UserError

KINDS = ("scene", "action", "state", "image")
Kind = Literal["scene", "action", "state", "image"]


class Drawing(Protocol):
    """The episode passed to an effect's `draw`; its axes have already been drawn.

    Attributes:
        catalog: The catalogue of the episode's world.
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
    """Returns a draw that keeps the severities and adds `seed`, an integer that depends only on the episode."""
    return lambda episode, severities: {"seed": episode.stream(f"effects.{name}").below(2**31), **severities}


@dataclass(frozen=True)
class EffectSpec:
    """The definition of an effect.

    Attributes:
        name: Its name in suites; also the key of its random numbers, "effects.<name>".
        kind: What it changes: the "scene" before the episode, every "action", the "state" after a control step, or
            every "image". See `vla_gen_bench.envs.effects` for the interface of `apply`.
        severities: What a suite may set, and in which range; None accepts any value unchecked.
        draw: Maps the severities to the params stored in the episode's spec; None adds a `seed` to them.
        apply: A class, or its "module:attr", imported when an environment realises the effect. It is constructed
            once per episode (and camera, if it changes images) as `apply(env, rows, params)`.
        levels: Severities at levels 1 to 5 and the reason for them; None for an effect without levels.
        worlds: The worlds that can realise it; None = all.
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
        return load_attribute(self.apply, f"effect '{self.name}'") if isinstance(self.apply, str) else self.apply


def load_attribute(point: str | EntryPoint, what: str) -> Any:
    """Loads `module:attr`. A plug-in may raise any exception; the resulting message names the plug-in."""
    text = point if isinstance(point, str) else point.value
    module, _, attribute = text.partition(":")
    try:
        found = import_module(module.strip())
        for part in attribute.split("[")[0].strip().split("."):
            found = getattr(found, part)
        return found
    except Exception as error:
        raise UserError(f"{what}: {text} cannot be loaded: {type(error).__name__}: {error}") from error
