"""Contact sheets and the benchmark command, on little."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from vla_gen_bench.bench import measure as bench

SUITE = """
id: two
version: "1"
title: Two tables
scenarios:
  ind: {label: IND, dimension: ind}
  table: {label: Another table, dimension: vision, shift: {table: unseen}}
"""


def test_gallery_draws_one_labelled_png_per_suite(cli, tmp_path):
    (tmp_path / "two.yaml").write_text(SUITE)
    done = cli("gallery", "--suite", tmp_path / "two.yaml", "--out", tmp_path / "pictures")
    assert done.exit_code == 0, done.stderr
    path = tmp_path / "pictures" / "two-builtin.png"
    assert done.stdout.strip() == str(path)
    sheet = np.asarray(Image.open(path)).astype(int)
    # Two tiles of 2 x 320 + 2 px, 240 + 40 px, 10 px apart, below a title of 44 px.
    assert sheet.shape == (44 + 250 + 40 + 10, 2 * (642 + 10) + 10, 3)
    ind, table = sheet[84:324, 10:330], sheet[84:324, 662:982]
    later = sheet[84:324, 332:652]
    assert (np.abs(ind - table).max(2) > 10).mean() > 0.5  # the same scene before another table
    assert 0.005 < (np.abs(ind - later).max(2) > 10).mean() < 0.5  # the robot has moved, the table has not
    assert (sheet[44:84, 10:652] < 100).any()  # a label


def test_preview_draws_the_levels_beside_ind(cli, tmp_path):
    text = SUITE + "  dim: {label: Exposure, dimension: vision, levels: [1, 5], shift: {effects: [exposure]}}\n"
    (tmp_path / "two.yaml").write_text(text)
    refused = cli("suites", "preview", tmp_path / "two.yaml", "--out", tmp_path / "two.txt")
    assert refused.exit_code == 2 and "two.txt: its name must end in .png" in refused.stderr
    done = cli("suites", "preview", tmp_path / "two.yaml", "--out", tmp_path / "sheets" / "two.png", "--index", "3")
    assert done.exit_code == 0, done.stderr
    sheet = np.asarray(Image.open(tmp_path / "sheets" / "two.png").convert("RGB")).astype(int)
    # A line of two plain tiles, a titled one of three: 200 x 150 and 32 of caption, 8 apart; 40 of title, 22 of name.
    assert sheet.shape == (40 + 2 * (150 + 32 + 8) + 22, 3 * 208 + 8, 3)
    top = 40 + 190 + 22
    ind, one, five = (sheet[top : top + 150, left : left + 200] for left in (8, 216, 424))
    light = [tile.mean() for tile in (ind, one, five)]  # the sign is the episode's own, the size the level's
    assert abs(light[2] - light[0]) > 2 * abs(light[1] - light[0]) > 4
    assert (light[1] - light[0]) * (light[2] - light[0]) > 0


def test_bench_lines_know_their_targets():
    assert bench.Line("a", 11.9, "ms", 12).met and not bench.Line("a", 12.1, "ms", 12).met
    assert bench.Line("b", 0.95, "", 0.95, at_least=True).met and not bench.Line("b", 0.94, "", 0.95, at_least=True).met
    assert bench.Line("c", 1.0, "s").met is None


def test_quick_bench_prints_a_table_and_writes_json(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "EPISODES_TIMED", 1)
    done = cli("bench", "--quick", "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    written = json.loads((tmp_path / "bench.json").read_text())
    names = [line["name"] for line in written["lines"]]
    assert names[0] == "vgb --help" and any("reset" in name for name in names)
    assert all(line["value"] > 0 for line in written["lines"])
    assert written["hardware"]["cores"] >= 1 and written["versions"]["sapien"]
    assert "first use of the builtin assets" in done.stdout
