"""Noise that lasts: what stays as it was, and what does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import kstest

from vla_gen_bench.train.rl.exploration import correlated_draws

EPISODES, DECISIONS, CHUNK = 400, 5, 4


def noise(correlation: float) -> np.ndarray:
    """Returns standard normal [episodes, control steps, 7] behind the draws."""
    parts = [correlated_draws(range(EPISODES), [t] * EPISODES, 7 * CHUNK, correlation) for t in range(DECISIONS)]
    return ndtri(np.concatenate([part.numpy().reshape(EPISODES, CHUNK, 7) for part in parts], axis=1))


@pytest.mark.parametrize("step", [0, 7, DECISIONS * CHUNK - 1])
def test_every_draw_is_uniform(step: int) -> None:
    """Kolmogorov-Smirnov over 2,800 draws of independent episodes and numbers, at p 0.001."""
    draws = correlated_draws(range(EPISODES), [step // CHUNK] * EPISODES, 7 * CHUNK, 0.9).numpy()
    of_step = draws.reshape(EPISODES, CHUNK, 7)[:, step % CHUNK]
    assert kstest(of_step.ravel(), "uniform").pvalue > 0.001


@pytest.mark.parametrize("correlation", [0.5, 0.9])
def test_noise_lasts_within_a_chunk_and_beyond_it(correlation: float) -> None:
    """Correlations over k steps are the k-th power, within four standard errors of 2,800 pairs, 0.08."""
    found = noise(correlation)
    for begin, steps in ((0, 1), (3, 1), (3, 2), (5, 6)):  # step 3 is the last of the first chunk
        pair = found[:, begin].ravel(), found[:, begin + steps].ravel()
        assert np.corrcoef(*pair)[0, 1] == pytest.approx(correlation**steps, abs=0.08)


def test_numbers_and_episodes_have_noise_of_their_own() -> None:
    """Means over 20 steps: 400 episodes, correlations within four standard errors, 0.2, of 0."""
    means = noise(0.9).mean(axis=1)
    apart = np.corrcoef(means.T) - np.eye(7)
    assert np.abs(apart).max() < 0.2
    assert abs(np.corrcoef(means[:-1, 0], means[1:, 0])[0, 1]) < 0.2


def test_a_row_depends_on_its_own_key_and_decision_alone() -> None:
    together = correlated_draws([3, 9, 3], [0, 2, 2], 28, 0.7)
    assert (together[2] == correlated_draws([3], [2], 28, 0.7)[0]).all()
    assert (together[0] != together[2]).all() and (together[1] != together[2]).all()
