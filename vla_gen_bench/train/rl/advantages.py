"""From rewards to the weights of a policy gradient: GAE, group-relative returns, preference pairs.

All episodes have equal length and end together, so arrays are simply [T, B]: decision t of episode b. If a
decision is a chunk of K actions, its reward is that of the K control steps (`chunk_rewards`) and it discounts by
gamma^K.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vla_gen_bench.train.processes import own_moments

EPSILON = 1e-5  # the reference's, in every normalisation


def chunk_rewards(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """Returns [T, B]: the K rewards of each decision, float [T, B, K], discounted to its first step."""
    return (rewards * gamma ** np.arange(rewards.shape[2])).sum(axis=2)


def gae(
    rewards: np.ndarray, values: np.ndarray, after: np.ndarray, gamma: float, lam: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns generalised advantage estimates (Schulman et al. 2016).

        delta_t = r_t + gamma V_t+1 - V_t;    A_t = delta_t + gamma lam A_t+1

    Args:
        rewards, values: [T, B].
        after: [B], V_T, the value of the state at the cut-off. Zeros treat the time limit as a true end
            ("terminal", as in the reference); an estimate treats the episode as continuing unseen ("bootstrap").
        gamma: Discount per decision.
        lam: 1 = Monte-Carlo returns, 0 = one-step temporal differences.

    Returns:
        Advantages and returns (advantage + value), float64 [T, B].
    """
    values = np.concatenate([values, after[None]]).astype(np.float64)
    advantages, ahead = np.zeros(rewards.shape, np.float64), np.zeros(rewards.shape[1])
    for t in reversed(range(len(rewards))):
        ahead = rewards[t] + gamma * values[t + 1] - values[t] + gamma * lam * ahead
        advantages[t] = ahead
    return advantages, advantages + values[:-1]


Moments = Callable[[np.ndarray], tuple[float, float]]
"""Values -> their mean and standard deviation; over several processes, all of which then have to ask."""


def normalised(advantages: np.ndarray, moments: Moments = own_moments) -> np.ndarray:
    """Returns advantages with mean 0 and standard deviation 1 over all entries."""
    mean, deviation = moments(advantages)
    return (advantages - mean) / (deviation + EPSILON)


def group_advantages(returns: np.ndarray, group: int) -> np.ndarray:
    """GRPO (Shao et al. 2024): an episode's return relative to the others from the same initial state.

    Args:
        returns: [B], undiscounted; each `group` in a row shared an initial state.

    Returns:
        [B], (R - mean) / std within its group; 0 throughout a group whose returns are all the same.
    """
    rows = returns.reshape(-1, group).astype(np.float64)
    away = rows - rows.mean(axis=1, keepdims=True)
    return (away / (rows.std(axis=1, keepdims=True) + EPSILON)).ravel()


def as_coded_advantages(rewards: np.ndarray, moments: Moments = own_moments) -> np.ndarray:
    """The computation that RL4VLA's code calls GRPO (replay buffer with `alg_grpo_fix`); it uses no groups.

    All non-zero rewards are normalised together, and an action is credited with all rewards after it. Once
    some episodes succeed, a grasp (+0.1) is below the mean, so a grasp alone counts against an action.

    Args:
        rewards: [T, B].

    Returns:
        float64 [T, B], undiscounted.
    """
    there = rewards != 0
    scaled = np.zeros(rewards.shape, np.float64)
    scaled[there] = normalised(rewards[there].astype(np.float64), moments)
    return scaled[::-1].cumsum(axis=0)[::-1]


def explained_variance(values: np.ndarray, returns: np.ndarray) -> float:
    """Returns 1 - var(returns - values) / var(returns): 1 = predicted exactly, 0 = no better than a constant."""
    spread = float(np.var(returns))
    return 0.0 if spread == 0 else 1.0 - float(np.var(returns - values)) / spread


class Pair(NamedTuple):
    """Indices of two episodes from the same initial state, the better one first."""

    better: int
    worse: int


def preference_pairs(returns: np.ndarray, group: int, most: int, margin: float) -> list[Pair]:
    """Returns the preferences that sparse rewards allow, the clearest of each group first.

    The best of a group is set against its worst, the second best against the second worst, and so on.

    Args:
        returns: [B]; each `group` in a row shared an initial state.
        most: Maximum number of pairs per group.
        margin: Minimum difference of a pair's returns.
    """
    pairs = []
    for first in range(0, len(returns), group):
        order = first + np.argsort(-returns[first : first + group], kind="stable")
        for rank in range(min(most, group // 2)):
            better, worse = int(order[rank]), int(order[-1 - rank])
            if returns[better] - returns[worse] >= margin:
                pairs.append(Pair(better, worse))
    return pairs
