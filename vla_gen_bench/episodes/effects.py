"""Finds effects: built-in, from installed packages, or named by a suite as `module:attr`.

An installed package adds an effect through the entry point group `vla_gen_bench.effects`: name -> an `EffectSpec`, or a
class with `kind` and `apply`, whose params are not checked. A suite may also name an effect as `module:attr`, without
installing a package. A plug-in is imported only when a suite or an episode names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from vla_gen_bench.episodes.built_in_effects import BUILT_IN
from vla_gen_bench.episodes.effect_spec import KINDS, EffectSpec, load_attribute
from vla_gen_bench.errors import UserError, suggest

GROUP = "vla_gen_bench.effects"


def find_effect(name: str) -> EffectSpec:
    """Returns the effect `name`: built-in, `module:attr`, or from an installed package.

    Raises:
        UserError: No effect has that name, or the package's object is not an effect.
    """
    built_in = built_in_effects()
    if name in built_in:
        return built_in[name]
    if ":" in name:
        return _adopted(name, load_attribute(name, f"effect '{name}'"))
    points = plugin_points()
    if name not in points:
        raise UserError(f"unknown effect '{name}'{suggest(name, [*built_in, *points])}")
    return _adopted(name, load_attribute(points[name], f"effect '{name}'"))


def known_effects() -> list[str]:
    """Returns the names of all built-in and installed effects without importing any."""
    return [*built_in_effects(), *plugin_points()]


@lru_cache(maxsize=1)
def plugin_points() -> dict[str, EntryPoint]:
    """Returns the effects that installed packages add."""
    return {point.name: point for point in entry_points(group=GROUP)}


@lru_cache(maxsize=1)
def built_in_effects() -> Mapping[str, EffectSpec]:
    """Returns the effects of this package by name."""
    return MappingProxyType({effect.name: effect for effect in BUILT_IN})


def _adopted(name: str, found: Any) -> EffectSpec:
    if isinstance(found, EffectSpec):
        if found.name != name and ":" not in name:
            raise UserError(f"effect '{name}': its EffectSpec is named '{found.name}'; the two must be equal")
        return found
    if getattr(found, "kind", None) in KINDS and hasattr(found, "apply"):
        return EffectSpec(name, found.kind, severities=None, apply=found)
    raise UserError(f"effect '{name}': {found!r} is neither an EffectSpec nor a class with kind and apply")
