"""Statistics of success rates: intervals, paired and unpaired tests, correction for many rows, bootstrap.

Pure functions on counts and arrays, from scipy and statsmodels where these have them. docs/report.md states which
function computes each number of a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import sqrt

import numpy as np

from vla_gen_bench.log.counts import wilson

FLIPS_AT_ONCE = 20_000  # bounds memory
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


def newcombe_paired(
    both: int, first_only: int, second_only: int, neither: int, level: float = 0.95
) -> tuple[float, float]:
    """Returns the interval of the difference of two paired rates, first minus second.

    Method 10 of Newcombe, Statistics in Medicine 17 (1998) 2635-2650: Wilson intervals of the two rates, combined using
    their correlation with a continuity correction. (-1, 1) without pairs.

    Args:
        both: Number of pairs in which both succeeded.
        first_only: Number of pairs in which only the first succeeded.
        second_only: Number of pairs in which only the second succeeded.
        neither: Number of pairs in which neither succeeded.
        level: Confidence.
    """
    n = both + first_only + second_only + neither
    if n == 0:
        return -1.0, 1.0
    rates = (both + first_only) / n, (both + second_only) / n
    (low1, high1), (low2, high2) = (wilson(round(rate * n), n, level) for rate in rates)
    phi = _phi(both, first_only, second_only, neither)
    difference = (first_only - second_only) / n
    below = _joined(rates[0] - low1, high2 - rates[1], phi)
    above = _joined(high1 - rates[0], rates[1] - low2, phi)
    return difference - below, difference + above


def _phi(both: int, first_only: int, second_only: int, neither: int) -> float:
    """The correlation of the two outcomes; half a pair of continuity correction moves a positive one towards 0."""
    margins = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    if margins == 0:
        return 0.0
    cross = both * neither - first_only * second_only
    if cross > 0:
        cross = max(cross - (both + first_only + second_only + neither) / 2, 0)
    return cross / sqrt(margins)


def _joined(first: float, second: float, phi: float) -> float:
    return sqrt(max(first**2 - 2 * phi * first * second + second**2, 0.0))


def newcombe_unpaired(k1: int, n1: int, k2: int, n2: int, level: float = 0.95) -> tuple[float, float]:
    """Returns Newcombe's hybrid score interval of k1/n1 - k2/n2 for independent samples; (-1, 1) if one is empty."""
    from statsmodels.stats.proportion import confint_proportions_2indep

    if n1 == 0 or n2 == 0:
        return -1.0, 1.0
    low, high = confint_proportions_2indep(k1, n1, k2, n2, method="newcomb", compare="diff", alpha=1 - level)
    return float(low), float(high)


@lru_cache(maxsize=None)
def mcnemar(first_only: int, second_only: int) -> float:
    """Returns the two-sided p of the exact McNemar test; 1 without discordant pairs.

    It is the sign test of the discordant pairs: twice the binomial tail at 1/2. statsmodels and `scipy.stats` compute
    the same, but importing either takes 0.4 s.
    """
    from scipy.special import bdtr

    discordant = first_only + second_only
    return min(2 * float(bdtr(min(first_only, second_only), discordant, 0.5)), 1.0) if discordant else 1.0


@lru_cache(maxsize=None)
def boschloo(k1: int, n1: int, k2: int, n2: int) -> float:
    """Returns the two-sided p of Boschloo's exact test of equal rates, for independent samples; 1 if one is empty.

    About 0.3 s at 192 against 192, hence the cache.
    """
    from scipy.stats import boschloo_exact

    if n1 == 0 or n2 == 0 or k1 * n2 == k2 * n1:
        return 1.0
    return min(float(boschloo_exact([[k1, k2], [n1 - k1, n2 - k2]]).pvalue), 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns the p values of one family, Holm-corrected.

    Equals statsmodels' `multipletests`, which collects garbage in each call: 2 s in a report on 20 runs.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected.tolist()


def stars(p: float) -> str:
    """Returns "***" below 0.001, "**" below 0.01, "*" below 0.05, else nothing."""
    return next((mark for bound, mark in STARS if p < bound), "")


def sign_flip(differences: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the two-sided p, [K], of paired permutation tests that K means are 0.

    If two policies are alike, each pair's difference is equally likely with either sign. One choice of signs serves
    all columns.

    Args:
        differences: float [N, K], whole numbers, from N pairs.
        resamples: Number of random choices of signs; the smallest p is `floor_of(resamples)`.
    """
    differences = differences.astype(np.float32)  # sums of whole numbers below 2^24 are exact
    total = differences.sum(axis=0)
    as_far, bound = np.zeros(len(total), int), np.abs(total) - np.float32(1e-3)
    for start in range(0, resamples, FLIPS_AT_ONCE):
        size = min(FLIPS_AT_ONCE, resamples - start), len(differences)
        flipped = rng.integers(0, 2, size, np.uint8).astype(np.float32)  # 1 where the sign is flipped
        sums = flipped @ differences
        sums *= -2
        sums += total
        as_far += (np.abs(sums, out=sums) >= bound).sum(axis=0)
    return (1 + as_far) / (1 + resamples)


def floor_of(resamples: int) -> float:
    """Returns the smallest p that this many random choices can give; at that value, p is only known to be no larger."""
    return 1 / (1 + resamples)


def resample(strata: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Returns float [R, N]: how often each of N episode ids occurs in each of R bootstrap samples.

    Args:
        strata: int [N], the stratum of each id; every sample preserves the size of each stratum.
        resamples: R.
        rng: The only source of randomness.
    """
    weights = np.zeros((resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
    return weights


def percentile_interval(samples: np.ndarray, level: float) -> np.ndarray:
    """Returns [2, ...]: the bounds of the middle `level` of samples [R, ...], ignoring NaN samples."""
    tail = 50 * (1 - level)
    if np.isnan(samples).any():
        return np.nanpercentile(samples, [tail, 100 - tail], axis=0)
    return np.percentile(samples, [tail, 100 - tail], axis=0)
