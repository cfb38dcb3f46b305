"""Labelled contact sheets: what each scenario of a suite looks like at the first frame and later in an episode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vla_gen_bench.data import ensure_writable
from vla_gen_bench.episodes.suite import Scenario, Suite, draw
from vla_gen_bench.eval.rollout import run_episode
from vla_gen_bench.policies.chunking import ChunkRunner
from vla_gen_bench.policies.registry import load_policy, resolve

LATER_STEP = 16
COLUMNS = 2
LABEL_HEIGHT, GAP, TITLE_HEIGHT = 40, 10, 44
INK, PAPER, FAINT = (20, 20, 24), (255, 255, 255), (110, 110, 120)


def write_gallery(suites: Sequence[Suite], world: str, folder: Path, seed: int, index: int) -> Iterator[Path]:
    """Writes one PNG per suite and yields its path.

    Args:
        suites: Each becomes one sheet.
        world: World name.
        folder: Where to write `<suite>-<world>.png`.
        seed, index: The episode shown of every scenario; the same for all, so only the shift differs.
    """
    from vla_gen_bench.envs.factory import build_env

    for suite in suites:
        ensure_writable(folder / f"{suite.id}-{world}.png", "give another --out")
    env = build_env(world)
    card = resolve("expert")
    source = ChunkRunner(load_policy(card), card.label)
    for suite in suites:
        tiles = [_tile(env, source, scenario, world, seed, index) for scenario in suite.scenarios.values()]
        path = folder / f"{suite.id}-{world}.png"
        _sheet(tiles, f"{suite.title or suite.id}: episode {index} of seed {seed}, world {world}").save(
            path, optimize=True
        )
        yield path


def _tile(env, source, scenario: Scenario, world: str, seed: int, index: int) -> Image.Image:
    """Returns the first and a later frame side by side, labelled."""
    spec = draw(scenario, world, seed, index)
    episode = run_episode(env, source, spec, LATER_STEP, privileged=True, record=True)
    pair = np.concatenate([episode.frames[0], np.full_like(episode.frames[0][:, :2], 255), episode.frames[-1]], axis=1)
    tile = Image.new("RGB", (pair.shape[1], pair.shape[0] + LABEL_HEIGHT), PAPER)
    tile.paste(Image.fromarray(pair), (0, LABEL_HEIGHT))
    pen = ImageDraw.Draw(tile)
    pen.text((2, 2), scenario.label, fill=INK, font=ImageFont.load_default(17))
    pen.text((2, 22), f"“{spec.instruction}”", fill=FAINT, font=ImageFont.load_default(13))
    return tile


def _sheet(tiles: list[Image.Image], title: str) -> Image.Image:
    width, height = tiles[0].size
    rows = -(-len(tiles) // COLUMNS)
    size = (COLUMNS * (width + GAP) + GAP, rows * (height + GAP) + GAP + TITLE_HEIGHT)
    sheet = Image.new("RGB", size, PAPER)
    ImageDraw.Draw(sheet).text((GAP, 12), title, fill=INK, font=ImageFont.load_default(20))
    for position, tile in enumerate(tiles):
        row, column = divmod(position, COLUMNS)
        sheet.paste(tile, (GAP + column * (width + GAP), TITLE_HEIGHT + row * (height + GAP)))
    return sheet
