"""The number of episodes a comparison of two success rates needs, and what a given number can show.

Two-sided tests at level `alpha`, with probability `power` to find a true difference. Formulas and a worked example:
docs/plan.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import asin, ceil, sin, sqrt

import numpy as np

from vla_gen_bench.errors import UserError
from vla_gen_bench.log.counts import wilson
from vla_gen_bench.log.rows import Row

CORRELATIONS = (0.0, 0.3, 0.6)  # shown if the similarity of the two policies is not given
NEGLIGIBLE = 1e-12  # numbers of discordant pairs less probable than this are skipped
SMALLEST = 1e-4  # smallest difference that is searched for


@dataclass(frozen=True)
class Test:
    """Level and power of the comparison.

    Attributes:
        alpha: The comparison's own p must be below this.
        power: Probability of detecting a true difference.
        tests: Number of tests Holm corrects together; `alpha` is their joint level divided by it.
    """

    __test__ = False  # keeps pytest from collecting it

    alpha: float = 0.05
    power: float = 0.8
    tests: int = 1


@dataclass(frozen=True)
class Alike:
    """How similar the outcomes of two policies are on the same episodes; exactly one field is given.

    Attributes:
        correlation: Phi of the outcomes; the discordance then follows from the rates.
        discordance: Share of episodes in which exactly one policy succeeds, independent of the rates.
    """

    correlation: float = 0.0
    discordance: float | None = None

    @property
    def name(self) -> str:
        if self.discordance is not None:
            return f"paired, discordance {self.discordance:.3f}"
        return f"paired, correlation {self.correlation:.2f}"

    def share(self, first: float, second: float) -> float:
        """Returns the share of discordant pairs; raises `UserError` if the rates do not allow the correlation."""
        return self.discordance if self.discordance is not None else discordance_of(first, second, self.correlation)

    def largest(self, baseline: float, sign: int) -> float:
        """Returns the largest possible difference in one direction, with a small margin; 0 if there is none."""
        room = (1 - baseline if sign > 0 else baseline) - SMALLEST
        if self.discordance is not None:
            return min(room, self.discordance)
        for difference in np.linspace(room, SMALLEST, 200).tolist():
            try:
                self.share(baseline, baseline + sign * difference)
            except UserError:
                continue
            return difference
        return 0.0


@dataclass(frozen=True)
class Side:
    """A comparison in one direction.

    Attributes:
        rate: The other policy's rate at the requested difference; None if only `detectable` was requested.
        discordance: Share of episodes in which exactly one of the two succeeds; None when unpaired.
        episodes: Number per policy needed to detect the difference.
        detectable: The smallest difference that the given number of episodes detects; None if there is none.
    """

    rate: float | None
    discordance: float | None
    episodes: int | None
    detectable: float | None


@dataclass(frozen=True)
class Design:
    """Unpaired, or paired under an assumption; `up` and `down` are a better and a worse policy than the baseline."""

    name: str
    up: Side | None
    down: Side | None


@dataclass(frozen=True)
class Pilot:
    """What two runs on the same episodes show: rates, and how often exactly one policy succeeds."""

    episodes: int
    rates: tuple[float, float]
    discordance: float
    low: float
    high: float


# ---- independent samples -------------------------------------------------------------------------------------


def unpaired_episodes(baseline: float, rate: float, test: Test) -> int:
    """Returns the episodes per policy for independent samples: normal approximation of arcsine-transformed rates.

    statsmodels' NormalIndPower on Cohen's h (Cohen 1988, chapter 6).
    """
    from statsmodels.stats.power import NormalIndPower
    from statsmodels.stats.proportion import proportion_effectsize

    effect = proportion_effectsize(rate, baseline)
    return ceil(NormalIndPower().solve_power(effect_size=effect, alpha=test.alpha, power=test.power))


def unpaired_detectable(baseline: float, episodes: int, sign: int, test: Test) -> float | None:
    """Returns the smallest difference that `episodes` per policy detect; None if the rate would leave [0, 1]."""
    from statsmodels.stats.power import NormalIndPower

    effect = NormalIndPower().solve_power(nobs1=episodes, alpha=test.alpha, power=test.power)
    angle = asin(sqrt(baseline)) + sign * effect / 2
    return abs(sin(angle) ** 2 - baseline) if 0 <= angle <= np.pi / 2 else None


# ---- the same episodes ---------------------------------------------------------------------------------------


def discordance_of(first: float, second: float, correlation: float) -> float:
    """Returns the share of discordant pairs for two rates whose outcomes have this correlation (phi).

    Raises:
        UserError: No outcomes with these rates can have this correlation.
    """
    spread = sqrt(first * (1 - first) * second * (1 - second))
    both = first * second + correlation * spread
    low, high = max(0.0, first + second - 1), min(first, second)
    if not low - 1e-12 <= both <= high + 1e-12:
        bound = ((high if both > high else low) - first * second) / spread
        limit = "most" if both > high else "least"
        rates = f"rates {first:.3f} and {second:.3f}"
        raise UserError(f"correlation {correlation:g}: {rates} allow {bound:.3f} at {limit}; give another")
    return first + second - 2 * both


def connor_pairs(discordance: float, difference: float, test: Test) -> int:
    """Returns the number of pairs McNemar's test needs, by the formula of Connor, Biometrics 43 (1987) 207-211."""
    from scipy.stats import norm

    a, b = norm.ppf(1 - test.alpha / 2), norm.ppf(test.power)
    return ceil((a * sqrt(discordance) + b * sqrt(discordance - difference**2)) ** 2 / difference**2)


def mcnemar_power(pairs: int, discordance: float, difference: float, alpha: float) -> float:
    """Returns the power of the exact McNemar test, summed over all numbers of discordant pairs.

    Args:
        pairs: Episodes that both policies ran.
        discordance: Probability that exactly one of them succeeds.
        difference: Difference of the success rates, at most `discordance` in size.
        alpha: Level.
    """
    from scipy.stats import binom

    counts = np.arange(pairs + 1)
    weights = binom.pmf(counts, pairs, discordance)
    counts, weights = counts[weights > NEGLIGIBLE], weights[weights > NEGLIGIBLE]
    critical = binom.ppf(alpha / 2, counts, 0.5)
    critical -= binom.cdf(critical, counts, 0.5) > alpha / 2
    share = min((discordance + abs(difference)) / (2 * discordance), 1.0)
    found = binom.cdf(critical, counts, share) + binom.sf(counts - critical - 1, counts, share)
    return float(weights @ found)


def paired_episodes(discordance: float, difference: float, test: Test) -> int:
    """Returns the smallest number of pairs at which the exact McNemar test reaches the power, from Connor's value up.

    Raises:
        UserError: The discordance is smaller than the difference of the rates.
    """
    if abs(difference) > discordance + 1e-12:
        raise UserError(
            f"discordance {discordance:g}: rates that differ by {abs(difference):g} differ in at least that share of "
            "the episodes; give a larger one"
        )

    def enough(pairs: int) -> bool:
        return mcnemar_power(pairs, discordance, difference, test.alpha) >= test.power

    low, high = 0, connor_pairs(discordance, difference, test)
    while not enough(high):
        low, high = high, high + max(high // 8, 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def paired_detectable(discordance: Callable[[float], float], largest: float, episodes: int, test: Test) -> float | None:
    """Returns the smallest difference that `episodes` pairs detect.

    Args:
        discordance: Difference -> share of discordant pairs.
        largest: Upper bound of the search; the result is None if not even this difference is detected.
        episodes: Pairs.
        test: Level and power.
    """
    from scipy.optimize import brentq

    def surplus(difference: float) -> float:
        return mcnemar_power(episodes, discordance(difference), difference, test.alpha) - test.power

    if largest <= SMALLEST or surplus(largest) < 0:
        return None
    if surplus(SMALLEST) >= 0:
        return SMALLEST
    return float(brentq(surplus, SMALLEST, largest, xtol=1e-6))


# ---- both together -------------------------------------------------------------------------------------------


def unpaired_design(baseline: float, detect: float | None, episodes: int, test: Test) -> Design:
    """Returns what independent samples need and detect."""

    def side(sign: int) -> Side | None:
        rate = _other(baseline, detect, sign)
        if detect is not None and rate is None:
            return None
        needed = None if rate is None else unpaired_episodes(baseline, rate, test)
        return Side(rate, None, needed, unpaired_detectable(baseline, episodes, sign, test))

    return Design("unpaired", side(1), side(-1))


def paired_design(baseline: float, detect: float | None, episodes: int, alike: Alike, test: Test) -> Design:
    """Returns what paired episodes need and detect."""

    def side(sign: int) -> Side | None:
        rate = _other(baseline, detect, sign)
        if detect is not None and rate is None:
            return None
        share = None if rate is None else alike.share(baseline, rate)
        needed = None if rate is None else paired_episodes(share, detect, test)
        found = paired_detectable(
            lambda d: alike.share(baseline, baseline + sign * d), alike.largest(baseline, sign), episodes, test
        )
        return Side(rate, share, needed, found)

    return Design(alike.name, side(1), side(-1))


def _other(baseline: float, detect: float | None, sign: int) -> float | None:
    rate = None if detect is None else round(baseline + sign * detect, 12)
    return rate if rate is not None and 0 <= rate <= 1 else None


def pilot_of(first: Iterable[Row], second: Iterable[Row], metric: str = "success_at_end") -> Pilot:
    """Returns what the rows of two logs show, over the episodes that both finished.

    Raises:
        UserError: They share no episodes, or sampled one differently.
    """
    ours, theirs = ({row.key: row for row in rows if row.ok} for rows in (first, second))
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        raise UserError("the pilot's runs share no finished episode; evaluate both on one suite")
    for key in shared:
        if ours[key].spec_digest != theirs[key].spec_digest:
            raise UserError(f"the pilot's runs drew episode {'/'.join(map(str, key))} differently; evaluate both again")
    pairs = np.array([[getattr(ours[key], metric), getattr(theirs[key], metric)] for key in shared], bool)
    differing = int((pairs[:, 0] != pairs[:, 1]).sum())
    rates = pairs.mean(axis=0)
    interval = wilson(differing, len(shared))
    return Pilot(len(shared), (float(rates[0]), float(rates[1])), differing / len(shared), *interval)
