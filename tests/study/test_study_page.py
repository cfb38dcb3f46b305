"""A tiny study run for real, two arms by two seeds: its page shows what `vgb report` and `vgb curves` compute."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from studies import PARTS, Here, write_material, write_study

from vla_gen_bench.cli import study as command
from vla_gen_bench.errors import UserError
from vla_gen_bench.study.parts import parts_of


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which `vgb study` ran once, with its parts in this process."""
    folder = tmp_path_factory.mktemp("study")
    write_material(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_study(curves=["loss"], evaluations={"short": {"suite": "short.yaml", "options": {"temperature": 0.5}}})
        yield folder


@pytest.fixture
def ran(done: Path, cli, monkeypatch: pytest.MonkeyPatch) -> Here:
    """The engine of the latest `vgb study`; only the first one has anything to do."""
    engine = Here()

    @contextmanager
    def here(cluster: object) -> Iterator[Here]:
        yield engine

    monkeypatch.setattr(command, "_engine", here)
    found = cli("study", "study.yaml", "--out", "out")
    assert found.exit_code == 0, found.stderr
    return engine


def test_the_study_runs_end_to_end_and_never_again(ran: Here, done: Path, cli) -> None:
    assert ran.ran in (PARTS, [])  # a test before this one may have been the first
    ran.ran.clear()
    assert cli("study", "study.yaml", "--out", "out").exit_code == 0 and ran.ran == []
    assert {path.name for path in (done / "out").iterdir()} == {
        "train", "eval", "parts", "study.html", "study.md", "curves-rate-sft-loss.svg",
    }  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
def test_the_tables_of_a_seed_are_those_of_report(ran: Here, cli, seed: int) -> None:
    page = Path("out/study.md").read_text()
    names = [f"{arm}=out/eval/short/{arm}/{seed}" for arm in ("low", "high")]
    assert f"    vgb report {' '.join(names)}\n" in page
    report = cli("report", *names, "--format", "md")
    assert report.exit_code == 0, report.stderr
    rows = [line for line in report.stdout.splitlines() if line.startswith(("|", "- "))]
    assert len(rows) > 10
    start = page.index(f"#### Training seed {seed} alone")
    section = page[start : page.find("#### Training seed", start + 1)].splitlines()
    assert [row for row in rows if row not in section] == []


def test_the_page_holds_curves_tables_and_what_was_run(ran: Here) -> None:
    page = Path("out/study.html").read_text()
    assert page.count("<svg") == 1 and page.count("<details><summary>Training seed") == 2
    assert "Does a higher rate help?" in page and "over 2 training seeds" in page
    text = Path("out/study.md").read_text()
    assert "| optimiser.lr | 1e-05 | 0.003 |" in text
    assert re.search(r"\| train/low/0 \| done \| \d+ \| checkpoint [0-9a-f]{16} \|", text)
    assert re.findall(r'\b(?:src|href)="(?!#|data:)', page) == []  # it needs no other file


def test_the_curves_are_those_of_the_trainings(ran: Here) -> None:
    from vla_gen_bench.report.curves import curves_figure, load_trainings

    groups = {arm: load_trainings([f"out/train/{arm}/{seed}" for seed in (0, 1)]) for arm in ("low", "high")}
    left, _ = curves_figure(groups, "loss").axes
    thick = [line for line in left.lines if line.get_linewidth() > 1]
    assert [line.get_label() for line in thick] == ["low (2 seeds)", "high (2 seeds)"]
    ends = [run.curve["loss"].iloc[-1] for run in groups["low"]]
    assert thick[0].get_ydata()[-1] == pytest.approx(sum(ends) / 2)
    shown = Path("out/curves-rate-sft-loss.svg").read_text()
    assert "low (2 seeds)" in shown and "mean over seeds with 95% t intervals" in shown


def test_a_recipe_for_another_trainer_s_metric_is_remarked_not_fatal(ran: Here, cli) -> None:
    write_study(curves=["kl"], evaluations={"short": {"suite": "short.yaml", "options": {"temperature": 0.5}}})
    assert cli("study", "study.yaml", "--out", "out").exit_code == 0
    assert "no curve of kl for low, high: out/train/low/0/curve.csv: no column 'kl'" in Path("out/study.md").read_text()


def test_the_command_of_a_training_resumes_it(ran: Here, cli, done: Path) -> None:
    """What runs elsewhere as a command continues what ran here: the same recipe, the same folder."""
    from vla_gen_bench.study.declaration import read_study

    path = write_study(curves=["loss"])
    part = parts_of(read_study(path), path, Path("out"))["train/low/0"]
    before = (part.out / "curve.csv").read_text()
    again = cli(*part.command)
    assert again.exit_code == 0, again.stderr
    assert (part.out / "curve.csv").read_text() == before
    with pytest.raises(UserError, match="recipe differs in 'seed'"):
        from vla_gen_bench.train.run import open_run

        open_run(part.out, part.recipe.model_copy(update={"seed": 9}))
