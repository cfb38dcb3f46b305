"""`vgb train`: recipes in, checkpoints out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vla_gen_bench.cli.numbers import WORKERS, Whole
from vla_gen_bench.cli.train_options import carry_out, common_options
from vla_gen_bench.cli.train_rl import dpo, grpo, ppo

if TYPE_CHECKING:
    from vla_gen_bench.train.processes import Processes


PROCESSES = click.option(
    "--processes", type=WORKERS, help="Processes on this machine.  [default: as torchrun says, or 1]"
)


@click.group()
def train() -> None:
    """Train OpenVLA policies.

    A recipe is a YAML file, or the name of a policy that has one. An interrupted run resumes when the same
    command is given again.
    """


@train.command()
@common_options
@click.option("--data", multiple=True, type=click.Path(file_okay=False), help="Demonstrations (vgb collect); repeat.")
@click.option(
    "--demos",
    type=Whole(1, 10_000_000),
    help="Use only the first N of each data set, so smaller sets are subsets of larger ones.",
)
@PROCESSES
def sft(
    recipe: str, out: Path | None, changes: tuple[str, ...], fresh: bool, device: str, wandb: str | None,
    data: tuple[str, ...], demos: int | None, processes: int | None,
) -> None:  # fmt: skip
    """Fine-tune on demonstrations by cross-entropy of the action tokens."""
    from vla_gen_bench.train.recipe import load_recipe, parse_changes, recipe_file, with_options
    from vla_gen_bench.train.run import RunOptions
    from vla_gen_bench.train.sft import trainer

    given = {"--data": ("data", list(data) or None), "--demos": ("demos", demos)}
    settings = with_options(parse_changes(changes), given)
    loaded = load_recipe(recipe_file(recipe), trainer.SftRecipe, settings)
    joined = _joined(processes, device)
    carry_out(trainer.train, loaded, out, joined, RunOptions(fresh, wandb))


@train.command()
@common_options
@click.option("--scenes", type=click.Path(file_okay=False), help="Scenes to learn from (vgb scenes).")
@PROCESSES
def grounding(
    recipe: str, out: Path | None, changes: tuple[str, ...], fresh: bool, device: str, wandb: str | None,
    scenes: str | None, processes: int | None,
) -> None:  # fmt: skip
    """Pretrain on rendered scenes to locate the things that a sentence names."""
    from vla_gen_bench.train.grounding import trainer
    from vla_gen_bench.train.recipe import load_recipe, parse_changes, recipe_file, with_options
    from vla_gen_bench.train.run import RunOptions

    settings = with_options(parse_changes(changes), {"--scenes": ("grounding.scenes", scenes)})
    loaded = load_recipe(recipe_file(recipe), trainer.GroundingRecipe, settings)
    carry_out(trainer.train, loaded, out, _joined(processes, device), RunOptions(fresh, wandb), acting=None)


def _joined(processes: int | None, device: str) -> Processes:
    """Returns this process's rank; the launcher starts the other processes if requested, and ends with them."""
    from vla_gen_bench import runtime
    from vla_gen_bench.train.processes import join, launch

    if processes and processes > 1 and "WORLD_SIZE" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, runtime.usable_cores() // processes))
        sys.exit(launch(processes, sys.argv[1:]))
    joined = join(device)
    if joined.device.type == "cpu" and joined.count > 1:
        runtime.limit_threads(1)
    return joined


@train.command()
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Checkpoint folder.")
def mean(checkpoints: tuple[Path, ...], out: Path) -> None:
    """Write the mean of the weights of CHECKPOINTS, such as the ones that a run kept.

    Everything else comes from the last one. With little experience, RL weights wander around what they learn; their
    mean does not.
    """
    from vla_gen_bench.train.mean import mean_checkpoint

    mean_checkpoint(checkpoints, out)
    click.echo(out)


for command in (ppo, grpo, dpo):
    train.add_command(command)
