"""`vgb gallery`."""

from __future__ import annotations

from pathlib import Path

import click

from vla_gen_bench.cli.numbers import INDEX, SEED


@click.command()
@click.option(
    "--suite",
    "suites",
    multiple=True,
    default=["vision", "semantics", "execution"],
    show_default=True,
    help="Repeat for more.",
)
@click.option("--world", default="builtin", show_default=True, help="Asset world: builtin, rl4vla or pretrain.")
@click.option(
    "--out",
    default="gallery",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the PNGs.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Which seed's episode to show.")
@click.option("--index", type=INDEX, default=0, show_default=True, help="Which episode of that seed.")
def gallery(suites: tuple[str, ...], world: str, out: Path, seed: int, index: int) -> None:
    """Render one PNG per suite: each scenario's first frame and a later one, with the expert acting.

    All scenarios show the same episode, so what differs between two images is the shift alone.
    """
    from vla_gen_bench.assets.world import get_world
    from vla_gen_bench.episodes.suite import load_suite
    from vla_gen_bench.eval.gallery import write_gallery

    get_world(world)
    for path in write_gallery([load_suite(name) for name in suites], world, out, seed, index):
        click.echo(path)
