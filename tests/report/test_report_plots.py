"""The images of reports: which are drawn, that nothing overlaps, that the same log gives the same file."""

from __future__ import annotations

import itertools
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from report_logs import TABLE1, row, successes, write_log, write_rows

from vla_gen_bench.episodes.suite import load_suite
from vla_gen_bench.log.coverage import coverage
from vla_gen_bench.log.suites import find_suite_of
from vla_gen_bench.report import drawing, plots
from vla_gen_bench.report.compare import compare, find_baseline
from vla_gen_bench.report.load import load_runs
from vla_gen_bench.report.scenarios import ScenarioInfo, describe
from vla_gen_bench.report.severity import sweeps
from vla_gen_bench.report.workspace import coverage_block, coverage_rows


def comparison_of(folders):
    runs = load_runs([str(folder) for folder in folders])
    ids = {key[0] for run in runs for key in run.episodes}
    return compare(runs, describe(ids, find_suite_of(runs[0].header)), find_baseline(runs, None))


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """All 16 scenarios by five policies with names of several lengths, between the paper's SFT and RL."""
    folder, rng = tmp_path_factory.mktemp("five"), np.random.default_rng(0)
    names = ["SFT", "RL (PPO), 2 M steps", "openvla-oft-chunk-4", "a policy with quite a long name", "nano"]
    folders = []
    for place, name in enumerate(names):
        counts = {id: round(a + (b - a) * place / 4) for id, (a, b) in TABLE1.items()}
        outcomes = {id: rng.permutation(successes(k, 192)).tolist() for id, k in counts.items()}
        folders.append(write_log(folder / str(place), outcomes, policy=name, suite="all"))
    return comparison_of(folders)


@pytest.fixture(scope="module")
def pictures(five):
    return plots.figures(five)


def texts_of(figure):
    """Every visible text of a drawn figure with its box in pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = figure.findobj(
        lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text().strip()
    )
    shown = [text for text in found if text.axes is None or text.axes.axison]
    return [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in shown]


NAMES = ("rates", "drops", "wins", "severity-texture-alpha", "severity-noise-alpha")


@pytest.mark.parametrize("name", NAMES)
def test_no_text_overlaps_or_leaves_the_picture(pictures, name):
    assert tuple(pictures) == NAMES
    with drawing.style():
        texts = texts_of(pictures[name])
    assert len(texts) >= 10
    width, height = pictures[name].get_size_inches() * pictures[name].dpi
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, f"'{text}' leaves the image"
    for (one, box), (other, its) in itertools.combinations(texts, 2):
        apart = box.x1 <= its.x0 + 1 or its.x1 <= box.x0 + 1 or box.y1 <= its.y0 + 1 or its.y1 <= box.y0 + 1
        assert apart, f"'{one}' overlaps '{other}'"


def test_bars_are_as_high_as_the_rates(five, pictures):
    axes = pictures["rates"].axes[0]
    heights = [bars.patches[0].get_height() for bars in axes.containers if hasattr(bars, "patches")]
    assert heights == pytest.approx([cell.rate for cell in five.rows[0].cells])  # the first panel is IND


def test_wins_and_losses_are_the_discordant_counts(five, pictures):
    axes = pictures["wins"].axes[0]
    losses, wins = ([patch.get_width() for patch in bars.patches] for bars in axes.containers[:2])
    contrasts = [row.contrasts[1] for row in five.rows]
    assert losses == [-contrast.losses for contrast in contrasts]
    assert wins == [contrast.wins for contrast in contrasts]


def test_a_count_of_none_stands_on_its_own_side(tmp_path):
    folders = [
        write_log(tmp_path / policy, {"ind": [success] * 3}, policy=policy)
        for policy, success in (("base", False), ("other", True))
    ]
    axes = plots.wins_figure(comparison_of(folders)).axes[0]
    texts = [(text.get_text(), text.get_horizontalalignment()) for text in axes.texts]
    assert texts == [("0", "right"), ("3", "left")]


def test_svg_and_png_are_written_and_repeat(tmp_path):
    outcomes = {"ind": [True, False], "noise_weak": [True, False], "noise_strong": [False, False]}
    folders = [write_log(tmp_path / policy, outcomes, policy=policy) for policy in ("p", "q")]
    first, second = (plots.write_plots(plots.figures(comparison_of(folders)), tmp_path / name) for name in ("a", "b"))
    names = ("rates", "drops", "wins", "severity-noise-alpha")
    assert {path.name for path in first} == {f"{name}.{ending}" for name in names for ending in ("svg", "png")}
    for path, again in zip(first, second):
        assert path.read_bytes() == again.read_bytes()
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_command_writes_pictures(cli, tmp_path):
    run = write_log(tmp_path / "run", {"ind": [True, False], "unseen_table": [True, False]}, policy="p")
    ran = cli("report", run, "--plots", tmp_path / "plots")
    assert ran.exit_code == 0
    # one run has nothing to be compared with; one strength is no sweep
    assert {path.name for path in (tmp_path / "plots").glob("*.svg")} == {"rates.svg", "drops.svg"}


def test_bars_stay_distinct_in_print():
    looks = [(look["color"], look["hatch"]) for look in map(drawing.bar_style, range(64))]
    assert len(set(looks)) == 64
    assert len({look["hatch"] for look in map(drawing.bar_style, range(8))}) == 8  # without any colour


def test_workspace_covered_by_hand(tmp_path):
    # 2 cm cells: a path of 3 states in 2 cells, one of them shared with a second path of 2 states in 1 cell
    turns = np.stack([np.eye(3)] * 3)
    paths = [np.array([[0.30, 0, 0.1], [0.305, 0, 0.1], [0.33, 0, 0.1]]), np.array([[0.30, 0, 0.1], [0.30, 0, 9.0]])]
    run = write_log(tmp_path / "run", {"ind": [True, False]}, policy="p")
    write_rows(
        run, [row("ind", 0, i, not i, coverage=coverage(path, turns[: len(path)])) for i, path in enumerate(paths)]
    )
    rows = coverage_rows(comparison_of([run]))
    (line,) = coverage_block(rows).sections[0][1]
    # cells per episode (2 + 1) / 2; 2 in all; 1 of 5 states is above the grid; never turned; 2 episodes
    assert (line.label, [cell.main for cell in line.cells]) == ("p", ["1.5", "2", "20.0%", "0.0", "2"])
    figure = plots.figures(comparison_of([run]))["workspace"]
    shown = figure.axes[0].images[0].get_array()
    assert sorted(shown.compressed()) == [0.5, 1.0]  # one cell by one of two episodes, one by both


@pytest.mark.parametrize("damage", [{"cells": "AA"}, {"cells": "AA=="}, {"cells": "//8="}])
def test_damaged_cells_are_named(cli, tmp_path, damage):
    run = write_log(tmp_path / "run", {"ind": [True, False]}, policy="p")
    whole = coverage(np.zeros((1, 3)), np.eye(3)[None])
    write_rows(run, [row("ind", 0, i, not i, coverage={**whole, **damage}) for i in range(2)])
    ran = cli("report", run, "--stages")
    assert ran.exit_code == 2 and "cells of an episode are damaged" in ran.stderr


@pytest.mark.parametrize("damage", [{"cells": 3}, {"states": 0}, {"outside": "1"}, {"mean_rotation": [1] * 8}])
def test_coverage_of_another_shape_is_a_bad_line(cli, tmp_path, damage):
    run = write_log(tmp_path / "run", {"ind": [True, False]}, policy="p")
    whole = coverage(np.zeros((1, 3)), np.eye(3)[None])
    write_rows(run, [row("ind", 0, i, not i, coverage=whole | (damage if i else {})) for i in range(2)])
    ran = cli("report", run, "--stages", "--allow-partial")
    assert ran.exit_code == 0 and "episodes.jsonl:2: a field is of the wrong type" in ran.stderr


def test_a_page_needs_no_data_frames(tmp_path):
    """Importing pandas is a tenth of a report's time."""
    run = write_log(tmp_path / "run", {"ind": [True, False]}, policy="p")
    write_rows(run, [row("ind", 0, i, True, coverage=coverage(np.zeros((1, 3)), np.eye(3)[None])) for i in range(2)])
    code = (
        "import sys; from vla_gen_bench.report.api import compare; compare(sys.argv[1]).render('html');"
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(run)], check=True)


def test_logs_without_coverage_have_no_map(five):
    assert coverage_rows(five) is None


def test_sweeps_are_read_from_the_shifts():
    found = {
        sweep.name: (sweep.ids, sweep.values)
        for sweep in sweeps(describe(load_suite("all").scenarios, load_suite("all")))
    }
    assert found == {
        "texture-alpha": (("texture_weak", "texture_strong"), (0.3, 0.5)),
        "noise-alpha": (("noise_weak", "noise_strong"), (0.3, 0.5)),
    }


def test_a_sweep_is_one_number_of_one_shift():
    def info(id, name, alpha, table="train"):
        effect = {"name": name, "params": {"alpha": alpha}}
        return ScenarioInfo(id, id, "vision", {"table": {"pool": table, "params": {}}, "effects": [effect]})

    infos = [
        info("b", "noise", 0.8),
        info("a", "noise", 0.2),
        info("c", "noise", 0.5, "unseen"),
        info("d", "blur", 0.1),
    ]
    assert [(sweep.ids, sweep.title) for sweep in sweeps(infos)] == [(("a", "b"), "noise alpha")]
