"""`vgb train ppo`, `vgb train grpo`, `vgb train dpo`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from vla_gen_bench.cli.cluster_options import cluster_of, cluster_options
from vla_gen_bench.cli.numbers import WORKERS
from vla_gen_bench.cli.train_options import carry_out, common_options

GIVEN = "--address, --wait-for-nodes and what workers take of nodes are"
SIMULATORS = click.option(
    "--workers",
    type=WORKERS,
    help="Processes or Ray actors that simulate.  [default: one per core, or as many as fit on the cluster]",
)


@click.command()
@common_options
@SIMULATORS
@cluster_options
def ppo(**options: Any) -> None:
    """Learn from reward by proximal policy optimisation.

    Presets: openvla-ppo, ppo-orz, ppo-value-hn, ppo-value-concat, ppo-value-separate, ppo-value-state, ppo-epochs-1,
    ppo-epochs-2, ppo-epochs-5, ppo-base; the paper's own recipe is policies/openvla-ppo/recipe-paper.yaml.
    """
    _train("ppo", "PpoRecipe", **options)


@click.command()
@common_options
@SIMULATORS
@cluster_options
def grpo(**options: Any) -> None:
    """Learn from reward relative to groups of episodes that shared an initial state.

    Presets: grpo, grpo-as-coded.
    """
    _train("grpo", "GrpoRecipe", **options)


@click.command()
@common_options
@SIMULATORS
@cluster_options
def dpo(**options: Any) -> None:
    """Learn from preferences between episodes that shared an initial state (TPO).

    Preset: dpo.
    """
    _train("dpo", "DpoRecipe", **options)


def _train(
    module: str, kind: str, recipe: str, changes: tuple[str, ...], device: str, out: Path | None,
    fresh: bool, wandb: str | None, workers: int | None, **nodes: Any,
) -> None:  # fmt: skip
    from vla_gen_bench.train.processes import join
    from vla_gen_bench.train.recipe import load_recipe, parse_changes, recipe_file
    from vla_gen_bench.train.rl.loop import RlOptions

    trainer = import_module(f"vla_gen_bench.train.rl.{module}")
    loaded = load_recipe(recipe_file(recipe), getattr(trainer, kind), parse_changes(changes))
    acting = f" --policy-option temperature={loaded.check_temperature:g}"
    given = RlOptions(fresh, wandb, workers, cluster_of(what=GIVEN, **nodes))
    carry_out(trainer.train, loaded, out, join(device), given, acting)
