"""Policies over several training seeds: numbers by hand, and what a seed may and may not add."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from report_logs import write_log

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
        compare_seeds({"a": [runs["a0"]], "b": [runs["b0"], runs["b1"]]}, ["0", "1"])
