"""Policies over several training seeds: numbers by hand, and what a seed may and may not add."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_logs import write_log

import vla_gen_bench as vgb
from vla_gen_bench.errors import UserError
from vla_gen_bench.report.api import report_of
from vla_gen_bench.report.formats import to_markdown
from vla_gen_bench.report.load import Run, load_runs
from vla_gen_bench.report.seeds import compare_seeds, seeds_document

COUNT = 40


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Two policies, two seeds each, on the same 40 episodes of two scenarios."""
    folder, rng = tmp_path_factory.mktemp("logs"), np.random.default_rng(3)
    rates = {"a0": 0.4, "a1": 0.5, "b0": 0.7, "b1": 0.6}
    for name, rate in rates.items():
        outcomes = {scenario: (rng.random(COUNT) < rate).tolist() for scenario in ("ind", "unseen_table", "noise_weak")}
        write_log(folder / name, outcomes, policy=name)
    return {name: load_runs([f"{name}={folder / name}"])[0] for name in rates}


def solved(run: Run, scenario: str) -> int:
    return sum(bool(row.success_at_end) for key, row in run.episodes.items() if key[0] == scenario)


def test_rates_are_means_over_seeds_and_episodes(runs: dict[str, Run]) -> None:
    found = compare_seeds({"a": [runs["a0"], runs["a1"]], "b": [runs["b0"], runs["b1"]]}, ["0", "1"])
    means = found.scenario_summaries()
    for scenario, mean in means.items():
        ours = (solved(runs["a0"], scenario) + solved(runs["a1"], scenario)) / (2 * COUNT)
        theirs = (solved(runs["b0"], scenario) + solved(runs["b1"], scenario)) / (2 * COUNT)
        assert mean.estimates[0].value == pytest.approx(ours)
        assert mean.differences[1].value == pytest.approx(theirs - ours)
        assert mean.differences[0] is None and mean.differences[1].p is not None
    assert list(means) == ["ind", "unseen_table", "noise_weak"]
    vision = next(of for of in found.by_dimension.summaries if of.dimension == "vision" and of.kind == "mean")
    both = [means[name].estimates[0].value for name in ("unseen_table", "noise_weak")]
    assert vision.estimates[0].value == pytest.approx(sum(both) / 2)


def test_a_seed_given_again_adds_no_evidence(runs: dict[str, Run]) -> None:
    """Pairs of (seed, episode) taken as independent would narrow intervals by the square root of 2 here."""
    once = report_of([runs["a0"], runs["b0"]], None, None, 0.95, None, True).comparison
    twice = compare_seeds({"a": [runs["a0"]] * 2, "b": [runs["b0"]] * 2}, ["0", "1"]).by_dimension
    pairs = list(zip(once.summaries, twice.summaries, strict=True))
    assert len(pairs) == 3
    for alone, doubled in pairs:
        assert (alone.kind, alone.dimension) == (doubled.kind, doubled.dimension)
        for ours, theirs in zip(alone.estimates + alone.differences, doubled.estimates + doubled.differences):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert (theirs.value, theirs.low, theirs.high) == pytest.approx((ours.value, ours.low, ours.high))
                assert (theirs.p, theirs.p_holm) == (ours.p, ours.p_holm)


def test_tables_show_each_seed_and_count_scenarios(runs: dict[str, Run]) -> None:
    found = compare_seeds({"a": [runs["a0"], runs["a1"]], "b": [runs["b0"], runs["b1"]]}, ["0", "1"])
    text = to_markdown(seeds_document(found))
    assert text.startswith("# Success at the end on suite vision, world builtin v2, over 2 training seeds")
    ours = [solved(runs[name], "ind") / COUNT for name in ("a0", "a1")]
    assert f"({ours[0]:.3f}, {ours[1]:.3f})" in text
    assert text.count("*mean of 2 rows*") == 2 and "## Difference from a" in text
    assert "not the choice of training seeds" in text


def test_an_incomplete_run_is_marked(runs: dict[str, Run], tmp_path: Path) -> None:
    outcomes = {name: [True] * (COUNT - 1) + [None] for name in ("ind", "unseen_table", "noise_weak")}
    write_log(tmp_path / "c", outcomes, policy="c")
    broken = load_runs([f"c={tmp_path / 'c'}"])[0]
    text = to_markdown(seeds_document(compare_seeds({"a": [runs["a0"], runs["a1"]], "c": [broken] * 2}, ["0", "1"])))
    assert text.startswith("# PARTIAL: ") and "†" in text


def test_every_policy_needs_every_seed(runs: dict[str, Run]) -> None:
    with pytest.raises(UserError, match="one run for each training seed"):
        compare_seeds({"a": [runs["a0"], runs["a1"]], "b": [runs["b0"], runs["b1"]]}, ["0", "1", "2"])


def test_a_single_run_is_compared_with_every_seed(runs: dict[str, Run]) -> None:
    """The start of a training has no seeds: its rates stand without brackets, and differences are means over pairs."""
    found = compare_seeds({"a": [runs["a0"]], "b": [runs["b0"], runs["b1"]]}, ["0", "1"])
    text = to_markdown(seeds_document(found))
    row = next(line for line in text.splitlines() if line.startswith("| IND |"))
    _, _, start, trained, _ = row.split("|")
    assert "(" not in start and re.search(r"\(0\.\d{3}, 0\.\d{3}\)$", trained.strip())
    assert f"{solved(runs['a0'], 'ind') / COUNT:.3f}" in start


def test_means_of_a_dimension_show_each_seed(runs: dict[str, Run]) -> None:
    text = to_markdown(seeds_document(compare_seeds({"a": [runs["a0"], runs["a1"]]}, ["0", "1"])))
    each = [
        sum(solved(runs[name], scenario) for scenario in ("unseen_table", "noise_weak")) / (2 * COUNT)
        for name in ("a0", "a1")
    ]
    row = next(line for line in text.splitlines() if line.startswith("| *mean of 2 rows*"))
    assert row.endswith(f"({each[0]:.3f}, {each[1]:.3f}) |")
    assert "Difference" not in text


# ---- the command -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(runs: dict[str, Run]) -> list[str]:
    """The runs as a user names them: two seeds of each policy."""
    return [f"{name[0]}={run.folder}" for name, run in runs.items()]


@pytest.mark.parametrize("kind", ["text", "md", "latex", "html"])
def test_the_command_shows_means_in_every_format(cli, named: list[str], runs: dict[str, Run], kind: str) -> None:
    done = cli("report", *named, "--over-seeds", "--format", kind)
    assert done.exit_code == 0, done.stderr
    mean = (solved(runs["a0"], "ind") + solved(runs["a1"], "ind")) / (2 * COUNT)
    assert "over 2 training seeds" in done.stdout and f"{mean:.3f}" in done.stdout
    assert "Difference from a" in done.stdout


def test_the_command_compares_with_a_baseline(cli, named: list[str]) -> None:
    done = cli("report", *named, "--over-seeds", "--baseline", "b")
    assert "Difference from b" in done.stdout


def test_csv_has_each_seed_and_the_mean(cli, named: list[str], runs: dict[str, Run]) -> None:
    done = cli("report", *named, "--over-seeds", "--format", "csv")
    lines = [line for line in csv.DictReader(done.stdout.splitlines()) if line["scenario"] == "ind"]
    values = {(line["policy"], line["kind"]): (float(line["value"]), line["run"]) for line in lines}
    first, second = (solved(runs[name], "ind") / COUNT for name in ("b0", "b1"))
    assert values["b", "run 1"] == (pytest.approx(first), str(runs["b0"].folder))
    assert values["b", "run 2"] == (pytest.approx(second), str(runs["b1"].folder))
    assert values["b", "mean over seeds"] == (pytest.approx((first + second) / 2), "")
    assert len(values) == len(lines) == 6


def test_python_and_the_command_agree(cli, named: list[str], runs: dict[str, Run], tmp_path: Path) -> None:
    folders = {name: [runs[f"{name}{seed}"].folder for seed in (0, 1)] for name in ("a", "b")}
    start = {name: [True] * COUNT for name in ("ind", "unseen_table", "noise_weak")}
    write_log(tmp_path / "start", start, policy="start")
    report = vgb.compare_seeds(folders | {"start": tmp_path / "start"}, baseline="b")
    assert "Difference from b" in str(report) and "<table>" in report._repr_html_()
    for kind in ("md", "latex", "csv", "html"):
        shown = cli("report", *named, "--over-seeds", "--format", kind).stdout
        assert shown == vgb.compare_seeds(folders).render(kind)
    frame = report.frame()
    assert len(frame[(frame.kind == "mean over seeds") & (frame.scenario == "ind")]) == 3
    assert report.write(tmp_path / "seeds.md").read_text() == report.render("md")


@pytest.mark.parametrize(
    ("keep", "options", "says"),
    [
        ([0, 2], [], "--over-seeds needs several runs of one policy"),
        ([0, 1, 2, 3], ["--baseline", "c"], "--baseline c: not among the policies; known: a, b"),
        ([0, 1, 2, 3], ["--plots", "pictures"], "--over-seeds prints tables alone"),
        ([0, 1, 2, 3], ["--stages"], "--over-seeds prints tables alone"),
        ([0, 1, 2, 3], ["--videos", "1"], "--over-seeds prints tables alone"),
        ([0, 1, 2, 3], ["--metric", "sucess"], "--metric sucess: no such metric"),
        ([0, 0], [], "this run is given twice"),
    ],
)
def test_bad_input_is_named(cli, named: list[str], keep: list[int], options: list[str], says: str) -> None:
    done = cli("report", *(named[place] for place in keep), "--over-seeds", *options)
    assert done.exit_code == 2 and says in done.stderr


def test_seeds_of_different_numbers_are_refused(cli, named: list[str], tmp_path: Path) -> None:
    write_log(tmp_path / "a2", {name: [True] * COUNT for name in ("ind", "unseen_table", "noise_weak")}, policy="a2")
    done = cli("report", *named, f"a={tmp_path / 'a2'}", "--over-seeds")
    assert done.exit_code == 2 and "b has 2 training seeds and another policy 3" in done.stderr


def test_an_incomplete_seed_is_refused_unless_accepted(cli, named: list[str], tmp_path: Path) -> None:
    outcomes = {name: [True] * (COUNT - 1) + [None] for name in ("ind", "unseen_table", "noise_weak")}
    write_log(tmp_path / "a1", outcomes, policy="a1")
    given = [named[0], f"a={tmp_path / 'a1'}", *named[2:], "--over-seeds"]
    assert cli("report", *given).exit_code == 2
    accepted = cli("report", *given, "--allow-partial")
    assert accepted.exit_code == 0 and accepted.stdout.startswith("PARTIAL: ")


def test_other_episodes_are_refused_rather_than_called_paired(cli, named: list[str], tmp_path: Path) -> None:
    fewer = {name: [True] * (COUNT // 2) for name in ("ind", "unseen_table", "noise_weak")}
    write_log(tmp_path / "start", fewer, policy="start")
    done = cli("report", *named, f"start={tmp_path / 'start'}", "--over-seeds", "--allow-partial")
    assert done.exit_code == 2 and "not the same episodes" in done.stderr


def test_what_a_single_run_lacks_is_counted_once(cli, named: list[str], tmp_path: Path) -> None:
    outcomes = {name: [True] * (COUNT - 1) + [None] for name in ("ind", "unseen_table", "noise_weak")}
    write_log(tmp_path / "start", outcomes, policy="start")
    done = cli("report", *named, f"start={tmp_path / 'start'}", "--over-seeds", "--allow-partial")
    assert done.exit_code == 0 and "start: 3 errored" in " ".join(done.stdout.split())


def test_the_baseline_is_a_label_a_policy_or_a_folder(cli, named: list[str], runs: dict[str, Run]) -> None:
    for name in ("b", "b1", str(runs["b1"].folder)):  # the policies of these logs are called as the logs
        assert "Difference from b" in cli("report", *named, "--over-seeds", "--baseline", name).stdout


def test_a_policy_with_one_privileged_seed_is_never_marked_best(tmp_path: Path) -> None:
    outcomes = {name: [True] * COUNT for name in ("ind", "unseen_table", "noise_weak")}
    worse = {name: [place % 2 == 0 for place in range(COUNT)] for name in outcomes}
    least = {name: [place % 4 == 0 for place in range(COUNT)] for name in outcomes}
    for name, given in (("a0", outcomes), ("a1", outcomes), ("b0", worse), ("b1", worse), ("c0", least), ("c1", least)):
        write_log(tmp_path / name, given, policy=name)
    header = tmp_path / "a1" / "run.json"
    data = json.loads(header.read_text())
    data["policy"]["privileged"] = True
    header.write_text(json.dumps(data))
    logs = {name: [tmp_path / f"{name}{seed}" for seed in (0, 1)] for name in ("a", "b", "c")}
    row = next(line for line in vgb.compare_seeds(logs).render("md").splitlines() if line.startswith("| IND |"))
    assert "**1.000**" not in row and "**0.500**" in row


def test_names_are_taken_as_they_are(runs: dict[str, Run]) -> None:
    a, b = ([runs[f"{name}{seed}"].folder for seed in (0, 1)] for name in ("a", "b"))
    assert vgb.compare_seeds({"lr=1e-4": a, "b": b}).comparison.by_dimension.labels == ["lr=1e-4", "b"]
    assert vgb.compare({"lr=1e-4": a[0], "b": b[0]}).comparison.labels == ["lr=1e-4", "b"]
    for policies, says in (
        ({}, "--over-seeds needs several runs"),
        ({"a": [], "b": b}, "a: no logs; give one, or one for each training seed"),
        ({"a\n": a, "a\\n": b}, "two policies would have this name"),
    ):
        with pytest.raises(UserError, match=re.escape(says)):
            vgb.compare_seeds(policies)


def test_a_suite_that_is_not_found_is_named(cli, named: list[str], runs: dict[str, Run], tmp_path: Path) -> None:
    for name, run in runs.items():
        shutil.copytree(run.folder, tmp_path / name)
        header = tmp_path / name / "run.json"
        data = json.loads(header.read_text())
        data["suite"] |= {"id": "my", "digest": "0" * 16}
        data["suite"].pop("definition", None)
        header.write_text(json.dumps(data))
    done = cli("report", *(f"{name[0]}={tmp_path / name}" for name in runs), "--over-seeds")
    assert done.exit_code == 0 and "is not found here" in done.stderr and "name it with --suite" in done.stderr
