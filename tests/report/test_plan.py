"""`vgb plan`: sample sizes against hand-worked numbers, enumeration and simulation."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from vla_gen_bench.errors import UserError
from vla_gen_bench.log.rows import row_of
from vla_gen_bench.report import stats
from vla_gen_bench.report.plan import (
    Alike,
    Test,
    connor_pairs,
    discordance_of,
    mcnemar_power,
    paired_design,
    paired_episodes,
    pilot_of,
    unpaired_design,
    unpaired_detectable,
    unpaired_episodes,
)

TEST = Test(alpha=0.05, power=0.8)


def test_unpaired_five_points_around_three_quarters_need_about_1100_to_1250():
    """h = 2 asin sqrt .80 - 2 asin sqrt .75 = 0.1199; n = 2 (1.9600 + 0.8416)^2 / h^2 = 1091.9; down: h = 0.1121."""
    assert unpaired_episodes(0.75, 0.80, TEST) == 1092
    assert unpaired_episodes(0.75, 0.70, TEST) == 1250


@pytest.mark.parametrize("sign", [1, -1])
def test_what_n_episodes_detect_needs_n_episodes(sign):
    for episodes in (192, 1000):
        difference = unpaired_detectable(0.6, episodes, sign, TEST)
        assert unpaired_episodes(0.6, 0.6 + sign * difference, TEST) == pytest.approx(episodes, abs=1)


def test_connor_s_formula_by_hand():
    """(1.9600 sqrt .35 + 0.8416 sqrt(.35 - .0025))^2 / .0025 = (1.15954 + 0.49613)^2 / .0025 = 1096.5."""
    assert connor_pairs(0.35, 0.05, TEST) == 1097


def test_the_power_of_six_pairs_that_all_differ():
    """Six discordant pairs reject at 0 or 6 only (2 / 64 = .031): with 9 in 10 on one side, .9^6 + .1^6."""
    assert mcnemar_power(6, 1.0, 0.8, 0.05) == pytest.approx(0.9**6 + 0.1**6)
    assert mcnemar_power(5, 1.0, 0.8, 0.05) == 0  # 2 / 32 = .0625: five pairs never reject


def test_the_power_is_the_sum_over_all_outcomes():
    """Every sequence of 9 pairs that favour the first (p = .5), the second (.1), or neither (.4)."""
    chances, power = {1: 0.5, -1: 0.1, 0: 0.4}, 0.0
    for outcome in product(chances, repeat=9):
        if stats.mcnemar(outcome.count(1), outcome.count(-1)) <= 0.05:
            power += np.prod([chances[pair] for pair in outcome])
    assert mcnemar_power(9, 0.6, 0.4, 0.05) == pytest.approx(power)


def test_the_exact_test_has_the_power_in_a_simulation():
    """4,000 comparisons: three standard errors of a share of .8 are .019."""
    pairs = paired_episodes(0.25, 0.10, TEST)
    draws = np.random.default_rng(0).multinomial(pairs, [0.175, 0.075, 0.75], size=4000)
    found = np.mean([stats.mcnemar(int(a), int(b)) <= 0.05 for a, b, _ in draws])
    assert found == pytest.approx(0.8, abs=0.025)


def test_one_pair_fewer_is_not_enough():
    for discordance, difference in ((0.35, 0.05), (0.14, 0.05), (0.5, 0.3)):
        pairs = paired_episodes(discordance, difference, TEST)
        assert mcnemar_power(pairs, discordance, difference, 0.05) >= 0.8
        assert mcnemar_power(pairs - 1, discordance, difference, 0.05) < 0.8


def test_discordance_from_a_correlation_by_hand():
    """Independent: .75 * .2 + .25 * .8 = .35. With phi = .6: both = .6 + .6 * .1732 = .70392; .75 + .8 - 2 * both."""
    assert discordance_of(0.75, 0.80, 0.0) == pytest.approx(0.35)
    assert discordance_of(0.75, 0.80, 0.6) == pytest.approx(0.14215, abs=1e-5)
    with pytest.raises(UserError, match="correlation 0.99: rates 0.750 and 0.800 allow 0.866 at most"):
        discordance_of(0.75, 0.80, 0.99)  # both = .75 at most: (.75 - .6) / .1732
    with pytest.raises(UserError, match="allow -0.289 at least"):
        discordance_of(0.75, 0.80, -0.9)  # both = .55 at least: (.55 - .6) / .1732


def test_pairing_saves_episodes_only_where_outcomes_agree():
    unpaired = unpaired_design(0.75, 0.05, 192, TEST)
    alone, alike = (paired_design(0.75, 0.05, 192, Alike(value), TEST) for value in (0.0, 0.6))
    assert alike.up.episodes < unpaired.up.episodes / 2
    assert unpaired.up.episodes < alone.up.episodes < 1.05 * unpaired.up.episodes  # an exact test is a little careful
    assert alike.up.detectable < unpaired.up.detectable


def test_what_pairs_detect_has_the_power():
    design = paired_design(0.75, None, 192, Alike(0.3), TEST)
    for side, sign in ((design.up, 1), (design.down, -1)):
        share = discordance_of(0.75, 0.75 + sign * side.detectable, 0.3)
        assert mcnemar_power(192, share, side.detectable, 0.05) == pytest.approx(0.8, abs=1e-3)


def test_a_direction_without_room_is_left_out():
    design = unpaired_design(0.98, 0.05, 192, TEST)
    assert design.up is None and design.down.rate == pytest.approx(0.93)
    assert paired_design(0.98, None, 192, Alike(0.0), TEST).up.detectable is None


def test_rates_cannot_differ_more_than_episodes_do():
    with pytest.raises(UserError, match="discordance 0.03: rates that differ by 0.05"):
        paired_episodes(0.03, 0.05, TEST)


def row(index: int, success: bool, **changes) -> dict:
    head = {"scenario": "ind", "seed": 0, "index": index, "spec_digest": f"d{index}", "status": "ok", "steps": 80}
    return {**head, "success_at_end": success, "success_once": success, **changes}


def test_a_pilot_counts_shared_finished_episodes():
    """Episodes 0 to 3 are shared; 0 and 3 differ; 4 errored in one, 5 is missing in the other."""
    first = [row(i, i < 2) for i in range(4)] + [row(4, False, status="error", success_at_end=None), row(5, True)]
    second = [row(0, False), row(1, True), row(2, False), row(3, True), row(4, True)]
    pilot = pilot_of(map(row_of, first), map(row_of, second))
    assert (pilot.episodes, pilot.rates, pilot.discordance) == (4, (0.5, 0.5), 0.5)
    with pytest.raises(UserError, match="episode ind/0/1 differently"):
        pilot_of(map(row_of, first), [row_of(row(1, True, spec_digest="other"))])
    with pytest.raises(UserError, match="share no finished episode"):
        pilot_of(map(row_of, first), [row_of(row(9, True))])


@pytest.fixture
def runs(tmp_path):
    """Two logs of 100 episodes: 75 and 80 successes, 15 discordant."""
    outcomes = {"a": lambda i: i < 75, "b": lambda i: 5 <= i < 85}
    for name, success in outcomes.items():
        (tmp_path / name).mkdir()
        header = {"suite": {"id": "s", "digest": "d"}, "policy": {"name": name}, "world": {"name": "builtin"}}
        (tmp_path / name / "run.json").write_text(json.dumps(header))
        lines = (json.dumps(row(i, success(i))) + "\n" for i in range(100))
        (tmp_path / name / "episodes.jsonl").write_text("".join(lines))
    return [str(tmp_path / name) for name in outcomes]


def test_plan_from_a_pilot(cli, runs):
    """5 + 10 discordant of 100."""
    answer = json.loads(cli("plan", "--detect", 0.05, "--pilot", *runs, "--json").stdout)
    assert answer["baseline"] == 0.75 and answer["pilot"]["discordance"] == 0.15
    unpaired, middle, upper = (design["up"]["episodes"] for design in answer["designs"])
    assert (unpaired, middle) == (1092, paired_episodes(0.15, 0.05, TEST))
    assert middle < upper < unpaired
    text = cli("plan", "--detect", 0.05, "--pilot", *runs).stdout
    assert "pilot: 100 shared episodes, rates 0.750 and 0.800, discordance 0.150" in text


def test_the_table_shows_both_directions(cli):
    text = cli("plan", "--detect", 0.05).stdout
    assert "to 0.800" in text and "1,092" in text and "1,250" in text and "paired, correlation 0.60" in text
    assert "paired" not in cli("plan", "--detect", 0.05, "--unpaired").stdout.replace("unpaired", "")
    assert "unpaired" not in cli("plan", "--detect", 0.05, "--paired").stdout
    assert "detectable rise (192)" in cli("plan").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--detect", 0.9, "--baseline-rate", 0.5), "no rate lies that far from 0.500"),
        (("--detect", 0.05, "--discordance", 0.03), "differ in at least that share"),
        (("--unpaired", "--discordance", 0.3), "leave out --unpaired"),
        (("--correlation", 0.1, "--discordance", 0.3), "give one of"),
        (("--pilot", "nowhere", "nowhere"), "no evaluation log there"),
        (("--detect", 2), "not in the range"),
    ],
)
def test_bad_requests_are_named(cli, arguments, message):
    done = cli("plan", *arguments)
    assert done.exit_code == 2 and message in done.stderr


@pytest.mark.parametrize("more", [["--unpaired"], ["--detect", "0.05"], ["--tests", "3", "--alpha", "0.09"]])
def test_a_power_that_chance_alone_reaches_is_refused(cli, more):
    done = cli("plan", "--power", "0.03", *more)
    assert done.exit_code == 2 and "--power 0.03: must be above alpha, 0.0" in done.stderr


def test_episodes_without_end_detect_next_to_nothing(cli):
    for alike in (["--discordance", "0.001"], ["--unpaired"]):
        done = cli("plan", "--episodes", 10_000_000, *alike, "--json")
        assert done.exit_code == 0, done.stderr
        assert all(0 < each["up"]["detectable"] < 0.001 for each in json.loads(done.stdout)["designs"])


def test_the_alpha_after_holm_is_offered_and_planned_with(cli):
    """Three tests: the smallest p must be below 0.05 / 3 = 0.0167, which takes more episodes."""
    plain = cli("plan", "--detect", 0.1)
    assert "plan with --tests 3, alpha 0.0167" in plain.stdout
    answer = json.loads(cli("plan", "--detect", 0.1, "--tests", 3, "--json").stdout)
    same = json.loads(cli("plan", "--detect", 0.1, "--alpha", 0.05 / 3, "--json").stdout)
    assert answer["alpha"] == pytest.approx(0.05 / 3) and answer["designs"] == same["designs"]
    assert "alpha 0.0167 (0.05 over 3 tests)" in cli("plan", "--detect", 0.1, "--tests", 3).stdout
