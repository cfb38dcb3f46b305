"""Training curves: averaging over seeds by hand, grouping, messages."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from published import EXPERIMENTS, PRESETS

from vla_gen_bench.errors import UserError
from vla_gen_bench.report.curves import curves_figure, grouped, load_trainings, mean_curve, points


def training(folder, name, rows, columns="step,samples,wall_s,loss,success", seed=0, settings="{}"):
    folder.mkdir()
    (folder / "recipe.yaml").write_text(f"name: {name}\ntrainer: sft\nseed: {seed}\nvalue: {settings}\n")
    (folder / "curve.csv").write_text("\n".join([columns, *rows]) + "\n")
    return str(folder)


@pytest.fixture
def trainings(tmp_path):
    """Two seeds of one recipe and one run of another; success is logged in every second row only."""

    def grow(slope):
        return [f"{i},{i * 10},{i * 30},{1 / i},{'' if i % 2 else slope * i}" for i in range(1, 9)]

    made = [training(tmp_path / f"a{seed}", "fast", grow(slope), seed=seed) for seed, slope in enumerate((0.1, 0.12))]
    return [*made, training(tmp_path / "b", "slow", grow(0.02))]


def test_mean_and_interval_over_seeds_by_hand():
    # at x = 1 the seeds are 1 and 3: mean 2, standard deviation sqrt(2), error 1; t for 95% and 1 degree is 12.706
    x, mean, half = mean_curve([(np.array([0.0, 2]), np.array([0.0, 2])), (np.array([1.0, 3]), np.array([3.0, 3]))])
    assert (x[0], x[-1]) == (1, 2)  # where both have values
    assert (mean[0], half[0]) == pytest.approx((2, 12.7062), abs=1e-4)
    # at x = 2: 2 and 3
    assert (mean[-1], half[-1]) == pytest.approx((2.5, 12.7062 * 0.5), abs=1e-4)


def test_one_seed_is_drawn_as_it_is():
    x, mean, half = mean_curve([(np.array([1.0, 5]), np.array([0.2, 0.4]))])
    assert x.tolist() == [1, 5] and mean.tolist() == [0.2, 0.4] and np.isnan(half).all()


def test_seeds_whose_wall_times_do_not_overlap_have_no_mean_over_it(tmp_path):
    """One seed trained on a busy machine: as many samples, at other times. The figure must not be lost for it."""
    rows = [[f"{i},{i * 10},{start + i},1,{i / 10}" for i in range(1, 5)] for start in (0, 100)]
    made = load_trainings([training(tmp_path / f"a{seed}", "x", its, seed=seed) for seed, its in enumerate(rows)])
    left, right = curves_figure(made, "success").axes
    drawn = [[line for line in axes.lines if len(line.get_xdata())] for axes in (left, right)]
    thick = [[line for line in lines if line.get_linewidth() > 1] for lines in drawn]
    assert [len(lines) for lines in thick] == [1, 0]
    assert len([line for line in right.lines if line.get_linewidth() < 1]) == 2


def test_seeds_of_different_lengths_are_named(tmp_path):
    rows = [[f"{start + i},{start + i},{i},1,{i / 10}" for i in range(1, 5)] for start in (0, 100)]
    made = load_trainings([training(tmp_path / f"a{seed}", "x", its, seed=seed) for seed, its in enumerate(rows)])
    with pytest.raises(UserError, match="the seeds of x have no stretch in common; give runs of similar length"):
        curves_figure(made, "success")


def test_rows_without_the_metric_are_left_out(trainings):
    x, y = points(load_trainings(trainings)[0], "samples", "success")
    assert x.tolist() == [20, 40, 60, 80] and y == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_runs_of_one_recipe_are_one_line(trainings):
    figure = curves_figure(load_trainings(trainings), "success")
    left, right = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["fast (2 seeds)", "slow"]
    thick = [line for line in left.lines if line.get_linewidth() > 1]
    assert len(thick) == 2 and len(left.lines) == 4  # and the two seeds
    assert thick[0].get_ydata()[-1] == pytest.approx((0.8 + 0.96) / 2)
    assert (left.get_xlabel(), right.get_xlabel()) == ("samples", "wall time, minutes")
    assert [line for line in right.lines if line.get_linewidth() > 1][1].get_xdata()[-1] == pytest.approx(240 / 60)


def test_recipes_of_one_name_that_differ_are_lines_of_their_own(tmp_path):
    made = [
        training(tmp_path / f"r{place}", "ppo", ["1,2,3,0.5,0.5"], seed=place, settings=settings)
        for place, settings in enumerate(("{source: h0}", "{source: concat}", "{source: h0}"))
    ]
    groups = grouped(load_trainings(made))
    assert {label: len(runs) for label, runs in groups.items()} == {
        "ppo (value.source=h0)": 2,
        "ppo (value.source=concat)": 1,
    }


def test_a_run_given_twice_is_no_second_seed(cli, trainings, tmp_path):
    ran = cli("curves", trainings[0], trainings[0], "--out", tmp_path / "c.png")
    assert ran.exit_code == 2 and "the same recipe with the same seed; leave one out" in ran.stderr
    assert not (tmp_path / "c.png").exists()


def test_command_writes_the_picture(cli, trainings, tmp_path):
    assert cli("curves", *trainings, "--out", tmp_path / "c.svg").exit_code == 0
    assert ElementTree.parse(tmp_path / "c.svg").getroot().tag.endswith("svg")
    assert cli("curves", *trainings, "--metric", "loss", "--out", tmp_path / "c.png").exit_code == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "curve.csv").unlink(), "no training run there"),
        (lambda folder: (folder / "curve.csv").write_text("step,wall_s,success\n1,2,often\n"), "other than numbers"),
        (lambda folder: (folder / "curve.csv").write_text("step,samples,wall_s,succes\n1,2,3,1\n"), "'success'"),
        (lambda folder: (folder / "curve.csv").write_text("step,success\n1,2\n"), "no column 'wall_s'"),
        (lambda folder: (folder / "curve.csv").write_text("step,samples,wall_s,success\n1,2,3,\n"), "is empty"),
        (lambda folder: (folder / "curve.csv").write_text(""), "not a table"),
        (lambda folder: (folder / "recipe.yaml").write_text("trainer: sft\n"), "no name"),
    ],
)
def test_what_is_wrong_is_named(cli, tmp_path, change, message):
    run = tmp_path / "run"
    training(run, "x", ["1,2,3,0.5,0.5"])
    change(run)
    ran = cli("curves", run, "--out", tmp_path / "c.png")
    assert ran.exit_code == 2 and message in ran.stderr and ran.stderr.count("\n") == 1


def test_curves_need_a_picture_to_write_to(cli, trainings, tmp_path):
    assert "--out" in cli("curves", *trainings).stderr
    assert "end in" in cli("curves", *trainings, "--out", tmp_path / "c.txt").stderr


def test_the_presets_were_run_and_draw_as_lines_of_their_own():
    """With `ppo-warmup`, which `openvla-ppo` is itself since it starts from the warm-up."""
    runs = load_trainings([str(path) for path in sorted((EXPERIMENTS / "data" / "presets").iterdir())])
    later = {"ppo-value-h0"}  # its run: docs/experiments/critic.md
    assert set(grouped(runs)) == {"openvla-ppo", "ppo-warmup", *PRESETS} - later
    assert {len(run.curve) for run in runs} == {3}
    assert {run.curve["env_steps"].max() for run in runs} == {13824}
    left, _ = curves_figure(runs, "success").axes
    assert len(left.lines) == len(runs)
    [dpo] = [run for run in runs if run.name == "dpo"]
    assert dpo.curve["pairs"].min() > 0
    assert all(run.curve["kl"].max() > 0 for run in runs)  # each was paid something, and moved


def test_the_old_option_names_the_command(cli, trainings):
    ran = cli("report", "--curves", *trainings)
    assert ran.exit_code == 2 and "vgb curves RUN... --out FILE.png" in ran.stderr
