"""`vgb train`: recipes in, checkpoints out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from vla_gen_bench.cli.numbers import WORKERS, Whole


@click.group()
def train() -> None:
    """Train OpenVLA policies.

    A recipe is a YAML file, or the name of a policy that has one. A run that was broken off goes on when the same
    command is given again.
    """


def recipe_file(name: str) -> Path:
    """Returns the path of a recipe: `name` itself, recipe.yaml of a policy, or one of the files in its `recipes`.

    Raises:
        UserError: Neither is there.
    """
    from vla_gen_bench.errors import UserError, suggest
    from vla_gen_bench.resources import data_dir

    if Path(name).suffix in (".yaml", ".yml") or Path(name).is_file():
        return Path(name)
    policies = data_dir() / "policies"
    known = {path.parent.name: path for path in policies.glob("*/recipe.yaml")}
    known |= {path.stem: path for path in policies.glob("*/recipes/*.yaml") if path.stem != "common"}  # no whole one
    if name not in known:
        raise UserError(f"--recipe {name}: no file, and no policy with a recipe of that name{suggest(name, known)}")
    return known[name]


def common_options(command: Any) -> Any:
    """The options every trainer takes."""
    options = (
        click.option("--recipe", required=True, metavar="FILE|POLICY", help="The recipe."),
        click.option(
            "--out", type=click.Path(path_type=Path, file_okay=False), help="Run folder.  [default: runs/train/NAME]"
        ),
        click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change the recipe; repeat."),
        click.option("--fresh", is_flag=True, help="Begin anew in a folder that holds a run."),
        click.option(
            "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...; auto = a GPU if any."
        ),
        click.option("--wandb", metavar="PROJECT", help="Log to Weights & Biases too, if it is installed."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def run_folder(out: Path | None, name: str) -> Path:
    """Returns the run folder of a recipe's name."""
    return out or Path("runs") / "train" / name


@train.command()
@common_options
@click.option("--data", multiple=True, type=click.Path(file_okay=False), help="Demonstrations (vgb collect); repeat.")
@click.option("--demos", type=Whole(1, 10_000_000), help="Only the first so many of each; smaller sets are nested.")
@click.option("--processes", type=WORKERS, help="Processes on this machine.  [default: as torchrun says, or 1]")
def sft(
    recipe: str, out: Path | None, changes: tuple[str, ...], fresh: bool, device: str, wandb: str | None,
    data: tuple[str, ...], demos: int | None, processes: int | None,
) -> None:  # fmt: skip
    """Fine-tune on demonstrations by cross-entropy of the action tokens."""
    from vla_gen_bench import runtime
    from vla_gen_bench.train.processes import join, launch
    from vla_gen_bench.train.recipe import load_recipe, parse_changes
    from vla_gen_bench.train.sft import trainer

    given = {"data": list(data) or None, "demos": demos}
    settings = parse_changes(changes) | {key: value for key, value in given.items() if value is not None}
    loaded = load_recipe(recipe_file(recipe), trainer.SftRecipe, settings)
    if processes and processes > 1 and "WORLD_SIZE" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, runtime.usable_cores() // processes))
        sys.exit(launch(processes, sys.argv[1:]))
    joined = join(device)
    if joined.device.type == "cpu" and joined.count > 1:
        runtime.limit_threads(1)
    carry_out(trainer.train, loaded, out, joined, fresh=fresh, wandb=wandb)


def carry_out(trainer: Any, recipe: Any, out: Path | None, joined: Any, acting: str = "", **options: Any) -> None:
    """Trains, with progress on stderr, and says on stdout what came of it; in the first process alone.

    Args:
        acting: Options of `vgb eval` for the policy to act as it was checked.
    """
    from contextlib import nullcontext

    from vla_gen_bench.train.guard import sole_writer

    say = (lambda line: click.echo(line, err=True)) if joined.first else (lambda line: None)
    folder = run_folder(out, recipe.name)
    with sole_writer(folder) if joined.first else nullcontext():
        checkpoint = trainer(recipe, folder, joined, say, **options)
    if joined.first:
        click.echo(f"checkpoint: {checkpoint}")
        click.echo(f"Evaluate it: vgb eval --policy openvla --checkpoint {checkpoint}{acting} --suite execution")


@train.command()
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Checkpoint folder.")
def mean(checkpoints: tuple[Path, ...], out: Path) -> None:
    """Write the mean of the weights of CHECKPOINTS, such as those that a run kept.

    All else is the last one's. RL with little experience wanders about what it learns; the mean does not.
    """
    from vla_gen_bench.train.mean import mean_checkpoint

    mean_checkpoint(checkpoints, out)
    click.echo(out)


from vla_gen_bench.cli import train_rl  # noqa: E402, F401  adds ppo, grpo and dpo to the group
