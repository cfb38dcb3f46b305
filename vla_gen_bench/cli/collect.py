"""`vgb collect`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from vla_gen_bench.cli.numbers import SEED, WORKERS, Real, Whole


@click.command()
@click.option("--episodes", type=Whole(1, 10_000_000), required=True, help="Successful demonstrations in all.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Data set folder.")
@click.option(
    "--policy", default="expert", show_default=True, help="Who drives; another policy takes turns with the expert."
)
@click.option("--policy-option", "options", multiple=True, metavar="KEY=VALUE", help="Argument of the policy; repeat.")
@click.option("--noise", type=Real(0, 100), default=1.0, show_default=True, help="Scale of disturbances.")
@click.option(
    "--wander",
    type=Real(0, 1),
    default=0.0,
    show_default=True,
    help="Share of episodes that start with the arm moved: up to 13 cm sideways, 10 cm vertically, 28 degrees in yaw.",
)
@click.option("--world", default="builtin", show_default=True, help="Asset world: builtin, rl4vla or pretrain.")
@click.option("--image-size", type=Whole(32, 2048), default=96, show_default=True, help="Side, pixels.")
@click.option(
    "--cameras", default="external", show_default=True, metavar="NAMES", help="external, or external,wrist for both."
)
@click.option(
    "--render-size",
    metavar="PIXELS|HxW",
    help="Draw images of this size; equal to --image-size they are stored as drawn.  [default: the world's]",
)
@click.option("--seed", type=SEED, default=1_000_000, show_default=True, help="Training seed to draw episodes from.")
@click.option(
    "--shift", "shifts", multiple=True, metavar="AXIS=POOL", help="Draw an axis from another training pool; repeat."
)
@click.option("--swap", is_flag=True, help="Two episodes per scene, one for each object named.")
@click.option("--drop-small-actions", is_flag=True, help="Leave out frames that hardly move, as the paper.")
@click.option("--workers", type=WORKERS, help="Worker processes.  [default: one per core]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def collect(
    episodes: int, out: Path, policy: str, options: tuple[str, ...], noise: float, wander: float, world: str,
    image_size: int, cameras: str, render_size: str | None, seed: int, shifts: tuple[str, ...], swap: bool,
    drop_small_actions: bool, workers: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Collect demonstrations for `vgb train sft` on training-pool episodes.

    The privileged expert drives, with disturbances; failed episodes are counted and left out. With another --policy the
    two take turns and the labels are the expert's (DAgger). Writes a LeRobotDataset v3.0; the same command continues an
    existing folder.
    """
    from vla_gen_bench.policies.registry import parse_options
    from vla_gen_bench.policies.sensing import parse_size
    from vla_gen_bench.runtime import usable_cores
    from vla_gen_bench.train.demos.collect import Request
    from vla_gen_bench.train.demos.collect import collect as run
    from vla_gen_bench.train.recipe import parse_changes

    request = Request(
        episodes=episodes, out=out, policy=policy, options=parse_options(options), noise=noise, wander=wander,
        cameras=tuple(dict.fromkeys(name.strip() for name in cameras.split(","))),
        render=parse_size(render_size, "--render-size") if render_size else None,
        world=world, side=image_size, seed=seed, drop_small=drop_small_actions, workers=workers or usable_cores(),
        shift=parse_changes(shifts, "--shift"), swap=swap,
    )  # fmt: skip
    writer = _with_progress(run, request)
    summary = {
        "demonstrations": writer.kept, "frames": writer.info["total_frames"], "attempts": writer.attempts,
        "failed": writer.own["failed"], "folder": str(out),
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(summary))
        return
    click.echo(f"{writer.kept} demonstrations, {summary['frames']} frames, of {writer.attempts} episodes in {out}")
    click.echo(f"Look at them: vgb data show {out}")


def _with_progress(run, request):
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    columns = (
        TextColumn("collecting"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("collect", total=request.episodes, note="")

        def advance(writer) -> None:
            bar.update(task, completed=writer.kept, note=f"{writer.attempts - writer.kept} failed")

        return run(request, advance)
