"""Weights & Biases and MLflow: stand-ins record what they are told; the real ones where they are installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vla_gen_bench.errors import UserError
from vla_gen_bench.log.trackers import summary_numbers, track_summary
from vla_gen_bench.train.run import Curve

COUNTS = {"episodes": 4, "errors": 0, "success_at_end": 1, "success_once": 2, "ci95": [0.05, 0.7]}
NONE_DONE = {"episodes": 1, "errors": 1, "success_at_end": 0, "success_once": 0, "ci95": None}
SUMMARY = {"suite": "s", "policy": "p", "world": "w", "scenarios": {"ind": COUNTS, "far": NONE_DONE}}
CONFIG = {"suite": {"id": "s", "version": "1"}, "horizon": 80}


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for wandb; returns the runs it began, each with what it was told."""
    runs: list[dict[str, Any]] = []

    def init(**how: Any) -> SimpleNamespace:
        run = {**how, "logged": [], "summary": {}, "finished": False}
        runs.append(run)
        return SimpleNamespace(
            log=lambda row, step: run["logged"].append((step, row)),
            summary=run["summary"],
            finish=lambda: run.update(finished=True),
        )

    module = ModuleType("wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def training_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("trainer: ppo\nseed: 3\n")
    return folder


def test_a_training_run_has_an_id_of_its_own_and_keeps_it(tmp_path: Path, wandb: list) -> None:
    for place in ("a/run", "b/run"):
        Curve(training_folder(tmp_path / place), ("step", "wall_s", "loss"), wandb="project").log(step=1, loss=0.5)
    Curve(tmp_path / "a/run", ("step", "wall_s", "loss"), resumed_at=1, wandb="project").log(step=2, loss=None)
    first, other, resumed = wandb
    assert first["id"] != other["id"] and resumed["id"] == first["id"] and resumed["resume"] == "allow"
    assert (first["project"], first["name"], first["config"]) == ("project", "run", {"trainer": "ppo", "seed": 3})
    assert first["logged"][0][0] == 1 and first["logged"][0][1]["loss"] == 0.5
    assert "loss" not in resumed["logged"][0][1]


def test_what_wandb_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**how: Any) -> None:
        raise RuntimeError("api_key not configured\n(no-tty)")

    module = ModuleType("wandb")
    module.init = refuse
    monkeypatch.setitem(sys.modules, "wandb", module)
    with pytest.raises(UserError, match=r"--wandb project: api_key not configured \(no-tty\); run 'wandb login'"):
        Curve(training_folder(tmp_path / "a"), ("step", "wall_s"), wandb="project")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="--wandb: wandb cannot be used.*pip install wandb"):
        Curve(training_folder(tmp_path / "b"), ("step", "wall_s"), wandb="project")


def test_training_outlives_a_tracker(tmp_path: Path, wandb: list, capsys: pytest.CaptureFixture[str]) -> None:
    curve = Curve(training_folder(tmp_path / "a"), ("step", "wall_s", "loss"), wandb="project")
    wandb[0]["logged"] = None  # its append fails from now on
    for step in (1, 2):
        curve.log(step=step, loss=0.5)
    assert capsys.readouterr().err.count("training continues without it") == 1
    assert len((tmp_path / "a/curve.csv").read_text().splitlines()) == 3


def test_the_numbers_of_a_summary() -> None:
    """One of four: 0.25. A scenario without a finished episode has no rates."""
    assert summary_numbers(SUMMARY) == {
        "ind/episodes": 4, "ind/errors": 0, "ind/success_at_end": 0.25, "ind/success_once": 0.5, "ind/low": 0.05,
        "ind/high": 0.7, "far/episodes": 1, "far/errors": 1,
    }  # fmt: skip


def test_an_evaluation_is_summarised_in_wandb(tmp_path: Path, wandb: list) -> None:
    track_summary({**SUMMARY, "log": str(tmp_path)}, CONFIG, "wandb", "project")
    (run,) = wandb
    assert run["summary"]["ind/success_at_end"] == 0.25 and run["finished"]
    assert (run["name"], run["job_type"], run["config"]) == ("p on s, w", "eval", CONFIG)


def test_an_evaluation_is_summarised_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow (or mlflow-skinny)")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/m.db" if hasattr(mlflow, "sklearn") else f"file://{tmp_path}/m")
    track_summary({**SUMMARY, "log": str(tmp_path)}, CONFIG, "mlflow", "experiment")
    (run,) = mlflow.search_runs(experiment_names=["experiment"], output_format="list")
    assert run.data.metrics["ind/success_at_end"] == 0.25 and run.data.params["suite.version"] == "1"


def test_the_real_wandb_takes_it_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    Curve(training_folder(tmp_path / "a"), ("step", "wall_s", "loss"), wandb="project").log(step=1, loss=0.5)
    track_summary({**SUMMARY, "log": str(tmp_path)}, CONFIG, "wandb", "project")
    assert list(tmp_path.rglob("*.wandb"))


def test_a_tracker_that_is_not_installed_is_named_before_the_work(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    done = cli("eval", "--policy", "hold", "--mlflow", "x")
    assert done.exit_code == 2 and "--mlflow: mlflow cannot be used" in done.stderr
