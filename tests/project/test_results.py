"""Published numbers follow from committed logs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from published import EXPERIMENTS, RESULTS

from vla_gen_bench.episodes.suite import draw, load_suite
from vla_gen_bench.log.counts import count_by_scenario
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.log.rows import key_of
from vla_gen_bench.policies.identity import checkpoint_digest
from vla_gen_bench.train.recipe import load_recipe
from vla_gen_bench.train.rl.ppo import PpoRecipe
from vla_gen_bench.train.sft.trainer import SftRecipe

ROOT = Path(__file__).resolve().parents[2]
LOGS = sorted(path.parent for path in RESULTS.glob("*/run.json"))
SEEDS, PAIRS, CONTROLS, ROBUSTNESS = (
    sorted(path.parent for path in RESULTS.glob(f"{name}/*/run.json"))
    for name in ("seeds", "compositional", "controls", "robustness")
)
QUICK = [*CONTROLS, *ROBUSTNESS]  # logs of protocol `quick`


@pytest.mark.parametrize("folder", [*LOGS, *QUICK, *SEEDS, *PAIRS], ids=lambda path: "-".join(path.parts[-2:]))
def test_a_log_holds_exactly_the_suite_s_episodes(folder):
    log = EvalLog(folder)
    header, rows = log.header, log.rows()
    suite, world = load_suite(header.suite.id), header.world.name
    assert header.suite.digest == suite.digest()
    protocol = suite.quick if folder in QUICK else suite.protocol
    wanted = {
        (scenario.id, seed, index): draw(scenario, world, seed, index).digest()
        for scenario in suite.scenarios.values()
        for seed in protocol.seeds
        for index in range(protocol.episodes_per_seed)
    }
    assert {key_of(row): row["spec_digest"] for row in rows} == wanted
    assert len(rows) == len(wanted) and all(row["status"] == "ok" for row in rows)


def test_the_published_tables_are_what_the_logs_give():
    """The two pages of results, the results in README.md and four cards; `make results` writes them."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import make_results
    finally:
        sys.path.pop(0)
    written = make_results.outputs()
    assert [path for path, text in written.items() if path.read_text() != text] == []
    cards = [text for path, text in written.items() if path.parent.name.startswith("openvla-")]
    assert len(cards) == 4 and all("| `openvla-sft` | `openvla-ppo` |\n" in text for text in cards)
    assert len(re.findall(r"^\| .*\d/192 \|", written[ROOT / "docs" / "results.md"], re.MULTILINE)) >= 32


def test_the_first_references_page_counts_other_episodes_as_their_logs_do():
    """Seeds not used for model selection."""
    page = (EXPERIMENTS / "first-references.md").read_text()
    table = re.findall(r"^\| (.+?) \| (\d+) of 384.*? \| (\d+) of 384", page, re.MULTILINE)
    scenarios, counts = load_suite("execution").scenarios.values(), []
    for name in ("ppo", "sft"):
        log = EvalLog(EXPERIMENTS / "logs" / f"other-{name}")
        assert log.header.policy.name == f"openvla-{name}"
        rows = log.read().rows.values()
        assert {row.seed for row in rows} == set(range(3, 9))
        found = count_by_scenario(rows)
        counts.append([found[each.id].to_json() for each in scenarios])
    found = [
        (each.label, *(str(column[place]["success_at_end"]) for column in counts))
        for place, each in enumerate(scenarios)
    ]
    assert table == found and all(cell["episodes"] == 384 for column in counts for cell in column)
    for column in counts:
        ind, *shifted = [cell["success_at_end"] / 384 for cell in column]
        assert f"{ind:.3f}" in page and f"{sum(shifted) / 3:.3f}" in page


@pytest.mark.parametrize("folder", LOGS, ids=lambda path: path.name)
def test_the_published_table_follows_from_the_log(folder):
    log = EvalLog(folder)
    suite, counts = load_suite(log.header.suite.id), count_by_scenario(log.read().rows.values())
    text = (RESULTS / "README.md").read_text() + (ROOT / "docs" / "fidelity.md").read_text()
    table = text.partition(f"<!-- from benchmarks/results/{folder.name} -->")[2].partition("\n\n")[0]
    printed = dict(re.findall(r"^\| (.+?) \| (\d+/\d+) \|", table, re.MULTILINE))
    expected = {}
    for scenario in suite.scenarios.values():
        counted = counts[scenario.id]
        expected[scenario.label] = f"{counted.success_at_end}/{counted.episodes}"
    assert printed == expected


REFERENCES = ["base", "warmup", "sft", "ppo"]


@pytest.mark.parametrize("card", REFERENCES)
def test_a_card_counts_as_the_logs_do(card):
    page = (ROOT / "policies" / f"openvla-{card}" / "README.md").read_text()
    head = " \\| ".join(f"`openvla-{name}`" for name in REFERENCES)
    assert re.search(rf"^\| world .* \| {head} \|$", page, re.MULTILINE)
    groups = {"IND": ["ind"]}
    for name in ("vision", "semantics", "execution"):
        ids = [id for id in load_suite(name).scenarios if id != "ind"]
        groups[f"{name.capitalize()}, mean of {len(ids)} rows"] = ids
    folders = [ROOT / "leaderboard" / "logs" / f"openvla-{name}-all-builtin-v2" for name in REFERENCES]
    counts = [count_by_scenario(EvalLog(folder).read().rows.values()) for folder in folders]
    for label, ids in groups.items():
        means = [sum(found[id].success_at_end / 192 for id in ids) / len(ids) for found in counts]
        assert f"| {label} | {' | '.join(f'{mean:.3f}' for mean in means)} |" in page


@pytest.mark.parametrize("folder", SEEDS, ids=lambda path: path.name)
def test_a_training_seed_is_of_the_published_recipe_and_its_log_of_its_weights(folder):
    name, _, seed = folder.name.rpartition("-")
    kind = SftRecipe if name == "openvla-sft" else PpoRecipe
    published = load_recipe(ROOT / "policies" / name / "recipe.yaml", kind, {"seed": int(seed)}).model_dump(mode="json")
    used = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert used["model"].pop("checkpoint") in ("openvla-warmup", "policies/openvla-warmup/checkpoint")
    assert published["model"].pop("checkpoint") == "openvla-warmup" and used == published
    log = EvalLog(folder)
    assert log.header.policy.name == name
    assert log.header.policy.checkpoint == checkpoint_digest(str(folder / "checkpoint"))
    counts = count_by_scenario(log.read().rows.values())
    page = (ROOT / "docs" / "results.md").read_text().partition("## Over training seeds")[2]
    tables = re.findall(r"^\| scenario \| (.+) \|\n.*\n.*\n\| IND \| (.+) \|$", page, re.MULTILINE)
    cells = [dict(zip(head.split(" | "), row.split(" | "), strict=True)).get(name, "") for head, row in tables]
    rates = max((re.findall(r"\((.+)\)", cell)[0].split(", ") for cell in cells if "(" in cell), key=len)
    assert rates[int(seed)] == f"{counts['ind'].success_at_end / 192:.3f}"


def test_training_seeds_are_there():
    assert {"openvla-sft-1", "openvla-sft-2", "openvla-ppo-1", "openvla-ppo-2"} <= {path.name for path in SEEDS}


def test_the_page_on_robustness_counts_the_expert_as_its_log_does():
    page = (ROOT / "docs" / "results-robustness.md").read_text()
    table = re.findall(r"^\| ([A-Z][\w ]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    counts = count_by_scenario(EvalLog(RESULTS / "robustness" / "expert").read().rows.values())
    expected = {}
    for scenario in load_suite("robustness").scenarios.values():
        if scenario.sweep:
            label = scenario.label.partition(" (")[0]
            expected.setdefault(label, [label]).append(str(counts[scenario.id].success_at_end))
    assert [list(row) for row in table] == list(expected.values()) and len(table) == 29


COMMITTED = sorted(
    path for folder in ("docs", "leaderboard", "benchmarks") for path in (ROOT / folder).rglob("run.json")
)


@pytest.mark.parametrize("file", COMMITTED, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_a_committed_log_names_no_path_of_one_machine(file):
    assert re.findall(r'"/[^"]*/[^"]*"', file.read_text()) == []
