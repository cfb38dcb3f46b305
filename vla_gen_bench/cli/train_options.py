"""Shared by the commands of `vgb train`: the options, running the training."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

DEFAULT_WORLD = "builtin"  # of `vgb eval`


def common_options(command: Any) -> Any:
    """Adds the options of every trainer."""
    options = (
        click.option(
            "--recipe", required=True, metavar="FILE|NAME", help="A YAML file, a policy with a recipe, or a preset."
        ),
        click.option(
            "--out", type=click.Path(path_type=Path, file_okay=False), help="Run folder.  [default: runs/train/NAME]"
        ),
        click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change the recipe; repeat."),
        click.option("--fresh", is_flag=True, help="Start over in a folder that holds a run."),
        click.option(
            "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...; auto = a GPU if any."
        ),
        click.option("--wandb", metavar="PROJECT", help="Log to Weights & Biases too, if it is installed."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def run_folder(out: Path | None, name: str) -> Path:
    """Returns the default run folder for a recipe's name."""
    return out or Path("runs") / "train" / name


def carry_out(trainer: Any, recipe: Any, out: Path | None, joined: Any, options: Any, acting: str | None = "") -> None:
    """Trains, with progress on stderr, and reports the result on stdout, from the first process only.

    Args:
        options: How to run it: `RunOptions` or a subclass.
        acting: Options of `vgb eval` with which the policy acts as in the run's checks; None = it cannot act yet.
    """
    from contextlib import nullcontext

    from vla_gen_bench.log.guard import sole_writer

    say = (lambda line: click.echo(line, err=True)) if joined.first else (lambda line: None)
    folder = run_folder(out, recipe.name)
    with sole_writer(folder) if joined.first else nullcontext():
        checkpoint = trainer(recipe, folder, joined, say, options)
    if not joined.first:
        return
    click.echo(f"checkpoint: {checkpoint}")
    if acting is None:
        click.echo("It cannot act yet. Start supervised training from it: --set model.checkpoint=" + str(checkpoint))
    else:
        world = "" if recipe.world == DEFAULT_WORLD else f" --world {recipe.world}"
        command = f"vgb eval --policy openvla --checkpoint {shlex.quote(str(checkpoint))}{acting}{world}"
        click.echo(f"Evaluate it: {command} --suite execution")
