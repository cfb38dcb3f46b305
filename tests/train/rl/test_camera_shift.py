"""Images moved a little aside in rollouts: how far, in which episodes, and that both acting and learning see them."""

from __future__ import annotations

import numpy as np
import torch
from bandit import BanditBatch

from vla_gen_bench.train.resize import shifted
from vla_gen_bench.train.rl.actor_critic import ActorCritic, Sampling
from vla_gen_bench.train.rl.rollout import Collector, Rollout
from vla_gen_bench.train.rl.simulators import LocalSimulator
from vla_gen_bench.train.starts import UNSHIFTED, CameraShift, starts

EPISODES = 6


class Ramp(BanditBatch):
    """Its images are brighter below and to the right, so that a shift shows."""

    def _images(self) -> np.ndarray:
        ramp = 8 * np.arange(8)[:, None] + 4 * np.arange(8)
        return super()._images() // 2 + ramp.astype(np.uint8)[..., None]


def collected(actor: ActorCritic, camera: CameraShift) -> Rollout:
    simulator = LocalSimulator(Ramp, actor.view(240, 320), 2, 2)
    return Collector(simulator, actor, 2).collect(starts("builtin", 0, 0, EPISODES, camera=camera), Sampling())


def test_a_picture_moves_by_whole_pixels_and_its_edge_is_repeated() -> None:
    """A quarter of 4 rows down is 1 row, half of 4 columns to the left is 2; row r, column c is 10 r + c at first."""
    picture = (10 * np.arange(4)[:, None] + np.arange(4)).astype(np.uint8)[..., None].repeat(3, axis=2)
    moved = shifted(picture, (0.25, -0.5))
    assert moved.dtype == np.uint8 and moved.shape == (4, 4, 3)
    assert moved[..., 0].tolist() == [[2, 3, 3, 3], [2, 3, 3, 3], [12, 13, 13, 13], [22, 23, 23, 23]]
    assert np.array_equal(shifted(picture, UNSHIFTED), picture)


def test_a_share_of_the_episodes_is_shifted_evenly_both_ways() -> None:
    """Of 400 within four standard errors of 1/4, 0.09; means of about 100 within 4 x 0.04 / sqrt(300) of 0."""
    drawn = [CameraShift(share=0.25, most=0.04).of(3, 0, group) for group in range(400)]
    moved = np.array([shift for shift in drawn if shift != UNSHIFTED])
    assert abs(len(moved) / 400 - 0.25) < 0.09
    assert (np.abs(moved) <= 0.04).all() and (np.abs(moved).max(axis=0) > 0.036).all()
    assert (np.abs(moved.mean(axis=0)) < 0.16 / np.sqrt(300)).all()
    assert len({CameraShift(share=1.0).of(3, iteration, 0) for iteration in range(5)}) == 5
    assert {CameraShift().of(3, 0, group) for group in range(20)} == {UNSHIFTED}


def test_episodes_of_a_group_look_the_same_way() -> None:
    chosen = starts("builtin", 0, 0, 8, group=4, camera=CameraShift(share=1.0))
    assert [start.shift for start in chosen] == [chosen[0].shift] * 4 + [chosen[4].shift] * 4
    assert chosen[0].shift != chosen[4].shift


def test_a_policy_acts_on_and_learns_from_shifted_pictures(actor: ActorCritic) -> None:
    camera = CameraShift(share=0.5, most=0.2)
    plain, rollout = collected(actor, CameraShift()), collected(actor, camera)
    shifts = [start.shift for start in starts("builtin", 0, 0, EPISODES, camera=camera)]
    assert 0 < sum(shift != UNSHIFTED for shift in shifts) < EPISODES
    for episode, shift in enumerate(shifts):
        seen, as_it_is = rollout.images[0, episode], plain.images[0, episode]
        assert np.array_equal(seen, shifted(as_it_is, shift)) and np.array_equal(seen, as_it_is) == (shift == UNSHIFTED)
    inputs = actor.look(rollout.images.reshape(-1, 32, 32, 3), rollout.prompts * 2, squashed=True)
    with torch.no_grad():
        score = actor.score(inputs, torch.from_numpy(rollout.tokens.reshape(-1, 7)))
    np.testing.assert_allclose(score.log_prob, rollout.log_probs.sum(-1).ravel(), atol=1e-4)
