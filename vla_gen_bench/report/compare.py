"""The comparison itself: counts, means over dimensions, drops from IND, and contrasts with a baseline.

All of it is computed from one array of outcomes, [policies, scenarios, episode ids], so that the bootstrap can draw
ids jointly for all of them. docs/report.md defines every number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.report import stats
from vla_gen_bench.report.load import Run
from vla_gen_bench.report.scenarios import ScenarioInfo

METRICS = {"success_at_end": "success at the end", "success_once": "success at any time"}
RESAMPLES = 5000
BOOTSTRAP_SEED = 0
MEAN, ABSOLUTE, RELATIVE = "mean", "drop", "relative drop"
PAIRED_SHARE = 0.5  # a contrast is paired if the runs share at least this part of the larger one's episodes


@dataclass(frozen=True)
class Cell:
    """One policy on one scenario. `n` episodes have an outcome; errored and missing ones are not among them."""

    k: int
    n: int
    errors: int
    missing: int
    low: float
    high: float

    @property
    def rate(self) -> float | None:
        return self.k / self.n if self.n else None

    @property
    def partial(self) -> bool:
        return bool(self.errors or self.missing)


@dataclass(frozen=True)
class Estimate:
    """A mean or a drop with its bootstrap interval; `value` is None where it is not defined."""

    value: float | None
    low: float
    high: float
    partial: bool = False


@dataclass(frozen=True)
class Summary:
    """A line below the scenarios: one estimate per policy, and its difference from the baseline's.

    Attributes:
        kind: "mean", "drop" or "relative drop".
        dimension: A dimension, or "ood" for all of them.
        rows: How many scenarios the mean is over.
        estimates: One per policy.
        differences: One per policy, from the baseline; None at the baseline and without one.
    """

    kind: str
    dimension: str
    rows: int
    estimates: tuple[Estimate, ...]
    differences: tuple[Estimate | None, ...]


@dataclass(frozen=True)
class Contrast:
    """A policy against the baseline on one scenario.

    Attributes:
        difference, low, high: Of the success rates, with Newcombe's interval.
        wins, losses: Discordant pairs, the policy alone succeeding and the baseline alone; None when unpaired.
        pairs: Episodes that both did; 0 when unpaired.
        p: Exact McNemar, or Boschloo when unpaired.
        p_holm: Corrected over all scenarios of this pair of policies.
    """

    difference: float
    low: float
    high: float
    wins: int | None
    losses: int | None
    pairs: int
    p: float
    p_holm: float
    partial: bool

    @property
    def paired(self) -> bool:
        return self.wins is not None

    @property
    def stars(self) -> str:
        return stats.stars(self.p_holm)


@dataclass(frozen=True)
class Row:
    """One scenario. Per policy: a cell, a contrast (None at the baseline or without outcomes), counts of stages."""

    info: ScenarioInfo
    cells: tuple[Cell, ...]
    contrasts: tuple[Contrast | None, ...]
    stages: tuple[dict[str, int], ...]


@dataclass(frozen=True)
class Comparison:
    """Everything a report shows. Policies are in the order of `labels` throughout."""

    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    summaries: tuple[Summary, ...]
    baseline: int | None
    metric: str
    level: float

    @property
    def labels(self) -> list[str]:
        return [run.label for run in self.runs]

    @property
    def partial(self) -> bool:
        return any(run.defect() for run in self.runs)

    def dimensions(self) -> list[str]:
        """Returns the dimensions of the rows, in their order."""
        return list(dict.fromkeys(row.info.dimension for row in self.rows))


def compare(
    runs: Sequence[Run],
    infos: Sequence[ScenarioInfo],
    baseline: int | None = None,
    metric: str = "success_at_end",
    level: float = 0.95,
) -> Comparison:
    """Compares runs of one suite in one world.

    Args:
        runs: As `load.check_comparable` passed them.
        infos: The scenarios, in the order of the table.
        baseline: Position of the run that the others are compared with; None for no contrasts.
        metric: A key of `METRICS`.
        level: Confidence of every interval.
    """
    outcomes = outcome_array(runs, [info.id for info in infos], metric)
    missing, errored = [run.missing() for run in runs], [run.errored() for run in runs]
    cells = [
        [_cell(outcomes[p, s], errored[p][info.id], missing[p][info.id], level) for p in range(len(runs))]
        for s, info in enumerate(infos)
    ]
    contrasts = [_contrasts(outcomes, policy, baseline, cells, level) for policy in range(len(runs))]
    stages = _stage_counts(runs)
    rows = tuple(
        Row(info, tuple(cells[s]), tuple(column[s] for column in contrasts), tuple(each[info.id] for each in stages))
        for s, info in enumerate(infos)
    )
    summaries = _summaries(outcomes, infos, cells, baseline, level)
    return Comparison(tuple(runs), rows, summaries, baseline, metric, level)


def find_baseline(runs: Sequence[Run], name: str | None) -> int | None:
    """Returns the position of the run called `name` (label, policy or folder); None: the first of several.

    Raises:
        UserError: No run or several are called so.
    """
    if name is None:
        return 0 if len(runs) > 1 else None
    names = [{run.label, run.policy, str(run.folder), str(run.folder.resolve())} for run in runs]
    found = [place for place, known in enumerate(names) if name.rstrip("/") in known]
    if len(found) == 1:
        return found[0]
    labels = [run.label for run in runs]
    if found:
        raise UserError(f"--baseline {name}: several runs are called so; give one of: {', '.join(labels)}")
    raise UserError(f"--baseline {name}: not among the runs{suggest(name, labels)}")


def outcome_array(runs: Sequence[Run], scenarios: Sequence[str], metric: str) -> np.ndarray:
    """Returns float [policies, scenarios, ids]: 1 success, 0 failure, NaN no outcome; ids are (seed, index), sorted."""
    ids = sorted({key[1:] for run in runs for key in run.episodes})
    place = {id: position for position, id in enumerate(ids)}
    row = {scenario: position for position, scenario in enumerate(scenarios)}
    outcomes = np.full((len(runs), len(scenarios), len(ids)), np.nan)
    for policy, run in enumerate(runs):
        for (scenario, *id), episode in run.episodes.items():
            success = getattr(episode, metric)
            if success is not None and scenario in row:
                outcomes[policy, row[scenario], place[tuple(id)]] = success
    return outcomes


def _cell(outcomes: np.ndarray, errors: int, missing: int, level: float) -> Cell:
    k, n = int(np.nansum(outcomes)), int(np.isfinite(outcomes).sum())
    return Cell(k, n, errors, missing, *stats.wilson(k, n, level))


def _stage_counts(runs: Sequence[Run]) -> list[dict[str, dict[str, int]]]:
    counts: list[dict[str, dict[str, int]]] = []
    for run in runs:
        of: dict[str, dict[str, int]] = {}
        for (scenario, _, _), episode in run.episodes.items():
            stages = of.setdefault(scenario, {})
            if episode.stage is not None:
                stages[episode.stage] = stages.get(episode.stage, 0) + 1
        counts.append(_Default(of))
    return counts


class _Default(dict):
    """A scenario that a run did not do has no stages."""

    def __missing__(self, key: str) -> dict[str, int]:
        return {}


# ---- contrasts with the baseline ------------------------------------------------------------------------------


def _contrasts(
    outcomes: np.ndarray, policy: int, baseline: int | None, cells: list[list[Cell]], level: float
) -> list[Contrast | None]:
    """Returns a contrast per scenario; the family of the Holm correction is those of this pair of policies."""
    scenarios = range(outcomes.shape[1])
    if baseline is None or policy == baseline:
        return [None for _ in scenarios]
    parts = {
        s: _contrast(outcomes[policy, s], outcomes[baseline, s], level)
        for s in scenarios
        if cells[s][policy].n and cells[s][baseline].n
    }
    corrected = dict(zip(parts, stats.holm([part["p"] for part in parts.values()])))
    partial = {s: cells[s][policy].partial or cells[s][baseline].partial for s in parts}
    return [Contrast(**parts[s], p_holm=corrected[s], partial=partial[s]) if s in parts else None for s in scenarios]


def _contrast(ours: np.ndarray, theirs: np.ndarray, level: float) -> dict:
    """Paired over the episodes both did, if these are at least half of the larger run's; else unpaired over all."""
    did, they_did = np.isfinite(ours), np.isfinite(theirs)
    shared = did & they_did
    if shared.sum() >= PAIRED_SHARE * max(did.sum(), they_did.sum()):
        return paired_contrast(ours[shared] == 1, theirs[shared] == 1, level)
    counts = int(ours[did].sum()), int(did.sum()), int(theirs[they_did].sum()), int(they_did.sum())
    return unpaired_contrast(*counts, level)


def paired_contrast(ours: np.ndarray, theirs: np.ndarray, level: float) -> dict:
    """Returns the fields of a `Contrast`, bar `p_holm` and `partial`, for bool [N] outcomes of the same episodes."""
    both, wins = int((ours & theirs).sum()), int((ours & ~theirs).sum())
    losses, pairs = int((~ours & theirs).sum()), len(ours)
    low, high = stats.newcombe_paired(both, wins, losses, pairs - both - wins - losses, level)
    fields = {"difference": (wins - losses) / pairs, "low": low, "high": high}
    return {**fields, "wins": wins, "losses": losses, "pairs": pairs, "p": stats.mcnemar(wins, losses)}


def unpaired_contrast(k1: int, n1: int, k2: int, n2: int, level: float) -> dict:
    """As `paired_contrast` for independent episodes: k1 of n1 for the policy, k2 of n2 for the baseline."""
    low, high = stats.newcombe_unpaired(k1, n1, k2, n2, level)
    fields = {"difference": k1 / n1 - k2 / n2, "low": low, "high": high}
    return {**fields, "wins": None, "losses": None, "pairs": 0, "p": stats.boschloo(k1, n1, k2, n2)}


# ---- means and drops ------------------------------------------------------------------------------------------


def _summaries(
    outcomes: np.ndarray, infos: Sequence[ScenarioInfo], cells: list[list[Cell]], baseline: int | None, level: float
) -> tuple[Summary, ...]:
    """Returns mean, drop and relative drop for each dimension beside IND, then for all rows beside IND."""
    groups = _groups(infos)
    ind = groups.pop("ind", [])
    rates = np.array([[np.nan if cell.rate is None else cell.rate for cell in row] for row in cells])  # [S, P]
    samples = bootstrap_rates(outcomes)  # [R, S, P]
    partial = np.array([[cell.partial for cell in row] for row in cells])
    summaries = []
    for dimension, rows in groups.items():
        for kind in (MEAN, ABSOLUTE, RELATIVE) if ind else (MEAN,):
            value, spread = _figure(kind, rates, ind, rows), _figure(kind, samples, ind, rows)
            flags = partial[rows if kind == MEAN else rows + ind].any(axis=0)
            estimates = _estimates(value, spread, flags, level)
            differences = [None] * len(value)
            if baseline is not None:
                against = value - value[baseline], spread - spread[:, [baseline]], flags | flags[baseline]
                differences = [*_estimates(*against, level)]
                differences[baseline] = None
            summaries.append(Summary(kind, dimension, len(rows), estimates, tuple(differences)))
    return tuple(summaries)


def _groups(infos: Sequence[ScenarioInfo]) -> dict[str, list[int]]:
    """Returns the positions of each dimension's rows, and under "ood" those of all but IND if they are of several."""
    groups: dict[str, list[int]] = {}
    for place, info in enumerate(infos):
        groups.setdefault(info.dimension, []).append(place)
    shifted = [rows for dimension, rows in groups.items() if dimension != "ind"]
    return {**groups, "ood": sum(shifted, [])} if len(shifted) > 1 else groups


def _figure(kind: str, rates: np.ndarray, ind: list[int], rows: list[int]) -> np.ndarray:
    """Returns [..., P] from rates [..., S, P]. A mean is the plain mean of the rows; NaN where a row has no rate."""
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

    An id is drawn for all policies and scenarios at once, so that what pairs them stays together, and every scenario
    keeps its size. Ids that only some policies did are drawn among themselves. The same seed gives the same samples.
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


def _estimates(value: np.ndarray, spread: np.ndarray, partial: np.ndarray, level: float) -> tuple[Estimate, ...]:
    """Returns an estimate per policy from values [P] and bootstrap samples [R, P]."""
    found = []
    for policy, middle in enumerate(value):
        if np.isnan(middle):
            found.append(Estimate(None, np.nan, np.nan, bool(partial[policy])))
        else:
            low, high = stats.percentile_interval(spread[:, policy], level)
            found.append(Estimate(float(middle), float(low), float(high), bool(partial[policy])))
    return tuple(found)
