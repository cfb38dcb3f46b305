"""Means over dimensions and drops from IND, with bootstrap intervals over the episode ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vla_gen_bench.report import stats
from vla_gen_bench.report.contrasts import shared_ids
from vla_gen_bench.report.outcomes import Cell
from vla_gen_bench.report.scenarios import ScenarioInfo

RESAMPLES = 5000
FLIPS = 99_999  # resamples of the permutation test
MIN_IDS = 10  # with fewer ids the bootstrap intervals are too narrow, even of zero width
BOOTSTRAP_SEED = 0
CONTROL = "control"
MEAN, ABSOLUTE, RELATIVE = "mean", "drop", "relative drop"


@dataclass(frozen=True)
class Estimate:
    """A mean or a drop with its bootstrap interval; `value` is None if it is undefined.

    Attributes:
        low, high: NaN with fewer than `MIN_IDS` episode ids.
        p: For the difference of two means over the same episodes, of the test that they are equal; else None.
        p_holm: For a dimension's mean: `p` corrected over the dimensions of this pair of policies.
    """

    value: float | None
    low: float
    high: float
    partial: bool = False
    p: float | None = None
    p_holm: float | None = None

    @property
    def stars(self) -> str:
        return "" if self.p_holm is None else stats.stars(self.p_holm)


@dataclass(frozen=True)
class Summary:
    """A summary row below the scenarios: one estimate per policy, and its difference from the baseline's.

    Attributes:
        kind: "mean", "drop" or "relative drop".
        dimension: A dimension, or "ood" for all of them.
        rows: Number of scenarios in the mean.
        estimates: One per policy.
        differences: One per policy, from the baseline, over the episodes that both ran in each row (in rows that share
            too little to be paired, over all); None at the baseline and without one.
    """

    kind: str
    dimension: str
    rows: int
    estimates: tuple[Estimate, ...]
    differences: tuple[Estimate | None, ...]


def summaries_of(
    outcomes: np.ndarray, infos: Sequence[ScenarioInfo], cells: list[list[Cell]], baseline: int | None, level: float
) -> tuple[Summary, ...]:
    """Returns mean, drop and relative drop for each dimension except IND, then for all rows except IND."""
    groups = _groups(infos)
    ind = groups.pop("ind", [])
    rates = np.array([[np.nan if cell.rate is None else cell.rate for cell in row] for row in cells])  # [S, P]
    samples = bootstrap_rates(outcomes)  # [R, S, P]
    few = few_ids(outcomes)
    tests = {} if baseline is None else _tests(outcomes, groups, baseline)
    partial = np.array([[cell.partial for cell in row] for row in cells])
    unequal = {} if baseline is None else _unequal_pairs(outcomes, baseline)
    summaries = []
    for dimension, rows in groups.items():
        for kind in (MEAN, ABSOLUTE, RELATIVE) if ind else (MEAN,):
            value, spread = _figure(kind, rates, ind, rows), _figure(kind, samples, ind, rows)
            flags = partial[rows if kind == MEAN else rows + ind].any(axis=0)
            estimates = _estimates(value, spread, flags, level, few)
            differences = [None] * len(value)
            if baseline is not None:
                gain, gains = value - value[baseline], spread - spread[:, [baseline]]
                for policy, pair in unequal.items():
                    (ours, theirs), both = _figure(kind, pair[0], ind, rows), _figure(kind, pair[1], ind, rows)
                    gain[policy], gains[:, policy] = ours - theirs, both[:, 0] - both[:, 1]
                differences = [*_estimates(gain, gains, flags | flags[baseline], level, few)]
                if kind == MEAN:
                    differences = [replace(found, **test) for found, test in zip(differences, tests[dimension])]
                differences[baseline] = None
            summaries.append(Summary(kind, dimension, len(rows), estimates, tuple(differences)))
    return tuple(summaries)


def _unequal_pairs(outcomes: np.ndarray, baseline: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Returns, for each policy that ran other episodes than the baseline, both policies' rates over what they share.

    So the difference of two means is the mean of the rows' differences. Rows that share too little to be paired count
    in full.

    Returns:
        Policy -> rates [S, 2] and bootstrap samples [R, S, 2], of the policy and the baseline.
    """
    found = {}
    for policy, ours in enumerate(outcomes):
        pair = np.stack([ours, outcomes[baseline]])
        done = np.isfinite(pair)
        if (done[0] == done[1]).all():
            continue
        for row in range(pair.shape[1]):
            shared = shared_ids(*done[:, row])
            if shared is not None:
                pair[:, row, ~shared] = np.nan
        n = np.isfinite(pair).sum(axis=2)
        rates = np.divide(np.nansum(pair, axis=2), n, out=np.full(n.shape, np.nan), where=n > 0)
        found[policy] = rates.T, bootstrap_rates(pair)
    return found


def _groups(infos: Sequence[ScenarioInfo]) -> dict[str, list[int]]:
    """Returns the positions of each dimension's rows; "ood" holds all but IND if they span several dimensions.

    Control rows, which remove an input, do not measure generalization and count in no mean.
    """
    groups: dict[str, list[int]] = {}
    for place, info in enumerate(infos):
        if info.dimension != CONTROL:
            groups.setdefault(info.dimension, []).append(place)
    shifted = [rows for dimension, rows in groups.items() if dimension != "ind"]
    return {**groups, "ood": sum(shifted, [])} if len(shifted) > 1 else groups


def _figure(kind: str, rates: np.ndarray, ind: list[int], rows: list[int]) -> np.ndarray:
    """Returns [..., P] from rates [..., S, P]. A mean is the plain mean of the rows; NaN if a row has no rate."""
    mean = rates[..., rows, :].mean(axis=-2)
    if kind == MEAN:
        return mean
    reference = rates[..., ind, :].mean(axis=-2)
    drop = reference - mean
    if kind == ABSOLUTE:
        return drop
    return np.divide(drop, reference, out=np.full_like(drop, np.nan), where=reference > 0)


def bootstrap_rates(outcomes: np.ndarray, resamples: int = RESAMPLES, seed: int = BOOTSTRAP_SEED) -> np.ndarray:
    """Returns rates [R, scenarios, policies] over bootstrap samples of the episode ids of outcomes [P, S, N].

    Each id is drawn for all policies and scenarios at once, which preserves the pairing, and every scenario keeps its
    size. Ids that only some policies ran are resampled separately. The same seed gives the same samples.
    """
    policies, scenarios, ids = outcomes.shape
    done = np.isfinite(outcomes)
    _, strata = np.unique(done.any(axis=1).T, axis=0, return_inverse=True)
    weights = stats.resample(strata.reshape(-1), resamples, np.random.default_rng(seed))
    flat = np.moveaxis(outcomes, 0, 1).reshape(-1, ids).T  # [N, S * P]
    counts = weights @ np.isfinite(flat).astype(float)
    hits = weights @ np.nan_to_num(flat)
    rates = np.divide(hits, counts, out=np.full_like(hits, np.nan), where=counts > 0)
    return rates.reshape(resamples, scenarios, policies)


def mean_tests(outcomes: np.ndarray, baseline: int) -> list[float | None]:
    """Returns, per policy, the p of a sign-flip test that its mean over rows equals the baseline's.

    An episode id is one pair: its difference is summed over the rows, which show variants of the same episode.
    The result is None if the two did not run the same episodes.

    Args:
        outcomes: float [P, rows, N]; NaN = not run.
    """
    return group_tests({"": outcomes}, baseline)[""]


def group_tests(groups: dict[str, np.ndarray], baseline: int) -> dict[str, list[float | None]]:
    """Like `mean_tests`, for several groups of rows over the same ids, with one set of sign flips for all of them."""
    if not groups:
        return {}
    with np.errstate(invalid="ignore"):
        sums = [np.nansum(outcomes - outcomes[baseline], axis=1) for outcomes in groups.values()]  # [P, N] each
    p = stats.sign_flip(np.concatenate(sums).T, FLIPS, np.random.default_rng(BOOTSTRAP_SEED)).reshape(len(groups), -1)
    found = {}
    for name, values in zip(groups, p):
        done = np.isfinite(groups[name])
        same = (done == done[baseline]).all(axis=(1, 2))
        found[name] = [float(value) if alike else None for value, alike in zip(values, same)]
    return found


def few_ids(outcomes: np.ndarray) -> bool:
    """Whether some policy ran fewer than `MIN_IDS` episode ids, of outcomes [P, S, N]."""
    return bool((np.isfinite(outcomes).any(axis=1).sum(axis=1) < MIN_IDS).any())


def _tests(outcomes: np.ndarray, groups: dict[str, list[int]], baseline: int) -> dict[str, list[dict]]:
    """Returns, by dimension, each policy's `p` and `p_holm`; the Holm family is the dimensions without "ood"."""
    p = group_tests({name: outcomes[:, rows] for name, rows in groups.items()}, baseline)
    found = {name: [{"p": one} for one in values] for name, values in p.items()}
    for policy in range(len(outcomes)):
        family = [name for name in groups if name != "ood" and p[name][policy] is not None]
        for name, corrected in zip(family, stats.holm([p[name][policy] for name in family])):
            found[name][policy]["p_holm"] = corrected
    return found


def _estimates(
    value: np.ndarray, spread: np.ndarray, partial: np.ndarray, level: float, few: bool
) -> tuple[Estimate, ...]:
    """Returns an estimate per policy from values [P] and bootstrap samples [R, P]; no intervals if `few`."""
    found = []
    for policy, middle in enumerate(value):
        if np.isnan(middle):
            found.append(Estimate(None, np.nan, np.nan, bool(partial[policy])))
        else:
            low, high = (np.nan, np.nan) if few else stats.percentile_interval(spread[:, policy], level)
            found.append(Estimate(float(middle), float(low), float(high), bool(partial[policy])))
    return tuple(found)
