"""Determines a policy's inputs before any simulator starts, from its card, the user's options and the world."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vla_gen_bench.assets.world import World
from vla_gen_bench.bounds import IMAGE_SIDE
from vla_gen_bench.errors import UserError, one_line, suggest
from vla_gen_bench.policies.card import Card, DeclaredNeeds
from vla_gen_bench.policies.converters import needs_with, parse_adapter
from vla_gen_bench.policies.registry import adapter_entries
from vla_gen_bench.policies.remote.address import FACTORY
from vla_gen_bench.protocol import Needs


def parse_size(text: str, option: str = "--image-size") -> tuple[int, int]:
    """Parses "256" as (256, 256) and "240x320" as (240, 320), height first; raises `UserError` for anything else."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip())
    if not found:
        raise UserError(f"{option} {text}: expected pixels, 256 for a square or HEIGHTxWIDTH such as 240x320")
    size = int(found[1]), int(found[2] or found[1])
    check_size(size, f"{option} {text}")
    return size


def check_size(size: tuple[int, int], where: str) -> None:
    """Raises `UserError` unless both sides can be rendered."""
    if not all(IMAGE_SIDE.low <= side <= IMAGE_SIDE.high for side in size):
        raise UserError(f"{where}: each side must be {IMAGE_SIDE.low} to {IMAGE_SIDE.high} pixels")


def sensors_of(
    card: Card, world: World, image_size: tuple[int, int] | None = None, options: Mapping[str, Any] | None = None
) -> Needs:
    """Returns the inputs to sense for the policy in `world`.

    Args:
        image_size: The user's size; it overrides the card's.
        options: Arguments of the policy; an `adapter` among them overrides the card's.

    Raises:
        UserError: The card needs a camera that the world lacks, or an image size that cannot be rendered.
    """
    given = dict(options or {})
    entries = adapter_entries(card, given) or ()
    needs = _remote(card, given) if card.factory == FACTORY else card.needs.plain()
    needs = needs_with(needs, parse_adapter(entries, f"{card.label}: adapter", card.source.folder))
    for camera in needs.cameras:
        if camera not in world.cameras:
            raise UserError(
                f"{card.label}: its card needs camera '{one_line(camera, 80)}'{suggest(camera, world.cameras)}; "
                f"world '{world.name}' has {', '.join(world.cameras)}"
            )
    size = image_size or needs.image_size
    if size == (world.height, world.width):
        size = None  # same as the world's own size
    if size is not None:
        check_size(size, f"{card.label}: needs.image_size {list(size)}")
    ordered = tuple(camera for camera in world.cameras if camera in needs.cameras)
    return replace(needs, cameras=ordered, image_size=size)


def serving_needs(card: Card, options: Mapping[str, Any] | None = None) -> Needs:
    """Returns a policy's inputs for a server, which has no world: the client chooses the image size."""
    from vla_gen_bench.assets.world import get_world

    return sensors_of(card, get_world("builtin" if card.worlds == "all" else card.worlds[0]), options=options)


def _remote(card: Card, options: dict[str, Any]) -> Needs:
    """Returns a server's inputs, from the card, or else from key map or server."""
    if card.needs != DeclaredNeeds():
        return card.needs.plain()
    from vla_gen_bench.policies.remote.policy import remote_needs

    return remote_needs({**card.kwargs, **options})
