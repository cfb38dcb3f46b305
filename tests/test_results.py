"""Published numbers follow from committed logs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vla_gen_bench.episodes.suite import draw, load_suite
from vla_gen_bench.log.counts import count
from vla_gen_bench.log.log import EvalLog, key_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LOGS = sorted(path.parent for path in RESULTS.glob("*/run.json"))
PUBLISHED = (
    "vgb --help",
    "first use of the builtin assets",
    "builtin: step, 320x240, median of whole episodes",
    "builtin: reset with a fresh scene, median",
    "rl4vla: step, 640x480, median of whole episodes",
    "rl4vla: reset with a fresh scene, median",
    "rl4vla: memory of that process",
    "PPO nano, builtin, 2 workers: collection",
    "PPO nano, builtin, 2 workers: whole loop",
    "OpenVLA nano, fp32, 1 thread: decoding, batch 1",
)
COMPARED = [ROOT / "leaderboard" / "logs" / f"openvla-{name}-all-builtin" for name in ("ppo", "sft")]


@pytest.mark.parametrize("folder", LOGS, ids=lambda path: path.name)
def test_a_log_holds_exactly_the_suite_s_episodes(folder):
    log = EvalLog(folder)
    header, rows = log.header, log.rows()
    suite, world = load_suite(header["suite"]["id"]), header["world"]["name"]
    assert header["suite"]["digest"] == suite.digest()
    protocol = suite.protocol
    wanted = {
        (scenario.id, seed, index): draw(scenario, world, seed, index).digest()
        for scenario in suite.scenarios.values()
        for seed in protocol.seeds
        for index in range(protocol.episodes_per_seed)
    }
    assert {key_of(row): row["spec_digest"] for row in rows} == wanted
    assert len(rows) == len(wanted) and all(row["status"] == "ok" for row in rows)


def test_the_readme_compares_as_the_report_does(cli):
    ran = cli("report", *COMPARED, "--baseline", "openvla-sft", "--format", "md")
    assert ran.exit_code == 0, ran.stderr
    readme = (ROOT / "README.md").read_text().splitlines()
    rows = [line for line in ran.stdout.splitlines() if line.startswith("|")]
    assert len(rows) > 20 and [row for row in rows if row not in readme] == []


def test_the_card_counts_other_episodes_as_their_logs_do():
    """Seeds that no version was chosen by; rows of the card, and the means that the README repeats."""
    card, readme = (ROOT / path for path in ("policies/openvla-ppo/README.md", "README.md"))
    table = re.findall(r"^\| (.+?) \| (\d+) of 384.*? \| (\d+) of 384", card.read_text(), re.MULTILINE)
    scenarios, counts = load_suite("execution").scenarios.values(), []
    for name in ("ppo", "sft"):
        log = EvalLog(RESULTS / "partial" / f"other-{name}")
        assert log.header["policy"]["name"] == f"openvla-{name}"
        assert {row["seed"] for row in log.rows()} == set(range(3, 9))
        counts.append([count(row for row in log.rows() if row["scenario"] == each.id) for each in scenarios])
    found = [
        (each.label, *(str(column[place]["success_at_end"]) for column in counts))
        for place, each in enumerate(scenarios)
    ]
    assert table == found and all(cell["episodes"] == 384 for column in counts for cell in column)
    for column in counts:
        ind, *shifted = [cell["success_at_end"] / 384 for cell in column]
        assert f"{ind:.3f}" in readme.read_text() and f"{sum(shifted) / 3:.3f}" in readme.read_text()


@pytest.mark.parametrize("folder", LOGS, ids=lambda path: path.name)
def test_the_published_table_follows_from_the_log(folder):
    log = EvalLog(folder)
    suite, rows = load_suite(log.header["suite"]["id"]), log.rows()
    text = (RESULTS / "README.md").read_text() + (ROOT / "docs" / "fidelity.md").read_text()
    table = text.partition(f"<!-- from benchmarks/results/{folder.name} -->")[2].partition("\n\n")[0]
    printed = dict(re.findall(r"^\| (.+?) \| (\d+/\d+) \|", table, re.MULTILINE))
    expected = {}
    for scenario in suite.scenarios.values():
        counted = count(row for row in rows if row["scenario"] == scenario.id)
        expected[scenario.label] = f"{counted['success_at_end']}/{counted['episodes']}"
    assert printed == expected


def test_the_speeds_in_the_readme_follow_from_the_measurements():
    lines = {}
    for name in ("bench-quick-rl4vla", "bench-rl", "bench-openvla", "bench-full", "bench-quick"):  # the last one counts
        lines |= {line["name"]: line for line in json.loads((RESULTS / f"{name}.json").read_text())["lines"]}
    text = (ROOT / "README.md").read_text()
    published = [next(name for name in lines if name.startswith("vgb eval")), *PUBLISHED]
    assert [name for name in published if f"{lines[name]['value']:.3g} {lines[name]['unit']}" not in text] == []
