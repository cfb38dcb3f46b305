"""`vgb report`: from logs to tables, with numbers worked out by hand."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from report_logs import TABLE1, row, successes, write_log, write_rows

from vla_gen_bench.episodes.suite import load_suite, union
from vla_gen_bench.log.files import EPISODES_FILE, RUN_FILE
from vla_gen_bench.report.blocks import Block, Document, Line, Text
from vla_gen_bench.report.formats import to_latex
from vla_gen_bench.report.scenarios import describe
from vla_gen_bench.report.stats import percentile_interval
from vla_gen_bench.report.summaries import bootstrap_rates, mean_tests

SUITE = """
id: dim
version: "1"
scenarios:
  ind:      {label: IND, dimension: ind}
  noise_20: {label: Noise 0.2, dimension: vision, shift: {effects: [{name: noise, alpha: 0.2}]}}
  noise_80: {label: Noise 0.8, dimension: vision, shift: {effects: [{name: noise, alpha: 0.8}]}}
  far:      {label: Far, dimension: execution, shift: {layout: {pool: ring, displacement: 0.06}}}
"""
Y, N = True, False
BASE = {"ind": successes(8, 10), "noise_20": successes(6, 10), "noise_80": successes(2, 10), "far": successes(4, 10)}
# Against BASE: ind +2/-0, noise_20 +3/-1 (episode 0 lost; 6, 7, 8 won), noise_80 +7/-0, far +0/-4.
OTHER = {"ind": [Y] * 10, "noise_20": [N] + [Y] * 8 + [N], "noise_80": successes(9, 10), "far": [N] * 10}


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "dim.yaml"
    path.write_text(SUITE)
    return str(path)


@pytest.fixture
def pair(tmp_path, suite):
    """Two runs of one suite: BASE and OTHER."""
    base = write_log(tmp_path / "base", BASE, policy="base", suite=suite)
    return base, write_log(tmp_path / "other", OTHER, policy="other", suite=suite)


def table(cli, *arguments):
    """The CSV of a report, by (kind, scenario or dimension, policy)."""
    ran = cli("report", *arguments, "--format", "csv")
    assert ran.exit_code == 0, ran.stderr
    rows = csv.DictReader(io.StringIO(ran.stdout))
    return {(one["kind"], one["scenario"] or one["dimension"], one["policy"]): one for one in rows}


# ---- numbers ------------------------------------------------------------------------------------------------------


def test_means_and_drops_by_hand(cli, pair):
    rows = table(cli, *pair)
    # vision: mean of 6/10 and 2/10 = 0.4; IND 0.8: drop 0.4, relative 0.4 / 0.8 = 0.5
    assert float(rows["mean", "vision", "base"]["value"]) == pytest.approx((0.6 + 0.2) / 2)
    assert float(rows["drop", "vision", "base"]["value"]) == pytest.approx(0.8 - 0.4)
    assert float(rows["relative drop", "vision", "base"]["value"]) == pytest.approx((0.8 - 0.4) / 0.8)
    # all shifted: the mean of three rows, not of two dimensions: (0.6 + 0.2 + 0.4) / 3 = 0.4
    assert float(rows["mean", "ood", "base"]["value"]) == pytest.approx((0.6 + 0.2 + 0.4) / 3)
    # other: IND 1, vision (0.8 + 0.9) / 2 = 0.85: drop 0.15; base's was 0.4: difference -0.25
    assert float(rows["drop", "vision", "other"]["difference"]) == pytest.approx((1 - 0.85) - (0.8 - 0.4))
    for one in rows.values():
        assert float(one["low"]) <= float(one["value"]) <= float(one["high"])


def test_contrasts_by_hand(cli, pair):
    rows = table(cli, *pair)
    won = {id: rows["scenario", id, "other"] for id in BASE}
    assert {id: (int(one["wins"]), int(one["losses"]), int(one["pairs"])) for id, one in won.items()} == {
        "ind": (2, 0, 10), "noise_20": (3, 1, 10), "noise_80": (7, 0, 10), "far": (0, 4, 10),
    }  # fmt: skip
    # exact McNemar: 2 * 2^-2 = 0.5; 2 * (1 + 4) / 2^4 = 0.625; 2 * 2^-7 = 0.015625; 2 * 2^-4 = 0.125
    p = {id: float(one["p"]) for id, one in won.items()}
    assert p == pytest.approx({"ind": 0.5, "noise_20": 0.625, "noise_80": 0.015625, "far": 0.125})
    # Holm over 4: 0.015625 * 4 = 0.0625; 0.125 * 3 = 0.375; 0.5 * 2 = 1; 0.625 * 1, but at least 1
    corrected = {id: float(one["p_holm"]) for id, one in won.items()}
    assert corrected == pytest.approx({"noise_80": 0.0625, "far": 0.375, "ind": 1, "noise_20": 1})
    assert float(won["noise_80"]["difference"]) == pytest.approx(0.9 - 0.2)
    assert rows["scenario", "ind", "base"]["difference"] == ""
    # the mean of execution is `far` alone: four episodes lost; all four signs alike: 2 * 2^-4, by 99,999 random flips
    assert float(rows["mean", "execution", "other"]["p"]) == pytest.approx(0.125, abs=0.005)
    # Holm over the two dimensions: the smaller p times 2, the larger one at least that; their sum is not of the family
    p = {name: float(rows["mean", name, "other"]["p"]) for name in ("vision", "execution")}
    corrected = {name: float(rows["mean", name, "other"]["p_holm"]) for name in p}
    assert p["vision"] < p["execution"]
    assert corrected == pytest.approx({"vision": 2 * p["vision"], "execution": max(2 * p["vision"], p["execution"])})
    assert rows["mean", "ood", "other"]["p"] and rows["mean", "ood", "other"]["p_holm"] == ""
    assert rows["drop", "execution", "other"]["p"] == ""


def test_text_by_hand(cli, pair):
    lines = cli("report", *pair).stdout.splitlines()
    # Wilson of 8/10: 0.490 to 0.943; of 10/10: 0.722 to 1
    assert "  IND               0.800 [0.490, 0.943] 8/10  > 1.000 [0.722, 1.000] 10/10" in lines
    ind, drop = next(x for x in lines if "+0.200" in x), next(x for x in lines if "drop from IND" in x)
    assert re.fullmatch(r"  IND +\+0\.200 \[-0\.\d{3}, \+0\.\d{3}\] 2:0 p 1\.00", ind)
    assert re.fullmatch(r"  drop from IND +40\.0 pp \[[\d., ]+\] +15\.0 pp \[[\d., -]+\]", drop)
    assert "Difference from base" in lines
    order = [lines.index(title) for title in ("In distribution", "Vision", "Execution", "All shifted scenarios")]
    assert order == sorted(order)


def test_reference_counts_reproduce_as_an_unpaired_table(cli, tmp_path):
    """The paper's 192 episodes of SFT and RL were not the same ones: seeds differ here."""
    folders = []
    for place, policy in enumerate(("SFT", "RL")):
        outcomes = {name: successes(k[place], 192) for name, k in TABLE1.items()}
        folders.append(write_log(tmp_path / policy, outcomes, policy=policy, suite="all", seed=place))
    rows = table(cli, *folders)
    # Unseen table: 138/192 = 0.719 [0.651, 0.778], 162/192 = 0.844 [0.786, 0.888], +0.125 [+0.042, +0.206]
    sft, rl = rows["scenario", "unseen_table", "SFT"], rows["scenario", "unseen_table", "RL"]
    assert [float(sft[name]) for name in ("value", "low", "high")] == pytest.approx([0.719, 0.651, 0.778], abs=6e-4)
    assert [float(rl[name]) for name in ("value", "low", "high")] == pytest.approx([0.844, 0.786, 0.888], abs=6e-4)
    gap = [float(rl[name]) for name in ("difference", "difference_low", "difference_high")]
    assert gap == pytest.approx([0.125, 0.042, 0.206], abs=6e-4)
    assert rl["paired"] == "False" and rl["wins"] == "" and float(rl["p"]) <= 0.0043
    # means over the rows, of 192: vision SFT (138+138+107+136+97)/5 = 123.2, RL (162+160+121+164+128)/5 = 147
    assert float(rows["mean", "vision", "SFT"]["value"]) == pytest.approx(123.2 / 192)
    assert float(rows["relative drop", "vision", "RL"]["value"]) == pytest.approx((180 - 147) / 180)
    # execution SFT (109+65+55)/3 = 76.33: drop (150 - 76.33)/150 = 49.1%; RL (155+153+143)/3 = 150.33: 16.5%
    assert float(rows["relative drop", "execution", "SFT"]["value"]) == pytest.approx(0.491, abs=6e-4)
    assert float(rows["relative drop", "execution", "RL"]["value"]) == pytest.approx(0.165, abs=6e-4)
    text = cli("report", *folders).stdout
    assert "unpaired p" in text and "Boschloo" in text and "McNemar" not in text


def test_drop_is_blank_where_ind_is_zero(cli, tmp_path, suite):
    run = write_log(tmp_path / "zero", {"ind": [N] * 4, "far": [Y] * 4}, policy="zero", suite=suite)
    rows = table(cli, run)
    assert float(rows["drop", "execution", "zero"]["value"]) == -1
    assert rows["relative drop", "execution", "zero"]["value"] == ""


def test_success_once_is_a_metric(cli, tmp_path, suite):
    run = write_log(tmp_path / "run", {"ind": [N] * 4}, policy="late", suite=suite)
    write_rows(run, [row("ind", 0, i, False) | {"success_once": i < 3} for i in range(4)])
    assert table(cli, run)["scenario", "ind", "late"]["k"] == "0"
    assert table(cli, run, "--metric", "success_once")["scenario", "ind", "late"]["k"] == "3"


def test_confidence_widens_every_interval(cli, pair):
    narrow, wide = table(cli, *pair, "--confidence", "0.8"), table(cli, *pair, "--confidence", "0.99")
    for key in (("scenario", "far", "base"), ("mean", "vision", "base")):
        assert float(wide[key]["low"]) < float(narrow[key]["low"])
    assert float(wide["scenario", "far", "other"]["difference_low"]) < float(
        narrow["scenario", "far", "other"]["difference_low"]
    )


def test_the_same_runs_give_the_same_report(cli, pair):
    assert cli("report", *pair).stdout == cli("report", *pair).stdout


def test_bootstrap_keeps_pairs_together():
    """Two policies with equal outcomes differ by nothing in any sample, nor do two scenarios."""
    outcomes = np.tile(np.array([1.0, 0, 0, 1, 1, 0, 1, 0]), (2, 2, 1))
    rates = bootstrap_rates(outcomes, resamples=100)
    assert (rates == rates[:, :1, :1]).all() and rates.std() > 0.05


def test_bootstrap_draws_unpaired_policies_apart():
    """Ids that only one policy did: each sample keeps 4 of each policy, so rates are quarters."""
    outcomes = np.full((2, 1, 8), np.nan)
    outcomes[0, 0, :4], outcomes[1, 0, 4:] = [1, 0, 1, 0], [1, 1, 0, 0]
    rates = bootstrap_rates(outcomes, resamples=200)
    assert np.isin(rates, [0, 0.25, 0.5, 0.75, 1]).all()
    assert abs(np.corrcoef(rates[:, 0, 0], rates[:, 0, 1])[0, 1]) < 0.3


def test_bootstrap_agrees_with_the_parametric_one_where_rows_are_independent():
    """Reference intervals of the paper's group means and relative drops, from binomial samples of each cell."""
    rng = np.random.default_rng(0)
    infos = describe(TABLE1, load_suite("all"))
    outcomes = np.array(
        [[rng.permutation(successes(TABLE1[i.id][p], 192)) for i in infos] for p in (0, 1)], dtype=float
    )
    rates = np.median(bootstrap_rates(outcomes), axis=0)
    assert rates == pytest.approx(np.array([TABLE1[info.id] for info in infos]) / 192, abs=0.006)
    samples = bootstrap_rates(outcomes)
    of = {
        name: [place for place, info in enumerate(infos) if info.dimension == name]
        for name in ("ind", "vision", "execution")
    }
    mean = samples[:, of["vision"]].mean(axis=1)
    drop = 1 - samples[:, of["execution"]].mean(axis=1) / samples[:, of["ind"][0]]
    # vision: SFT .642 [.611, .672], RL .766 [.740, .792]
    assert percentile_interval(mean, 0.95).T == pytest.approx(np.array([[0.611, 0.672], [0.740, 0.792]]), abs=0.01)
    # execution, relative drop: SFT 49.1% [42.5, 55.0], RL 16.5% [11.6, 21.0]
    assert percentile_interval(drop, 0.95).T == pytest.approx(np.array([[0.425, 0.550], [0.116, 0.210]]), abs=0.02)


def test_bootstrap_agrees_with_the_binomial_spread():
    # a rate of 0.5 over 192: standard deviation sqrt(0.25 / 192) = 0.0361
    outcomes = np.array(successes(96, 192), dtype=float)[None, None]
    assert bootstrap_rates(outcomes).std() == pytest.approx(0.0361, abs=0.002)


# ---- what is compared with what -----------------------------------------------------------------------------------


def test_baseline_by_policy_label_and_folder(cli, pair, tmp_path):
    base, other = pair
    for name in ("other", other, f"{other}/"):
        assert "Difference from other" in cli("report", *pair, "--baseline", name).stdout
    assert "Difference from ppo" in cli("report", base, f"ppo={other}", "--baseline", "ppo").stdout
    ran = cli("report", *pair, "--baseline", "othr")
    assert ran.exit_code == 2 and "did you mean 'other'" in ran.stderr


def test_runs_of_one_policy_are_told_apart_by_their_folders(cli, tmp_path, suite):
    folders = [tmp_path / name / "dim-builtin" for name in ("step_1", "step_2")]
    for folder in folders:
        write_log(folder, BASE, policy="same", suite=suite)
    assert re.search(r"same \(step_1\) +same \(step_2\)", cli("report", *folders).stdout)


def test_the_best_is_marked_unless_all_are_equal(cli, tmp_path, suite, pair):
    marked = [line for line in cli("report", *pair).stdout.splitlines() if ">" in line]
    assert not any("relative" in line or "drop" in line for line in marked)
    twin = write_log(tmp_path / "twin", BASE, policy="twin", suite=suite)
    assert ">" not in cli("report", pair[0], twin).stdout


def test_partly_shared_episodes_are_paired_over_the_shared_ones(cli, tmp_path, suite):
    # base did episodes 0..9, short 0..7: shared 8 of 10 are at least half; short wins 1 (episode 5), loses none
    base = write_log(tmp_path / "base", {"ind": successes(5, 10)}, policy="base", suite=suite)
    short = write_log(tmp_path / "short", {"ind": successes(6, 8)}, policy="short", suite=suite)
    one = table(cli, base, short)["scenario", "ind", "short"]
    assert (one["paired"], one["pairs"], one["wins"], one["losses"]) == ("True", "8", "1", "0")
    assert float(one["difference"]) == pytest.approx(1 / 8)


def test_the_difference_of_means_is_the_mean_of_the_rows_differences(cli, tmp_path, suite):
    """base solves 2 of the first 7 episodes and all of the last 3, which short did not run: +2/7 in both rows."""
    solved = [True] * 2 + [False] * 5 + [True] * 3
    base = write_log(tmp_path / "base", dict.fromkeys(BASE, solved), policy="base", suite=suite)
    short = write_log(tmp_path / "short", dict.fromkeys(BASE, [True] * 4 + [False] * 3), policy="short", suite=suite)
    rows = table(cli, base, short)
    each = [float(rows["scenario", name, "short"]["difference"]) for name in ("noise_20", "noise_80")]
    mean = rows["mean", "vision", "short"]
    assert each == pytest.approx([2 / 7] * 2) and float(mean["difference"]) == pytest.approx(2 / 7)
    assert float(mean["value"]) == pytest.approx(4 / 7) and float(rows["mean", "vision", "base"]["value"]) == 0.5
    drop = rows["drop", "vision", "short"]
    assert float(drop["difference"]) == pytest.approx(0) and float(drop["value"]) == pytest.approx(0)


def test_means_over_other_episodes_are_not_tested():
    ours, theirs = np.ones((2, 4)), np.zeros((2, 4))
    assert mean_tests(np.stack([theirs, ours]), 0)[1] == pytest.approx(0.125, abs=0.005)  # 2 * 2^-4
    ours[0, 3] = np.nan
    assert mean_tests(np.stack([theirs, ours]), 0) == [1.0, None]


def test_a_scenario_one_run_left_out_is_blank(cli, tmp_path, suite):
    base = write_log(tmp_path / "base", BASE, policy="base", suite=suite)
    part = {name: BASE[name] for name in ("ind", "noise_20")}
    rows = table(cli, base, write_log(tmp_path / "part", part, policy="part", suite=suite))
    assert rows["scenario", "far", "part"]["value"] == rows["scenario", "far", "part"]["difference"] == ""
    assert rows["mean", "vision", "part"]["value"] == ""  # one of its two rows is not there
    assert float(rows["mean", "vision", "base"]["value"]) == pytest.approx(0.4)


def test_runs_without_a_scenario_in_common(cli, tmp_path, suite):
    one = write_log(tmp_path / "one", {"ind": [Y]}, policy="one", suite=suite)
    two = write_log(tmp_path / "two", {"far": [Y]}, policy="two", suite=suite)
    ran = cli("report", one, two)
    assert ran.exit_code == 0 and "Holm" not in ran.stdout
    assert cli("report", one, two, "--out", tmp_path / "page.html").exit_code == 0
    assert "two and one have no scenario in common" in (tmp_path / "page.html").read_text()
    blank = table(cli, one, two)["scenario", "far", "one"]
    assert (blank["value"], blank["low"], blank["n"]) == ("", "", "0")


def test_a_single_run_has_no_baseline(cli, pair):
    assert "Difference" not in cli("report", pair[0], "--baseline", "base").stdout
    assert "not among the runs" in refused(cli, pair[0], "--baseline", "other one")


def test_a_suite_that_is_gone_leaves_scenarios_ungrouped(cli, tmp_path, suite):
    run = write_log(tmp_path / "run", BASE, policy="base", suite=suite)
    moved = tmp_path / "moved.yaml"
    shutil.move(suite, moved)
    ran = cli("report", run)
    assert ran.exit_code == 0 and "name it with --suite" in ran.stderr and "Other" in ran.stdout
    assert "Vision" in cli("report", run, "--suite", moved).stdout
    ran = cli("report", run, "--suite", "vision")
    assert ran.exit_code == 2 and "digest" in ran.stderr


# ---- what is refused, and what is marked --------------------------------------------------------------------------


def refused(cli, *arguments):
    ran = cli("report", *arguments)
    assert ran.exit_code == 2 and ran.stdout == "" and ran.stderr.count("\n") == 1, ran
    return ran.stderr


def test_mixed_suites_are_refused(cli, tmp_path, suite, pair):
    other = write_log(tmp_path / "vision", {"ind": [Y]}, policy="x")
    assert "differ in suite" in refused(cli, pair[0], other)


@pytest.mark.parametrize("field", ["name", "version", "catalog", "pack"])
def test_mixed_worlds_are_refused(cli, tmp_path, suite, pair, field):
    world = {"name": "builtin", "version": "2", "catalog": "2" * 16, "pack": "3" * 16, field: "another"}
    other = write_log(tmp_path / "w", BASE, policy="x", suite=suite, change={"world": world})
    assert "differ in world" in refused(cli, pair[0], other)


def test_episodes_drawn_differently_are_refused(cli, tmp_path, suite, pair):
    rows = [row(name, 0, i, one) | {"spec_digest": "new"} for name, all in BASE.items() for i, one in enumerate(all)]
    write_rows(pair[1], rows)
    assert "drawn differently" in refused(cli, *pair)


def test_no_log_no_header_and_twice_the_same_are_refused(cli, tmp_path, pair):
    assert "no evaluation log" in refused(cli, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / RUN_FILE).write_text("{}")
    assert "suite.digest" in refused(cli, tmp_path / "empty")
    assert "twice" in refused(cli, pair[0], f"x={pair[0]}")


def test_missing_episodes_are_refused_or_marked(cli, tmp_path, suite):
    run = write_log(tmp_path / "run", {"ind": [Y] * 10, "far": [Y] * 7}, policy="p", suite=suite)
    assert "3 missing" in refused(cli, run)
    text = cli("report", run, "--allow-partial").stdout
    assert text.startswith("PARTIAL")
    marked = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and "†" in line]
    assert marked == ["Far", "mean", "drop", "relative"]  # IND is complete
    assert re.search(r"Far +1\.000† \[[\d., ]+\] 7/7, 3 missing", text)


def test_errored_episodes_are_no_failures(cli, tmp_path, suite):
    run = write_log(tmp_path / "run", {"ind": [Y] * 6 + [N] * 2 + [None] * 2}, policy="p", suite=suite)
    assert "2 errored" in refused(cli, run)
    one = table(cli, run, "--allow-partial")["scenario", "ind", "p"]
    assert (one["k"], one["n"], one["errors"], one["partial"]) == ("6", "8", "2", "True")
    assert "6/8, 2 errored" in cli("report", run, "--allow-partial").stdout


def test_bad_lines_are_named_and_everything_else_counts(cli, tmp_path, suite):
    run = write_log(tmp_path / "run", {"ind": successes(6, 10)}, policy="p", suite=suite)
    path = run / EPISODES_FILE
    lines = path.read_text().splitlines()
    lines[1], lines[3], lines[8] = "{oops", json.dumps({"scenario": "ind"}), lines[8].replace("false", '"no"')
    path.write_text("\n".join(lines)[:-20])  # the last line is cut as well
    ran = cli("report", run, "--allow-partial")
    assert ran.exit_code == 0
    assert ran.stderr.splitlines() == [
        f"{path}:2: not JSON: Expecting property name enclosed in double quotes; left out",
        f"{path}:4: no field 'seed'; left out",
        f"{path}:9: a field is of the wrong type; left out",
        f"{path}:10: the last line is unfinished; left out",
    ]
    assert "4/6, 4 missing" in ran.stdout  # 0..5 succeeded, of these 1 and 3 are lost; 8 and 9 were failures
    assert cli("report", run).exit_code == 2


def test_gzipped_logs_are_read(cli, tmp_path, pair):
    plain = cli("report", *pair).stdout
    path = pair[1] / EPISODES_FILE
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert cli("report", *pair).stdout == plain
    path.with_name(path.name + ".gz").write_bytes(b"not gzip")
    assert "episodes.jsonl.gz: damaged or truncated gzip" in refused(cli, *pair)


def test_suites_that_were_run_together_are_found_together(cli, tmp_path):
    suite = union([load_suite("vision"), load_suite("execution")])
    what = {"id": suite.id, "version": suite.version, "digest": suite.digest(), "sources": ["vision", "execution"]}
    run = write_log(tmp_path / "run", {"ind": [Y], "unseen_position": [Y]}, policy="p", change={"suite": what})
    ran = cli("report", run)
    assert ran.stderr == "" and "Execution" in ran.stdout and "Unseen position" in ran.stdout


def test_an_episode_that_is_there_twice_counts_once(cli, tmp_path, suite):
    run = write_log(tmp_path / "run", {"ind": [Y, N]}, policy="p", suite=suite)
    write_rows(run, [row("ind", 0, 0, True), row("ind", 0, 1, False), row("ind", 0, 0, False)])
    ran = cli("report", run, "--allow-partial")
    assert "episodes.jsonl:3: episode ind/0/0 is there twice" in ran.stderr and "1/2" in ran.stdout


def test_an_unknown_metric_is_refused(cli, pair):
    assert "did you mean 'success_once'" in refused(cli, *pair, "--metric", "succes_once")


# ---- formats ------------------------------------------------------------------------------------------------------


def test_markdown_bolds_the_best_and_has_whole_rows(cli, pair):
    text = cli("report", *pair, "--format", "md").stdout
    assert "| IND | 0.800 \\[0.490, 0.943\\] 8/10 | **1.000** \\[0.722, 1.000\\] 10/10 |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in rows} == {2, 1}  # three columns, and two in the differences


def check_latex(text):
    """Braces and environments balance, and every row of a tabular has the columns its preamble names."""
    plain = re.sub(r"\\[\\&%$#_{}]", "", re.sub(r"(?<!\\)%.*", "", text).replace("\\\\", "\n"))
    assert plain.count("{") == plain.count("}")
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        opened.append(name) if kind == "begin" else None
        assert kind == "begin" or opened.pop() == name
    assert not opened
    for columns, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.S):
        for rule in ("toprule", "midrule", "bottomrule"):
            assert f"\\{rule}" in body
        for line in filter(None, (line.strip() for line in body.split("\n"))):
            if line.startswith("\\multicolumn"):
                assert line.startswith(f"\\multicolumn{{{len(columns)}}}")
            elif not line.endswith("rule"):
                assert line.endswith(r"\\") and len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
    assert not re.search(r"[^\x00-\x7f]", text)


def test_latex_is_sound(cli, tmp_path, pair):
    text = cli("report", *pair, "--format", "latex").stdout
    check_latex(text)
    assert r"\textbf{1.000}" in text and text.count(r"\begin{table}") == 3
    tables = text.split(r"\begin{table}")[1:]
    for table, note in zip(tables, ("Rate: ", "Difference: ", "Over the items of a pool: "), strict=True):
        assert [note in other for other in tables].count(True) == 1 and note in table  # under the table it is about
    engine = shutil.which("pdflatex") or shutil.which("tectonic")
    if engine:
        whole = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + text + "\\end{document}\n"
        (tmp_path / "t.tex").write_text(whole)
        done = subprocess.run([engine, "t.tex"], cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout


def test_latex_escapes_what_it_must():
    nasty = "a_b & 50% {x} $1 #2 ~ ^ \\ † <>"
    line = Line("[0] " + nasty, (Text("1.0", nasty, best=True, partial=True),))
    text = to_latex(Document(nasty, (Block(nasty, (nasty,), ((nasty, (line,)),)),), (nasty,)))
    check_latex(text)
    assert r"a\_b \& 50\% \{x\} \$1 \#2" in text


def test_a_table_too_wide_continues_below(cli, tmp_path, suite):
    folders = [write_log(tmp_path / f"run{i}", BASE, policy=f"policy{i}", suite=suite) for i in range(9)]
    text = cli("report", *folders).stdout
    table_lines = text.split("\n\nRate:")[0].splitlines()
    assert max(map(len, table_lines)) <= 160
    assert all(f"policy{i}" in text for i in range(9))


def test_out_chooses_the_format_by_its_ending(cli, tmp_path, pair):
    for name, start in (("t.md", "# "), ("t.tex", "% "), ("t.csv", "kind,"), ("t.txt", "Success")):
        ran = cli("report", *pair, "--out", tmp_path / "new" / name)
        assert ran.exit_code == 0 and ran.stdout == ""
        assert (tmp_path / "new" / name).read_text().startswith(start)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(cli, *pair, "--out", tmp_path / "file" / "t.md")


def test_stages_are_shown_as_shares(cli, tmp_path, suite):
    run = write_log(tmp_path / "run", {"ind": [Y] * 4}, policy="p", suite=suite)
    stages = ["success", "success", "success", "never_reached"]
    write_rows(run, [row("ind", 0, i, stage == "success", stage=stage) for i, stage in enumerate(stages)])
    text = cli("report", run, "--stages").stdout
    assert re.search(r"IND +75\.0% +25\.0% +4$", text, re.M) and "never reached" in text
    assert "never reached" not in cli("report", run).stdout
    one = table(cli, run)["stage never_reached", "ind", "p"]
    assert (one["k"], one["n"], float(one["value"])) == ("1", "4", 0.25)
