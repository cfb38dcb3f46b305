"""The leaderboard's letters and intervals, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vla_gen_bench.leaderboard import rank


def test_a_tie_need_not_be_transitive():
    """b is tied with a and with c, but a is better than c: two letters, b has both."""
    tied = {frozenset("ab"), frozenset("bc")}
    assert rank.compact_letters(["a", "b", "c"], tied) == {"a": "a", "b": "ab", "c": "b"}
    assert rank.compact_letters(["a"], set()) == {"a": "a"}


def test_letters_are_shared_exactly_by_ties():
    generator = np.random.default_rng(0)
    names = list("ABCDEFG")
    for _ in range(50):
        tied = {frozenset((a, b)) for a in names for b in names if a < b and generator.random() < 0.5}
        letters = rank.compact_letters(names, tied)
        for a in names:
            for b in names:
                if a < b:
                    assert bool(set(letters[a]) & set(letters[b])) == (frozenset((a, b)) in tied)


def test_the_paired_interval_of_a_difference_by_hand():
    """Differences 1, 0, 0, 0: mean 0.25, sd 0.5, t(0.975, 3) = 3.182: 0.25 +- 3.182 * 0.25."""
    low, high = rank.t_interval(np.array([1.0, 0.0, 0.0, 0.0]))
    assert (low, high) == pytest.approx((0.25 - 0.7956, 0.25 + 0.7956), abs=1e-3)


def test_a_mean_of_counts_by_hand():
    """Rates 0.5 and 0.8 of 100: mean 0.65, variance (0.0025 + 0.0016) / 4, half width 1.96 * 0.03202."""
    mean = rank.mean_of_counts([(50, 100), (80, 100)])
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.65, 0.5872, 0.7128), abs=1e-4)
