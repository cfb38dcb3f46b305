"""Contact sheet of a suite: one row per disturbance, with IND and its levels, from one episode's first image."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from vla_gen_bench.assets.world import CAMERA
from vla_gen_bench.data import ensure_writable
from vla_gen_bench.envs.factory import build_env
from vla_gen_bench.envs.pick_place import PickPlaceEnv
from vla_gen_bench.episodes.effects import find_effect
from vla_gen_bench.episodes.suite import Scenario, Suite, draw

TILE = (200, 150)
CAPTION, GAP, NAME, COLUMNS = 32, 8, 22, 6
INK, PAPER, FAINT = (20, 20, 24), (255, 255, 255), (110, 110, 120)


class Tile(NamedTuple):
    """An image and the line below it."""

    image: Image.Image
    caption: str


class Band(NamedTuple):
    """A titled line of tiles."""

    title: str
    tiles: list[Tile]


def write_preview(suite: Suite, world: str, path: Path, seed: int = 0, index: int = 0) -> Path:
    """Draws the sheet and returns its path.

    Args:
        suite: All its scenarios are shown: the levels of a disturbance in one row, the others six to a row.
        world: World name.
        path: The PNG.
        seed, index: The episode of every scenario; the same for all, so only the shift differs.
    """
    ensure_writable(path, "give another --out", (".png",))
    env = build_env(world)
    bands = [
        Band(_title(rows), [_tile(env, row, draw(row, world, seed, index)) for row in rows]) for rows in _bands(suite)
    ]
    title = f"{suite.title or suite.id}: first image of episode {index} of seed {seed}, world {world}"
    sheet = _sheet(bands, title).quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    sheet.save(path, optimize=True)  # a palette takes a third of the bytes
    return path


def _bands(suite: Suite) -> Iterator[list[Scenario]]:
    rows = list(suite.scenarios.values())
    ind = next((row for row in rows if row.dimension == "ind"), None)
    plain = [row for row in rows if not row.sweep]
    if len(plain) < len(rows) and plain == [ind]:
        plain = []  # it comes first in every row of levels
    yield from (plain[start : start + COLUMNS] for start in range(0, len(plain), COLUMNS))
    for sweep in dict.fromkeys(row.sweep for row in rows if row.sweep):
        yield [*([ind] if ind else []), *(row for row in rows if row.sweep == sweep)]


def _title(rows: Sequence[Scenario]) -> str:
    last = rows[-1]
    if not last.sweep:
        return ""
    unseen = {find_effect(effect.name).kind for effect in last.shift.effects} & {"action", "state"}
    return f"{last.label.split(' (')[0]}{': not seen in a first image' if unseen else ''}"


def _tile(env: PickPlaceEnv, row: Scenario, spec) -> Tile:
    observation, _ = env.reset(options={"spec": spec})
    pixels = observation["sensor_data"][CAMERA]["rgb"][0].cpu().numpy()
    what = row.strength or ("IND" if row.dimension == "ind" else row.label)
    words = "phrasing" in row.shift.axes or "instruction" in row.shift.axes
    return Tile(Image.fromarray(pixels).resize(TILE), f"{what}: “{spec.instruction}”" if words else what)


def _sheet(bands: Sequence[Band], title: str) -> Image.Image:
    across = max(len(band.tiles) for band in bands)
    height = sum(TILE[1] + CAPTION + GAP + (NAME if band.title else 0) for band in bands) + 40
    sheet = Image.new("RGB", (across * (TILE[0] + GAP) + GAP, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, 10), title, fill=INK, font=ImageFont.load_default(18))
    top = 40
    for band in bands:
        if band.title:
            pen.text((GAP, top), band.title, fill=INK, font=ImageFont.load_default(15))
            top += NAME
        for place, tile in enumerate(band.tiles):
            left = GAP + place * (TILE[0] + GAP)
            sheet.paste(tile.image, (left, top))
            caption = "\n".join(textwrap.wrap(tile.caption, 32)[:2])
            pen.text((left, top + TILE[1] + 1), caption, fill=FAINT, font=ImageFont.load_default(11))
        top += TILE[1] + CAPTION + GAP
    return sheet
