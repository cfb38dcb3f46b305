"""Checks that an environment can realise specs before the running episodes are discarded."""

from __future__ import annotations

from collections.abc import Sequence

from vla_gen_bench.assets.pack import Pack
from vla_gen_bench.bounds import IMAGE_SIDE
from vla_gen_bench.envs.effects import schedule
from vla_gen_bench.envs.scene import bodies_of
from vla_gen_bench.episodes.effects import find_effect
from vla_gen_bench.episodes.spec import EpisodeSpec
from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.protocol import CAMERAS


def check_specs(specs: Sequence[EpisodeSpec], count: int, pack: Pack) -> None:
    """Raises `UserError` unless these are `count` specs of the pack's world that can run side by side."""
    if len(specs) != count:
        raise UserError(f"{len(specs)} specs were given for {count} environments")
    for spec in specs:
        _check_one(spec, pack)
    if len({schedule(spec) for spec in specs}) > 1:
        raise UserError("episodes whose effects take physics steps of their own cannot share a simulation")


def check_views(cameras: Sequence[str], size: Sequence[int]) -> None:
    """Raises `UserError` unless these are different cameras and (height, width) is an image size."""
    unknown = [name for name in cameras if name not in CAMERAS]
    if unknown:
        raise UserError(f"cameras: unknown camera {unknown[0]!r}{suggest(str(unknown[0]), CAMERAS)}")
    if not cameras or len(set(cameras)) < len(cameras):
        raise UserError(f"cameras: {list(cameras)}; expected different ones of {', '.join(CAMERAS)}, at least one")
    if len(size) != 2 or not all(1 <= side <= IMAGE_SIDE.high for side in size):
        raise UserError(f"image_size: {list(size)}; expected height and width, 1 to {IMAGE_SIDE.high} pixels each")


def _check_one(spec: EpisodeSpec, pack: Pack) -> None:
    world = pack.catalog.world
    if spec.world != world:
        raise UserError(f"a spec of world '{spec.world}' was given to an environment of '{world}'")
    bodies_of(pack, spec)
    pack.catalog.get("tables", spec.table)
    for effect in spec.effects:
        find_effect(effect.name).check_world(world)
