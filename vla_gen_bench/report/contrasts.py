"""A policy against the baseline, by scenario: paired if they ran the same episodes, else unpaired."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_gen_bench.report import stats
from vla_gen_bench.report.outcomes import Cell

PAIRED_SHARE = 0.5  # paired if the runs share at least this fraction of the larger run's episodes


@dataclass(frozen=True)
class Contrast:
    """A policy against the baseline on one scenario.

    Attributes:
        difference, low, high: Of the success rates, with Newcombe's interval.
        wins, losses: Discordant pairs: only the policy succeeded, and only the baseline; None when unpaired.
        pairs: Episodes that both ran; 0 when unpaired.
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


def contrasts_of(
    outcomes: np.ndarray, policy: int, baseline: int | None, cells: list[list[Cell]], level: float
) -> list[Contrast | None]:
    """Returns a contrast per scenario; Holm corrects over the scenarios of this pair of policies."""
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
    """Paired over the shared episodes if these are at least half of the larger run's; else unpaired over all."""
    did, they_did = np.isfinite(ours), np.isfinite(theirs)
    shared = shared_ids(did, they_did)
    if shared is not None:
        return paired_contrast(ours[shared] == 1, theirs[shared] == 1, level)
    counts = int(ours[did].sum()), int(did.sum()), int(theirs[they_did].sum()), int(they_did.sum())
    return unpaired_contrast(*counts, level)


def shared_ids(did: np.ndarray, they_did: np.ndarray) -> np.ndarray | None:
    """Returns which episode ids of a row both policies ran, bool [N]; None if too few to pair the row."""
    shared = did & they_did
    return shared if shared.sum() >= PAIRED_SHARE * max(did.sum(), they_did.sum()) else None


def paired_contrast(ours: np.ndarray, theirs: np.ndarray, level: float) -> dict:
    """Returns the fields of a `Contrast` except `p_holm` and `partial` for bool [N] outcomes of the same episodes."""
    both, wins = int((ours & theirs).sum()), int((ours & ~theirs).sum())
    losses, pairs = int((~ours & theirs).sum()), len(ours)
    low, high = stats.newcombe_paired(both, wins, losses, pairs - both - wins - losses, level)
    fields = {"difference": (wins - losses) / pairs, "low": low, "high": high}
    return {**fields, "wins": wins, "losses": losses, "pairs": pairs, "p": stats.mcnemar(wins, losses)}


def unpaired_contrast(k1: int, n1: int, k2: int, n2: int, level: float) -> dict:
    """Like `paired_contrast`, for independent episodes: k1 of n1 for the policy, k2 of n2 for the baseline."""
    low, high = stats.newcombe_unpaired(k1, n1, k2, n2, level)
    fields = {"difference": k1 / n1 - k2 / n2, "low": low, "high": high}
    return {**fields, "wins": None, "losses": None, "pairs": 0, "p": stats.boschloo(k1, n1, k2, n2)}
