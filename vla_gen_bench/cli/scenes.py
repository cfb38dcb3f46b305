"""`vgb scenes`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vla_gen_bench.cli.numbers import Whole


@click.command()
@click.option("--count", type=Whole(1, 10_000_000), required=True, help="Scenes in all, in parts of 500.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder.")
@click.option(
    "--split",
    type=click.Choice(["train", "unseen"]),
    default="train",
    show_default=True,
    help="unseen: for development.",
)
@click.option("--world", default="pretrain", show_default=True, help="Whose assets.")
@click.option("--image-size", type=Whole(32, 480), default=128, show_default=True, help="Side, pixels.")
@click.option("--seed", type=Whole(0, 999_999), default=0, show_default=True, help="Seed of the scenes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def scenes(count: int, out: Path, split: str, world: str, image_size: int, seed: int, as_json: bool) -> None:
    """Render still scenes for `vgb train grounding`: several things on a table, and the place of each.

    Nothing moves, so a scene takes milliseconds. The same command continues an existing folder.
    """
    from vla_gen_bench.assets.world import get_world
    from vla_gen_bench.train.grounding.store import SceneRequest, render_scenes

    get_world(world)
    request = SceneRequest(count, out, split, world, image_size, seed)
    done = render_scenes(request, lambda done: click.echo(f"{done} of {count} scenes", err=True))
    click.echo(json.dumps({"scenes": done, "folder": str(out)}) if as_json else f"{done} scenes in {out}")
