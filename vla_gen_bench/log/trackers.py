"""Weights & Biases and MLflow: an optional copy of the numbers, if they are installed and requested.

Nothing here depends on them: curves and logs are written either way. Each of their errors is reported in one line.
"""

from __future__ import annotations

import importlib
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vla_gen_bench.errors import UserError, one_line

WANDB_FILE = "wandb_run.txt"  # the id of a training run there, with which a resumed run continues


def need_tracker(name: str, option: str) -> Any:
    """Returns the module `name`; raises `UserError` naming the option if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{option}: {name} cannot be used ({one_line(error)}): pip install {name}") from None


def wandb_curve(folder: Path, project: str, config: Mapping[str, Any]) -> Callable[[int, Mapping[str, float]], None]:
    """Returns a function that logs a row of a training curve to W&B.

    The run has a random id, kept in the folder: resuming continues that run, and another folder of the same name
    starts a new one.

    Args:
        config: The recipe.

    Raises:
        UserError: wandb is not installed, or cannot start.
    """
    file = folder / WANDB_FILE
    name = file.read_text().strip() if file.is_file() else uuid.uuid4().hex
    run = _begin_wandb(project, "--wandb", id=name, name=folder.name, resume="allow", dir=str(folder), config=config)
    file.write_text(name + "\n")
    lost = False

    def log(step: int, row: Mapping[str, float]) -> None:
        nonlocal lost
        try:
            run.log({key: value for key, value in row.items() if value is not None}, step=step)
        except Exception as error:  # a tracker error must not stop training
            if not lost:
                print(f"wandb: {one_line(error)}; training continues without it", file=sys.stderr)
            lost = True

    return log


def track_summary(summary: Mapping[str, Any], config: Mapping[str, Any], tracker: str, project: str) -> None:
    """Sends the outcome of an evaluation to `project` (of W&B) or the experiment of that name (of MLflow).

    Args:
        summary: What `vgb eval --json` prints.
        config: Suite, policy and world from the log's header.
        tracker: "wandb" or "mlflow".

    Raises:
        UserError: The tracker is not installed, or refuses; the log is complete either way.
    """
    name = f"{summary['policy']} on {summary['suite']}, {summary['world']}"
    numbers = summary_numbers(summary)
    if tracker == "wandb":
        run = _begin_wandb(project, "--wandb", name=name, job_type="eval", dir=summary["log"], config=dict(config))
        run.summary.update(numbers)
        run.finish()
        return
    mlflow = need_tracker("mlflow", "--mlflow")
    try:
        mlflow.set_experiment(project)
        with mlflow.start_run(run_name=name):
            mlflow.log_params({key: one_line(value, 250) for key, value in flat(config).items()})
            mlflow.log_metrics(numbers)
    except Exception as error:
        raise UserError(f"--mlflow {one_line(project, 60)}: {one_line(error)}; the log is whole") from None


def summary_numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """Returns "scenario/success_at_end" -> rate and similar keys, for each scenario with finished episodes."""
    numbers: dict[str, float] = {}
    for scenario, counts in summary["scenarios"].items():
        done = counts["episodes"] - counts["errors"]
        numbers |= {f"{scenario}/{key}": counts[key] for key in ("episodes", "errors")}
        if done:
            rates = {key: counts[key] / done for key in ("success_at_end", "success_once")}
            low, high = counts["ci95"]
            numbers |= {f"{scenario}/{key}": value for key, value in {**rates, "low": low, "high": high}.items()}
    return numbers


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Flattens nested mappings, joining the keys with dots."""
    rows: dict[str, Any] = {}
    for key, value in config.items():
        rows |= flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return rows


def _begin_wandb(project: str, option: str, **how: Any) -> Any:
    wandb = need_tracker("wandb", option)
    try:
        return wandb.init(project=project, **how)
    except Exception as error:
        raise UserError(
            f"{option} {one_line(project, 60)}: {one_line(error)}; run 'wandb login', or set WANDB_MODE=offline"
        ) from None
