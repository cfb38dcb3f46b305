"""Advantages against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vla_gen_bench.train.rl import advantages as adv
from vla_gen_bench.train.rl.advantages import Pair

REWARDS = np.array([[0.0], [0.1], [1.0]])
VALUES = np.array([[0.5], [0.4], [0.8]])


def test_gae_where_the_time_limit_is_terminal() -> None:
    """gamma 0.9, lambda 0.5, from the end: delta_2 = 1 - 0.8 = 0.2; delta_1 = 0.1 + 0.72 - 0.4 = 0.42;
    delta_0 = 0.36 - 0.5 = -0.14. A_2 = 0.2; A_1 = 0.42 + 0.45 * 0.2 = 0.51; A_0 = -0.14 + 0.45 * 0.51 = 0.0895."""
    advantages, returns = adv.gae(REWARDS, VALUES, np.zeros(1), 0.9, 0.5)
    assert advantages[:, 0] == pytest.approx([0.0895, 0.51, 0.2])
    assert returns[:, 0] == pytest.approx([0.5895, 0.91, 1.0])


def test_gae_that_bootstraps_at_the_time_limit() -> None:
    """V_3 = 0.6 adds 0.9 * 0.6 = 0.54 at the end: A_2 = 0.74; A_1 = 0.42 + 0.333 = 0.753; A_0 = -0.14 + 0.33885."""
    advantages, _ = adv.gae(REWARDS, VALUES, np.array([0.6]), 0.9, 0.5)
    assert advantages[:, 0] == pytest.approx([0.19885, 0.753, 0.74])


def test_orz_is_the_return_minus_the_value() -> None:
    """gamma = lambda = 1: 1.1 - 0.5, 1.1 - 0.4, 1 - 0.8."""
    advantages, returns = adv.gae(REWARDS, VALUES, np.zeros(1), 1.0, 1.0)
    assert advantages[:, 0] == pytest.approx([0.6, 0.7, 0.2])
    assert returns[:, 0] == pytest.approx([1.1, 1.1, 1.0])


def test_episodes_do_not_leak_into_each_other() -> None:
    both = adv.gae(np.hstack([REWARDS, 0 * REWARDS]), np.hstack([VALUES, 0 * VALUES]), np.zeros(2), 0.9, 0.5)[0]
    assert both[:, 0] == pytest.approx([0.0895, 0.51, 0.2])
    assert both[:, 1] == pytest.approx([0, 0, 0])


def test_the_reward_of_a_chunk_is_discounted_to_its_first_step() -> None:
    """0.1 + 0.5 * 0 + 0.25 * 1 = 0.35."""
    assert adv.chunk_rewards(np.array([[[0.1, 0.0, 1.0]]]), 0.5) == pytest.approx(np.array([[0.35]]))


def test_normalised_by_hand() -> None:
    """1 and 3: mean 2, standard deviation 1."""
    assert adv.normalised(np.array([1.0, 3.0])) == pytest.approx([-1, 1], abs=2e-5)


def test_group_advantages_by_hand() -> None:
    """0, 0, 0, 1.2: mean 0.3, variance (3 * 0.09 + 0.81) / 4 = 0.27, so -0.57735 and 1.73205. Equal returns: 0."""
    returns = np.array([0, 0, 0, 1.2, 0.1, 0.1, 0.1, 0.1])
    expected = [-0.57735, -0.57735, -0.57735, 1.73205, 0, 0, 0, 0]
    assert adv.group_advantages(returns, 4) == pytest.approx(expected, abs=1e-4)


def test_as_coded_advantages_hold_a_grasp_against_the_action() -> None:
    """0.1, 0.1 and 1.0: mean 0.4, deviation sqrt(0.18) = 0.42426. Whoever only grasps gets -0.707 up to there."""
    rewards = np.array([[0.0, 0.1], [0.1, 0.0], [1.0, 0.0]])
    grasp, placed = -0.3 / 0.42426, 0.6 / 0.42426
    expected = np.array([[grasp + placed, grasp], [grasp + placed, 0], [placed, 0]])
    assert adv.as_coded_advantages(rewards) == pytest.approx(expected, abs=1e-4)
    assert not adv.as_coded_advantages(np.zeros((2, 2))).any()


def test_explained_variance_by_hand() -> None:
    """Returns 0, 2 (variance 1); off by 0 and 1 (variance 0.25): 0.75."""
    assert adv.explained_variance(np.array([0.0, 1.0]), np.array([0.0, 2.0])) == pytest.approx(0.75)
    assert adv.explained_variance(np.array([0.3, 0.1]), np.array([1.0, 1.0])) == 0


def test_preference_pairs_take_the_clearest_first_and_stay_in_their_group() -> None:
    returns = np.array([0.1, 1.2, 0.0, 0.2, 0.1, 0.1, 0.1, 0.1])
    assert adv.preference_pairs(returns, 4, 2, 0.05) == [Pair(1, 2), Pair(3, 0)]
    assert adv.preference_pairs(returns, 4, 1, 0.05) == [Pair(1, 2)]
    assert adv.preference_pairs(returns, 4, 2, 0.5) == [Pair(1, 2)]
