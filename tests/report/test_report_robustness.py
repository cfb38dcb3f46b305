"""Dose and response, interactions, controls: hand-worked numbers on small logs, and what each format makes of them."""

import csv
import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from vla_gen_bench.episodes.draw import draw
from vla_gen_bench.episodes.suite import load_suite
from vla_gen_bench.report.dose import NEVER, DoseResponse, areas, halving_levels
from vla_gen_bench.report.dose_plots import _panel

SUITE = """
id: doses
version: "1"
protocol: {episodes_per_seed: 20, seeds: [0]}
dimensions: [sensor, control]
scenarios:
  ind:    {label: IND, dimension: ind}
  blur:   {label: Blur, dimension: sensor, levels: [1, 3, 5], shift: {effects: [blur]}}
  table:  {label: Table, dimension: vision, shift: {table: unseen}}
  object: {label: Object, dimension: semantics, shift: {object: unseen}}
  both:   {combine: [table, object]}
  mute:   {label: No instruction, dimension: control, shift: {instruction: none}}
  blind:  {label: Black image, dimension: control, shift: {effects: [black_image]}}
  numb:   {label: No state, dimension: control, shift: {effects: [no_state]}}
"""
SUCCESSES = {
    "ind": 20,
    "blur_1": 16,
    "blur_3": 8,
    "blur_5": 0,
    "table": 15,
    "object": 14,
    "both": 4,
    "mute": 19,
    "blind": 2,
    "numb": 12,
}


def test_area_by_hand():
    """Levels 0, 1, 3 at 1.0, 0.8, 0.4: (0.9 * 1 + 0.6 * 2) / 3 = 0.7."""
    assert areas(np.array([[1.0, 0.8, 0.4]]), (0, 1, 3)) == pytest.approx([0.7])


def test_halving_level_by_hand():
    """1.0, 0.8, 0.4 at 0, 1, 3 crosses 0.5 at 1 + 0.3 / 0.4 * 2 = 2.5; a flat curve never; nothing to halve is NaN."""
    rates = np.array([[1.0, 0.8, 0.4], [1.0, 0.9, 0.5], [0.0, 0.0, 0.0], [0.4, 0.1, 0.3], [np.nan, 1, 1]])
    found = halving_levels(rates, (0, 1, 3))
    assert found[0] == pytest.approx(2.5) and found[1] == NEVER and np.isnan(found[2]) and np.isnan(found[4])
    assert found[3] == pytest.approx(2 / 3)  # 0.4 to 0.1 crosses 0.2


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A log of 20 episodes a row, of which the first so many succeed."""
    folder = tmp_path_factory.mktemp("log")
    (folder / "doses.yaml").write_text(SUITE)
    suite = load_suite(str(folder / "doses.yaml"))
    header = {
        "format": 1,
        "suite": {"id": "doses", "version": "1", "digest": suite.digest(), "sources": [str(folder / "doses.yaml")]},
        "policy": {
            "name": "acme",
            "ref": "acme",
            "digest": "0" * 16,
            "options": {},
            "checkpoint": None,
            "privileged": False,
        },
        "world": {"name": "builtin", "catalog": "x", "pack": "y"},
        "horizon": 80,
        "rendered": True,
        "simulator": {},
        "started": "2026-01-01T00:00:00Z",
        "sessions": [{"manifest": {"scenarios": list(suite.scenarios), "episodes": 20 * len(suite.scenarios)}}],
    }
    (folder / "run.json").write_text(json.dumps(header))
    lines = []
    for scenario in suite.scenarios.values():
        for index in range(20):
            done = index < SUCCESSES[scenario.id]
            digest = draw(scenario, "builtin", 0, index).digest()
            lines.append(
                {
                    "scenario": scenario.id, "seed": 0, "index": index, "spec_digest": digest, "status": "ok",
                    "steps": 80, "success_at_end": done,
                    "success_once": done, "first_success_step": 30 if done else None,
                }
            )  # fmt: skip
    (folder / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_csv_holds_area_halving_level_interaction_and_use(cli, log):
    """Area 0-1-3-5 at 1, .8, .4, 0: (.9 + 1.2 + .4) / 5 = 0.5. Interaction: .2 - (.75 + .7 - 1) = -0.25."""
    done = cli("report", log, "--format", "csv")
    assert done.exit_code == 0, done.stderr
    rows = {(row["kind"], row["scenario"]): row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert float(rows["area", "blur"]["value"]) == pytest.approx(0.5)
    assert float(rows["halving level", "blur"]["value"]) == pytest.approx(2.5)
    joint = rows["interaction", "both"]
    assert float(joint["value"]) == pytest.approx(-0.25) and float(joint["low"]) <= -0.25 <= float(joint["high"])
    sees = rows["sees", "blind"]
    assert float(sees["value"]) == pytest.approx(0.9) and float(sees["low"]) > 0.5 and sees["n"] == "20"
    language = rows["uses language", "mute"]
    assert float(language["value"]) == pytest.approx(0.05) and float(language["low"]) <= 0


def test_tables_name_what_a_policy_uses_and_mark_rows_not_above_it(cli, log):
    text = " ".join(cli("report", log).stdout.split())
    assert "What it uses" in text and "Uses language" in text and "no sign" in text and "Sees" in text
    assert "Dose and response" in text and "Interactions" in text
    marked = [line for line in cli("report", log).stdout.splitlines() if "≤ control" in line]
    labels = " ".join(marked)
    assert "Blur (0.018 of the width)" in labels and "Object" in labels  # 0.0 and 0.7 against 0.95 without instruction


@pytest.mark.parametrize(
    "sensors, privileged, shown",
    [
        ({}, False, {"sees", "uses language"}),
        ({"state": True}, False, {"sees", "uses language", "uses the state"}),
        ({"state": True}, True, set()),
    ],
)
def test_what_a_policy_does_not_receive_is_said_and_not_measured(cli, log, tmp_path, sensors, privileged, shown):
    """Without the input an episode differs by the policy's sampling alone, 20 of 20 against 12 of 20 here."""
    copy = tmp_path / "log"
    shutil.copytree(log, copy)
    header = json.loads((copy / "run.json").read_text())
    header["policy"]["privileged"] = privileged
    (copy / "run.json").write_text(json.dumps(header | {"sensors": sensors}))
    text = cli("report", copy).stdout
    assert text.count("not an input") == 3 - len(shown) + 1  # and once in the note
    rows = csv.DictReader(io.StringIO(cli("report", copy, "--format", "csv").stdout))
    uses = {row["kind"]: row for row in rows if row["kind"] in ("sees", "uses language", "uses the state")}
    assert set(uses) == shown
    if "uses the state" in shown:
        assert float(uses["uses the state"]["value"]) == pytest.approx(0.4)


def test_page_and_plots_hold_the_small_multiples(cli, log, tmp_path):
    done = cli("report", log, "--out", tmp_path / "page.html", "--plots", tmp_path / "plots")
    assert done.exit_code == 0, done.stderr
    assert {"dose-response.png", "dose-response.svg"} <= {file.name for file in (tmp_path / "plots").iterdir()}
    page = (tmp_path / "page.html").read_text()
    assert "Dose and response" in page and "Success at each level of a disturbance" in page


def test_a_panel_shows_every_level():
    """Seven severities in a list are levels 1 to 7; the suites' own sweeps have 5."""
    import matplotlib.pyplot as plt

    for top in (3, 5, 7, 40):
        dose = DoseResponse("sensor", "blur", "Blur", tuple(range(top + 1)), tuple("0" * (top + 1)), ())
        _, axes = plt.subplots()
        _panel(axes, SimpleNamespace(labels=[]), dose)
        low, high = axes.get_xlim()
        assert low < 0 and high > max(top, 5) and len(axes.get_xticks()) <= 11
        plt.close("all")


def test_a_suite_without_levels_has_none_of_these_tables(cli, log, tmp_path):
    plain = tmp_path / "log"
    plain.mkdir()
    rows = [line for line in (log / "episodes.jsonl").read_text().splitlines() if '"scenario": "table"' in line]
    (plain / "episodes.jsonl").write_text("\n".join(rows) + "\n")
    header = json.loads((log / "run.json").read_text())
    header["sessions"][0]["manifest"] = {"scenarios": ["table"], "episodes": 20}
    (plain / "run.json").write_text(json.dumps(header))
    text = cli("report", plain).stdout
    assert not any(title in text for title in ("Dose and response", "Interactions", "What it uses"))


def test_controls_count_in_no_mean(cli, log):
    """The mean over all shifted rows is that of blur, table, object and both: (16 + 8 + 0 + 15 + 14 + 4) / 120."""
    rows = list(csv.DictReader(io.StringIO(cli("report", log, "--format", "csv").stdout)))
    (mean,) = (row for row in rows if row["kind"] == "mean" and row["dimension"] == "ood")
    assert float(mean["value"]) == pytest.approx(57 / 120)
    assert not [row for row in rows if row["kind"] == "mean" and row["dimension"] == "control"]
