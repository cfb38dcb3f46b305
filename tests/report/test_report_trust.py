"""What a report must not overstate, and what a name or label in a log must not do to it."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_logs import row, successes, write_log, write_rows

import vla_gen_bench as vgb
from vla_gen_bench.report.items import _estimates
from vla_gen_bench.report.severity import sweeps
from vla_gen_bench.report.table import mean_p_text, stage_blocks

Y, N = True, False
NASTY = "=cmd|' /C calc'!A0 \x1b[31mred $\\frac{1}{$ <b>"


def both(tmp_path: Path, ours: list[bool], theirs: list[bool], **change) -> vgb.Report:
    """Two policies on IND and an unseen table, the same outcomes on both; the second is the one changed."""
    folders = [
        write_log(tmp_path / "base", {"ind": theirs, "unseen_table": theirs}, policy="base"),
        write_log(tmp_path / "other", {"ind": ours, "unseen_table": ours}, policy="other", change=change),
    ]
    return vgb.compare(folders)


# ---- numbers ------------------------------------------------------------------------------------------------------


def test_the_smallest_p_of_a_permutation_test_is_a_bound(tmp_path):
    """40 of 40 pairs won: no flip comes as far. 1 / (99,999 + 1) is all that so many flips can show."""
    report = both(tmp_path, [Y] * 40, [N] * 40)
    assert re.search(r"mean of 1 row +\+1\.000\*\*\* .* p <= 1e-5", str(report))
    assert [mean_p_text(*pair) for pair in ((1e-5, 1e-5), (3e-5, 1e-5))] == ["<= 1e-5", "<= 3e-5"]
    assert mean_p_text(2e-5, 2e-5) == "2.0e-05"  # two flips came as far: no bound


@pytest.mark.parametrize(("ids", "shown"), [(9, False), (10, True)])
def test_few_ids_give_no_bootstrap_interval_but_a_warning(tmp_path, ids, shown):
    report = both(tmp_path, successes(6, ids), successes(5, ids))
    mean = next(summary for summary in report.comparison.summaries if summary.kind == "mean").estimates[1]
    assert np.isfinite(mean.low) == shown and np.isfinite(mean.high) == shown
    assert (f"Warning: {ids} episode ids are too few" in str(report)) == (not shown)
    line = next(line for line in str(report).splitlines() if "mean of 1 row" in line)
    assert ("[" in line) == shown
    cells = report.frame().query("kind == 'mean' and policy == 'other'").iloc[0]
    assert np.isnan(cells["low"]) != shown and cells["value"] == pytest.approx(6 / ids)


def test_a_frame_has_the_labels_that_were_given(tmp_path):
    """A CSV for spreadsheets escapes the last; a reader of CSV takes the first two for a missing value and a number."""
    labels = ["None", "1", "+x"]
    folders = {label: tmp_path / f"run{place}" for place, label in enumerate(labels)}
    for folder in folders.values():
        write_log(folder, {"ind": successes(5, 10)}, policy="same")
    frame = vgb.compare(folders).frame()
    assert list(frame.policy.unique()) == labels and frame.value.dtype == float
    assert frame.baseline.isna().sum() == sum(frame.policy == "None")


def test_items_of_a_pool_by_hand():
    """Table a: 4 of 4; table b: 0 of 4. Drawing two tables gives 1, 0.5 and 0 with chances 1/4, 1/2, 1/4.

    The variance is 0.125, which 0.25 / n has at n = 2: eight episodes are worth two.
    """
    outcomes = np.array([[1.0] * 4 + [0.0] * 4, [1.0] * 8])
    rates, differences = _estimates(outcomes, np.array([0] * 4 + [1] * 4), 1, 0.95)
    assert (rates[0].value, rates[0].low, rates[0].high) == (0.5, 0.0, 1.0)
    assert rates[0].effective == pytest.approx(2, abs=0.1)
    assert (rates[1].value, rates[1].effective) == (1.0, None) and np.isnan(rates[1].low)
    assert differences[1] is None and (differences[0].value, differences[0].low, differences[0].high) == (-0.5, -1, 0)


def test_unseen_tables_are_resampled_as_tables(tmp_path):
    run = write_log(tmp_path / "run", {"ind": [Y] * 20}, policy="p")
    tables = ["slate_table", "glass_table"]
    rows = [row("ind", 0, i, True, table="oak_table") for i in range(20)]
    rows += [row("unseen_table", 0, i, i % 2 == 0, table=tables[i % 2]) for i in range(20)]
    write_rows(run, rows)
    (item,) = vgb.compare(run, allow_partial=True).comparison.items
    assert (item.info.id, item.kind, item.count) == ("unseen_table", "tables", 2)
    assert (item.rates[0].low, item.rates[0].high) == (0.0, 1.0)


def test_a_privileged_policy_is_never_best(tmp_path):
    policy = {"name": "other", "ref": "other", "digest": "1" * 16, "options": {}, "privileged": True}
    report = both(tmp_path, [Y] * 12, successes(4, 12), policy=policy)
    assert ">" not in str(report).split("Rate:")[0] and "never marked best: other" in str(report)


def test_policies_share_one_set_of_stage_columns(tmp_path):
    for name, stages in (("a", ["success", "dropped"]), ("b", ["success", "never_reached"])):
        run = write_log(tmp_path / name, {"ind": [Y, N]}, policy=name)
        write_rows(run, [row("ind", 0, i, stage == "success", stage=stage) for i, stage in enumerate(stages)])
    blocks = stage_blocks(vgb.compare([tmp_path / "a", tmp_path / "b"]).comparison)
    assert [block.columns for block in blocks] == [("success", "dropped", "never reached", "episodes")] * 2


SWEEPS = """
id: twice
version: "1"
scenarios:
  ind: {label: IND, dimension: ind}
  a2: {label: A2, dimension: vision, shift: {effects: [{name: noise, alpha: 0.2}]}}
  a4: {label: A4, dimension: vision, shift: {effects: [{name: noise, alpha: 0.4}]}}
  b2: {label: B2, dimension: vision, shift: {table: unseen, effects: [{name: noise, alpha: 0.2}]}}
  b4: {label: B4, dimension: vision, shift: {table: unseen, effects: [{name: noise, alpha: 0.4}]}}
"""


def test_two_sweeps_of_one_number_keep_two_figures(tmp_path):
    (tmp_path / "twice.yaml").write_text(SWEEPS)
    names = ("ind", "a2", "a4", "b2", "b4")
    outcomes = {name: [Y, N] * 6 for name in names}
    run = write_log(tmp_path / "run", outcomes, policy="p", suite=str(tmp_path / "twice.yaml"))
    report = vgb.compare(run)
    found = sweeps([row.info for row in report.comparison.rows])
    assert {sweep.name: sweep.ids for sweep in found} == {"noise-alpha": ("a2", "a4"), "noise-alpha-2": ("b2", "b4")}
    written = {path.name for path in report.write_plots(tmp_path / "plots")}
    assert {"severity-noise-alpha.svg", "severity-noise-alpha-2.svg"} <= written


# ---- names --------------------------------------------------------------------------------------------------------


@pytest.fixture
def nasty(tmp_path) -> vgb.Report:
    scenarios = {"ind": {"id": "ind", "label": NASTY, "dimension": "ind"}}
    made = vgb.Suite.model_validate({"id": "n", "version": "1", "scenarios": scenarios})
    what = {"id": "n", "version": "1", "digest": made.digest(), "sources": [], "definition": made.definition()}
    policy = {"name": NASTY, "ref": "p", "digest": "1" * 16, "options": {}, "privileged": False}
    change = {"suite": what, "policy": policy}
    return vgb.compare(write_log(tmp_path / "run", {"ind": [Y, N] * 6}, policy="p", change=change))


def test_no_cell_of_a_csv_begins_as_a_formula(nasty):
    rows = list(csv.DictReader(io.StringIO(nasty.render("csv"))))
    assert rows[0]["policy"].startswith("'=cmd") and rows[0]["label"].startswith("'=cmd")
    assert not any(str(cell).startswith(("=", "+", "@", "\t")) for one in rows for cell in one.values())


@pytest.mark.parametrize("kind", ["text", "md", "csv", "html"])
def test_no_escape_of_a_name_reaches_a_terminal(nasty, kind):
    shown = nasty.render(kind)
    assert "\x1b" not in shown and ("\\x1b[31mred" in shown or r"\x1b\[31mred" in shown)


def test_a_dollar_in_a_label_is_a_dollar(nasty, tmp_path):
    nasty.write_plots(tmp_path / "plots")
    assert r"$\frac{1}{$" in (tmp_path / "plots" / "rates.svg").read_text()


def test_the_command_line_shows_names_as_they_are(cli, nasty):
    ran = cli("report", nasty.comparison.runs[0].folder)
    assert ran.exit_code == 0 and "\x1b" not in ran.stdout + ran.stderr


def test_a_link_among_the_videos_is_not_followed(tmp_path):
    run = write_log(tmp_path / "run", {"ind": [Y, N]}, policy="p")
    secret = tmp_path / "secret"
    secret.write_text("not for the page")
    (run / "videos").mkdir()
    (run / "videos" / "ind-0-0-success.mp4").symlink_to(secret)
    (run / "videos" / "ind-0-1-failure.mp4").write_bytes(b"mp4")
    page = vgb.compare(run).render("html")
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1])
    assert list(data["videos"]) == ["0:1"]


def test_the_model_s_size_stands_in_the_report(tmp_path):
    policy = {"name": "nano", "ref": "nano", "digest": "1" * 16, "options": {}, "params": 853_856}
    run = write_log(tmp_path / "run", {"ind": [Y, N]}, policy="nano", change={"policy": policy})
    assert "Model sizes: nano 0.85 M parameters." in str(vgb.compare(run))
