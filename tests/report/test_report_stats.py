"""The statistics of reports against sums done by hand and against published tables."""

from __future__ import annotations

import re
from math import comb, sqrt

import numpy as np
import pytest
from report_logs import TABLE1

from vla_gen_bench.log.counts import wilson
from vla_gen_bench.report import stats

Z = 1.959963984540054  # the 97.5% quantile of the normal distribution


def test_wilson_by_hand():
    # 180 of 192: p = 0.9375; centre (p + z²/2n) / (1 + z²/n), half-width z sqrt(p(1-p)/n + z²/4n²) / (1 + z²/n)
    p, n = 180 / 192, 192
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    assert wilson(180, 192) == pytest.approx((centre - half, centre + half))
    assert wilson(180, 192) == pytest.approx((0.894, 0.964), abs=5e-4)


def test_wilson_is_scipys_bit_for_bit():
    from scipy.stats import binomtest

    for trials in (1, 7, 64, 192):
        for successes in range(trials + 1):
            theirs = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
            assert wilson(successes, trials) == (theirs.low, theirs.high)


def test_mcnemar_by_hand():
    # 14 discordant pairs, 2 against: 2 * (C(14,0) + C(14,1) + C(14,2)) / 2^14 = 2 * (1 + 14 + 91) / 16384
    assert stats.mcnemar(12, 2) == pytest.approx(2 * (1 + 14 + 91) / 16384)
    assert stats.mcnemar(2, 12) == stats.mcnemar(12, 2)
    assert stats.mcnemar(5, 0) == pytest.approx(2 / 2**5)
    assert stats.mcnemar(3, 3) == 1
    assert stats.mcnemar(0, 0) == 1


def test_newcombe_paired_by_hand():
    # 36 both, 12 first only, 2 second only, 0 neither: p1 = 48/50, p2 = 38/50, difference 0.2.
    # phi = (36*0 - 12*2) / sqrt(48 * 2 * 38 * 12) = -24 / 209.227 = -0.11471 (negative: no continuity correction).
    # Wilson of 48/50: 0.86539 to 0.98896; of 38/50: 0.62594 to 0.85702.
    # below = sqrt(0.09461² + 2*0.11471*0.09461*0.09702 + 0.09702²) = 0.14307
    # above = sqrt(0.02896² + 2*0.11471*0.02896*0.13406 + 0.13406²) = 0.14043
    assert stats.newcombe_paired(36, 12, 2, 0) == pytest.approx((0.2 - 0.14307, 0.2 + 0.14043), abs=2e-5)


def test_newcombe_paired_corrects_a_positive_correlation():
    # 20 both, 4 first only, 1 second only, 5 neither, n = 30: cross = 100 - 4 = 96, less n/2 = 81;
    # phi = 81 / sqrt(24 * 6 * 21 * 9) = 81 / 164.97 = 0.49099
    assert stats._phi(20, 4, 1, 5) == pytest.approx(81 / sqrt(24 * 6 * 21 * 9))
    # cross = 4*2 - 1*1 = 7 < 8/2 would leave 3; cross = 2*2 - 1*1 = 3 <= 6/2 leaves none
    assert stats._phi(2, 1, 1, 2) == 0
    low, high = stats.newcombe_paired(20, 4, 1, 5)
    wide_low, wide_high = stats.newcombe_unpaired(24, 30, 21, 30)
    assert wide_low < low < 3 / 30 < high < wide_high


def test_newcombe_paired_without_information():
    assert stats.newcombe_paired(0, 0, 0, 0) == (-1, 1)
    low, high = stats.newcombe_paired(192, 0, 0, 0)  # all solved by both: the interval of two rates of 1
    assert low < 0 < high and low == pytest.approx(-high)


def test_newcombe_paired_swaps_sign_with_the_policies():
    low, high = stats.newcombe_paired(50, 20, 7, 30)
    assert stats.newcombe_paired(50, 7, 20, 30) == pytest.approx((-high, -low))


def test_newcombe_unpaired_by_hand():
    # 180/192 - 150/192 = 0.15625; Wilson 0.89388..0.96393 and 0.71777..0.83391:
    # below = sqrt((0.9375-0.89388)² + (0.83391-0.78125)²), above = sqrt((0.96393-0.9375)² + (0.78125-0.71777)²)
    (low1, high1), (low2, high2) = wilson(180, 192), wilson(150, 192)
    below = sqrt((0.9375 - low1) ** 2 + (high2 - 0.78125) ** 2)
    above = sqrt((high1 - 0.9375) ** 2 + (0.78125 - low2) ** 2)
    assert stats.newcombe_unpaired(180, 192, 150, 192) == pytest.approx((0.15625 - below, 0.15625 + above))


def test_boschloo_is_uniformly_more_powerful_than_fisher():
    # 7 of 8 against 1 of 8. Fisher: both tails hold the tables 7:1 and 8:0, 2 * (8*8 + 1) / C(16, 8) = 130 / 12870.
    fisher = 2 * (8 * 8 + 1) / comb(16, 8)
    assert 0 < stats.boschloo(7, 8, 1, 8) < fisher
    assert stats.boschloo(4, 8, 4, 8) == 1


def test_boschloo_by_enumeration():
    """Twice the largest probability, over the common rate, of the tables whose one-sided Fisher p is as small."""

    def fisher(a, b, n):  # of a or more successes of n in the first sample, given a + b in both
        return sum(comb(n, i) * comb(n, a + b - i) for i in range(a, min(n, a + b) + 1)) / comb(2 * n, a + b)

    def boschloo(a, b, n):
        bound = fisher(a, b, n) * (1 + 1e-9)
        tables = [(i, j) for i in range(n + 1) for j in range(n + 1) if fisher(i, j, n) <= bound]
        rates = np.linspace(0.001, 0.999, 999)
        chance = sum(comb(n, i) * comb(n, j) * rates ** (i + j) * (1 - rates) ** (2 * n - i - j) for i, j in tables)
        return 2 * chance.max()

    for a, b, n in ((7, 1, 8), (9, 4, 10), (12, 7, 15)):
        assert stats.boschloo(a, n, b, n) == pytest.approx(boschloo(a, b, n), rel=1e-3)


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.04: times 3, 2, 1 = 0.03, 0.04, 0.04; each at least the one before it
    assert stats.holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert stats.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert stats.holm([]) == []


def test_holm_and_mcnemar_agree_with_statsmodels():
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    for size in (1, 4, 16):
        p = rng.random(size) ** 3
        assert stats.holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]))
    for wins, losses in rng.integers(0, 40, size=(20, 2)):
        theirs = mcnemar([[0, wins], [losses, 0]], exact=True).pvalue
        assert stats.mcnemar(int(wins), int(losses)) == pytest.approx(min(theirs, 1))


def test_stars():
    assert [stats.stars(p) for p in (0.0009, 0.001, 0.0099, 0.01, 0.049, 0.05)] == ["***", "**", "**", "*", "*", ""]


def test_sign_flips_by_enumeration():
    # 3 pairs, (2, 1, -1): the 8 sums are +-4, +-2, +-2, 0, 0; 6 of them are at least 2 from 0. (1, 1, 1): 2 of 8
    p = stats.sign_flip(np.array([[2.0, 1.0], [1.0, 1.0], [-1.0, 1.0]]), 9999, np.random.default_rng(0))
    assert p == pytest.approx([6 / 8, 2 / 8], abs=0.02)
    floor = stats.floor_of(99_999)
    assert stats.sign_flip(np.ones((40, 1)), 99_999, np.random.default_rng(0)) == pytest.approx([floor]) == [1e-5]


def test_resamples_keep_the_size_of_every_stratum():
    strata = np.array([0] * 5 + [1] * 3)
    weights = stats.resample(strata, 200, np.random.default_rng(0))
    assert (weights[:, :5].sum(axis=1) == 5).all() and (weights[:, 5:].sum(axis=1) == 3).all()
    assert weights.std() > 0


def test_percentiles_leave_undefined_samples_out():
    # 0..100: the middle 90% is 5 to 95
    samples = np.arange(101.0)
    assert stats.percentile_interval(samples, 0.9) == pytest.approx([5, 95])
    assert stats.percentile_interval(np.append(samples, np.nan), 0.9) == pytest.approx([5, 95])


# ---- the reference's table, recovered as k of 192 ----------------------------------------------------------------

ROW = re.compile(
    r"^\| [^|]+ \| (\d+) \| ([\d.]+) \[([\d.]+),([\d.]+)\] \| (\d+) \| ([\d.]+) \[([\d.]+),([\d.]+)\] "
    r"\| ([+-][\d.]+) \[([+-][\d.]+),([+-][\d.]+)\] \| ([\d.e-]+) \| ([\d.e-]+) \|$",
    re.M,
)


def rounds_to(value: float, printed: str) -> bool:
    """Whether `value`, rounded as `printed` is, differs from it by at most one in the last place."""
    mantissa, _, exponent = printed.partition("e")
    step = 10.0 ** (-len(mantissa.partition(".")[2]) + int(exponent or 0))
    return abs(value - float(printed)) <= 1.01 * step


def test_reference_rows_reproduce(shared_dir):
    from scipy.stats import fisher_exact

    text = (shared_dir / "spec" / "interop.md").read_text()
    rows = [match.groups() for match in ROW.finditer(text)]
    assert len(rows) == 16
    assert [(int(row[0]), int(row[4])) for row in rows] == list(TABLE1.values())
    fisher = []
    for k1, rate1, low1, high1, k2, rate2, low2, high2, gap, gap_low, gap_high, p, _ in rows:
        for k, *printed in ((k1, rate1, low1, high1), (k2, rate2, low2, high2)):
            ours = int(k) / 192, *wilson(int(k), 192)
            assert all(map(rounds_to, ours, printed)), (ours, printed)
        difference = (int(k2) - int(k1)) / 192, *stats.newcombe_unpaired(int(k2), 192, int(k1), 192)
        assert all(map(rounds_to, difference, (gap, gap_low, gap_high))), (difference, gap, gap_low, gap_high)
        table = [[int(k2), int(k1)], [192 - int(k2), 192 - int(k1)]]
        fisher.append(float(fisher_exact(table).pvalue))
        assert rounds_to(fisher[-1], p)
    assert all(map(rounds_to, stats.holm(fisher), (row[-1] for row in rows)))


def test_reference_rows_by_hand():
    # IND: SFT 150/192 = 0.781, RL 180/192 = 0.938, difference +0.156 [+0.088, +0.225]; Fisher 1.4e-05.
    assert stats.newcombe_unpaired(180, 192, 150, 192) == pytest.approx((0.088, 0.225), abs=6e-4)
    assert 0 < stats.boschloo(180, 192, 150, 192) <= 1.4e-5
    # Texture (strong), the one row that is not significant: 121/192 - 107/192 = +0.073 [-0.025, +0.169]; Fisher 0.18.
    assert stats.newcombe_unpaired(121, 192, 107, 192) == pytest.approx((-0.025, 0.169), abs=6e-4)
    assert 0.05 < stats.boschloo(121, 192, 107, 192) < 0.18
