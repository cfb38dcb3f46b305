"""Rollouts: the same for any number of workers, also where one dies; what the policy sees, says and is paid."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bandit import BanditBatch, new_checkpoint, unknown_world
from rl_runs import assert_same, collected, recipe_of

from vla_gen_bench.episodes.draw import draw_training
from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.openvla.oft import score_tokens
from vla_gen_bench.policies.openvla.policy import OpenVLAPolicy
from vla_gen_bench.train.processes import join
from vla_gen_bench.train.rl.actor_critic import ActorCritic, Sampling
from vla_gen_bench.train.rl.learner import Learner
from vla_gen_bench.train.rl.rollout import Collector
from vla_gen_bench.train.rl.sim_workers import WorkerSimulator
from vla_gen_bench.train.rl.simulators import LocalSimulator, View, scenes
from vla_gen_bench.train.starts import Wander, starts

OFT = {"decoding": "parallel", "chunk": 2}


def test_rollouts_do_not_depend_on_the_number_of_workers(actor: ActorCritic) -> None:
    """Five episodes in lanes of two, in this process and in one or two others: bit by bit the same."""
    view = actor.view(240, 320)
    alone = collected(actor, LocalSimulator(BanditBatch, view, 2, 2))
    assert alone.images.shape == (4, 5, 32, 32, 3) and alone.rewards.shape == (4, 5, 1)
    for workers in (1, 2):
        assert_same(collected(actor, WorkerSimulator(BanditBatch, view, 2, 2, workers)), alone)


def test_only_the_lost_workers_episodes_are_run_again_with_the_same_outcome(actor: ActorCritic, tmp_path: Path) -> None:
    """Five episodes in lanes of two: one worker has 0, 2 and 4, the other 1 and 3; 4 has not started when one dies."""
    poison, diary, notes = tmp_path / "poison", tmp_path / "diary", []
    poison.touch()
    view = actor.view(240, 320)
    build = partial(BanditBatch, die_once=str(poison), diary=str(diary))
    found = collected(actor, WorkerSimulator(build, view, 2, 2, 2, notes.append))
    assert not poison.exists() and notes == ["a worker process died (exit code -9); its episodes are run again"]
    assert_same(found, collected(actor, LocalSimulator(BanditBatch, view, 2, 2)))
    begun = Counter(map(int, diary.read_text().split()))
    again = {episode for episode, times in begun.items() if times > 1}
    assert sorted(begun) == [0, 1, 2, 3, 4] and again in ({0, 2}, {1, 3}) and max(begun.values()) == 2


def test_simulated_episodes_of_a_lost_worker_have_the_same_outcome(actor: ActorCritic) -> None:
    """World builtin; the worker is killed between two steps, and again while it repeats its episode."""
    build, view = partial(scenes, "builtin", "cpu"), actor.view(240, 320)
    chosen = starts("builtin", 0, 0, 2, wander=Wander(steps=2))
    moves = np.random.default_rng(0).uniform(-0.02, 0.02, (4, 2, 2, 7)).astype(np.float32)

    def seen(simulator: Any, kill: Callable[[int], None]) -> list[Any]:
        simulator.reset(0, chosen)
        seen = [simulator.result(0)._replace(images=None)]
        for number, actions in enumerate(moves):
            kill(number)
            simulator.step(0, actions)
            found = simulator.result(0)
            seen.append(found._replace(images=found.images.copy()))
        simulator.close()
        return seen

    team = WorkerSimulator(build, view, 2, 1, 2)
    found = seen(team, lambda number: team._workers[0].process.kill() if number in (2, 3) else None)
    expected = seen(LocalSimulator(build, view, 2), lambda number: None)
    assert len(found) == 5
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours.images, theirs.images) and np.array_equal(ours.rewards, theirs.rewards)
        assert all(np.array_equal(ours.infos[name], theirs.infos[name]) for name in theirs.infos)


def test_workers_that_die_again_and_again_end_the_run(actor: ActorCritic) -> None:
    with pytest.raises(UserError, match=r"rollout: a worker process died \(exit code 3\), 3 times in a row"):
        collected(actor, WorkerSimulator(_exits, actor.view(240, 320), 2, 1, 1))


def _exits(size: int) -> None:
    os._exit(3)


def test_what_a_worker_refuses_is_the_users_error(actor: ActorCritic) -> None:
    with pytest.raises(UserError, match="world 'mars' is unknown"):
        collected(actor, WorkerSimulator(unknown_world, actor.view(240, 320), 2, 1, 1))


def test_log_probs_and_values_are_those_of_teacher_forcing(actor: ActorCritic) -> None:
    """What was recorded while acting (cached decoding, in lanes) against one pass over everything."""
    rollout = collected(actor, LocalSimulator(BanditBatch, actor.view(240, 320), 2, 2))
    inputs = actor.look(rollout.images.reshape(20, 32, 32, 3), rollout.prompts * 4, squashed=True)
    with torch.no_grad():
        score = actor.score(inputs, torch.from_numpy(rollout.tokens.reshape(20, 7)))
    np.testing.assert_allclose(score.log_prob, rollout.log_probs.sum(-1).ravel(), atol=1e-4)
    np.testing.assert_allclose(score.values, rollout.values[:-1].ravel(), atol=1e-5)


def test_log_probs_are_those_of_the_temperature_that_samples(actor: ActorCritic) -> None:
    """At temperature 0.5 logits count twice, while acting and when scored."""
    cool = ActorCritic(actor.student, actor.critic, temperature=0.5)
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    inputs = cool.look(images, [cool.processor.tokenizer.prompt("put carrot on plate")] * 2, squashed=True)
    decision = cool.act(inputs, [1, 2], [0, 0], Sampling(temperature=0.5))
    tokens = torch.from_numpy(decision.tokens)
    with torch.no_grad():
        logits = score_tokens(cool.model, inputs, tokens).logits
        scored = cool.score(inputs, tokens)
    chosen = (tokens - cool.config.action_range[0])[..., None]
    expected = (2 * logits).log_softmax(-1).gather(-1, chosen)[..., 0]
    np.testing.assert_allclose(decision.log_probs, expected, atol=1e-5)
    np.testing.assert_allclose(scored.log_prob, expected.sum(1), atol=1e-5)


def test_the_actor_acts_as_the_policy_that_is_evaluated(actor: ActorCritic, checkpoint: Path) -> None:
    """The same checkpoint, images, seeds and steps: the same actions, sampled at temperature 1."""
    policy = OpenVLAPolicy(checkpoint, temperature=1.0)
    images = np.random.default_rng(5).integers(0, 256, (3, 240, 320, 3), dtype=np.uint8)
    observation = replace(example_observation(3), image=images, step=np.array([4, 4, 4]))
    policy.reset(observation.instruction, [7, 8, 9])
    view = actor.view(240, 320)
    kept = np.empty((3, *view.shape), np.uint8)
    view.keep(images, kept)
    prompts = [actor.processor.tokenizer.prompt(text) for text in observation.instruction]
    decision = actor.act(actor.look(kept, prompts, squashed=True), [7, 8, 9], [4, 4, 4], Sampling())
    assert np.array_equal(decision.actions, policy.act(observation))


def test_a_squashed_picture_gives_the_processors_pixels(actor: ActorCritic) -> None:
    camera = np.random.default_rng(3).integers(0, 256, (2, 240, 320, 3), dtype=np.uint8)
    view = actor.view(240, 320)
    kept = np.empty((2, *view.shape), np.uint8)
    view.keep(camera, kept)
    assert kept.shape == (2, 32, 32, 3)
    found = actor.look(kept, [[1, 5], [1, 6]], squashed=True).pixels
    assert torch.equal(found, actor.processor.pixels(camera))


def test_pictures_that_cannot_be_squashed_beforehand_are_kept_whole(checkpoint: Path) -> None:
    other = recipe_of("ppo", checkpoint, model={"checkpoint": str(checkpoint), "image_path": "tensor"})
    assert Learner(other, join("cpu")).actor.view(240, 320) == View(240, 320, None)


def test_episodes_of_a_group_begin_alike_and_go_apart(actor: ActorCritic) -> None:
    chosen = starts("builtin", 7, 2, 8, group=4)
    assert [start.spec for start in chosen[:4]] == [draw_training("builtin", 1_200_007, 4)] * 4
    assert [start.spec for start in chosen[4:]] == [draw_training("builtin", 1_200_007, 5)] * 4
    assert len({start.key for start in chosen}) == 8
    simulator = LocalSimulator(BanditBatch, actor.view(240, 320), 8, 1)
    rollout = Collector(simulator, actor, 4).collect(chosen, Sampling())
    assert len({rollout.tokens[0, episode].tobytes() for episode in range(4)}) == 4


class Recording(BanditBatch):
    """Keeps every action."""

    made: list[np.ndarray] = []

    def step(self, actions: np.ndarray, draw: bool = True) -> Any:
        self.made.append(actions.copy())
        return super().step(actions, draw)


def test_the_arm_wanders_before_the_policy_takes_over(actor: ActorCritic) -> None:
    wander = Wander(steps=3, share=0.5, move=0.02, rise=0.01, turn=0.05)
    chosen = starts("builtin", 0, 1, 8, group=2, wander=wander)
    Recording.made.clear()
    rollout = Collector(LocalSimulator(Recording, actor.view(240, 320), 8), actor, 4).collect(chosen, Sampling())
    assert len(Recording.made) == 3 + 4 and rollout.rewards.shape == (4, 8, 1)
    first, second, third = Recording.made[:3]
    assert np.array_equal(first, second) and np.array_equal(second, third)
    assert np.array_equal(first, np.stack([start.moves[0] for start in chosen]))
    assert np.array_equal(first[::2], first[1::2]) and len(np.unique(first, axis=0)) > 2
    still = (first[:, :6] == 0).all(axis=1)
    assert 0 < still.sum() < 8 and (first[:, 6] == 1).all()
    assert (np.abs(first[:, :6]) <= [0.02, 0.02, 0.01, 0, 0, 0.05]).all()


def test_where_the_arm_wanders_covers_the_box_evenly() -> None:
    """400 velocities: means within four standard errors, 4 / sqrt(3 * 400), of 0; extremes near the bounds."""
    moves = np.stack([Wander(steps=1, move=1, rise=1, turn=1).moves(0, number, 0)[0] for number in range(400)])
    free = moves[:, [0, 1, 2, 5]]
    assert (np.abs(free.mean(axis=0)) < 4 / np.sqrt(1200)).all()
    assert (free.max(axis=0) > 0.97).all() and (free.min(axis=0) < -0.97).all()


def test_a_hand_tilts_both_ways_and_mostly_a_little() -> None:
    """Of 400 the mean angle is within 0.04 of E[share] E[|uniform|] = 1/2 * 1/2; other numbers stay what they were."""
    moves = np.stack([Wander(steps=1, tilt=1).moves(0, number, 0)[0] for number in range(400)])
    tilts = moves[:, 3:5]
    assert (tilts.max(axis=0) > 0.7).all() and (tilts.min(axis=0) < -0.7).all()
    assert (abs(np.abs(tilts).mean(axis=0) - 0.25) < 0.04).all()
    upright = np.stack([Wander(steps=1).moves(0, number, 0)[0] for number in range(400)])
    assert (upright[:, 3:5] == 0).all() and np.array_equal(moves[:, [0, 1, 2, 5, 6]], upright[:, [0, 1, 2, 5, 6]])


def test_a_low_start_sinks_by_half_of_the_rise_or_more() -> None:
    """Of 400: half are low and sink by 0.75 on average; the others not at all: a mean of -3/8, SE 0.026."""
    moves = np.stack([Wander(steps=1, rise=1, low=0.5).moves(0, number, 0)[0] for number in range(400)])
    low = np.stack([Wander(steps=1, rise=1, low=1).moves(0, number, 0)[0] for number in range(400)])
    assert (low[:, 2] <= -0.5).all() and (low[:, 2] >= -1).all() and abs(low[:, 2].mean() + 0.75) < 0.03
    assert abs(moves[:, 2].mean() + 3 / 8) < 0.11
    as_drawn = np.stack([Wander(steps=1, rise=1).moves(0, number, 0)[0] for number in range(400)])
    assert abs((moves[:, 2] != as_drawn[:, 2]).mean() - 0.5) < 0.1 and np.array_equal(moves[:, :2], as_drawn[:, :2])


def test_where_no_arm_wanders_episodes_begin_at_once() -> None:
    still = Wander(steps=8, share=0.0)
    assert still.moves(0, 0, 0).shape == (still.length, 7) == (0, 7)
    assert still.model_copy(update={"share": 0.1}).moves(0, 0, 0).shape == (8, 7)


def test_a_gripper_closes_only_while_the_arm_wanders() -> None:
    """Shares of 400 within four standard errors, 0.08 at most, of 1/2 that wander and 1/4 that are closed."""
    wander = Wander(steps=1, share=0.5, closed=0.5)
    moves = np.stack([wander.moves(0, number, 0)[0] for number in range(400)])
    moving, closed = (moves[:, :6] != 0).any(axis=1), moves[:, 6] == -1
    assert abs(moving.mean() - 0.5) < 0.1 and abs(closed.mean() - 0.25) < 0.09
    assert moving[closed].all() and (moves[~closed, 6] == 1).all()
    still_open = Wander(steps=1, share=0.5)
    assert all((still_open.moves(0, number, 0)[0, :6] == moves[number, :6]).all() for number in range(9))


def test_greedy_rollouts_draw_nothing(actor: ActorCritic) -> None:
    """Two tries from one scene: alike where nothing is drawn, different where actions are sampled."""
    chosen = starts("builtin", 0, 0, 2, group=2)
    greedy, sampled = (
        Collector(LocalSimulator(BanditBatch, actor.view(240, 320), 2), actor, 4).collect(
            chosen, Sampling(temperature=temperature)
        )
        for temperature in (0, 1)
    )
    assert np.array_equal(greedy.tokens[:, 0], greedy.tokens[:, 1])
    assert not np.array_equal(sampled.tokens[:, 0], sampled.tokens[:, 1])


def test_chunks_are_carried_out_and_paid_as_one_decision(tmp_path: Path) -> None:
    start = new_checkpoint(tmp_path / "oft", **OFT)
    model = {"checkpoint": str(start), **OFT}
    actor = Learner(recipe_of("ppo", start, model=model, horizon=4), join("cpu")).actor
    rollout = collected(actor, LocalSimulator(BanditBatch, actor.view(240, 320), 2, 2))
    assert rollout.rewards.shape == (2, 5, 2) and rollout.tokens.shape == (2, 5, 14)
    with pytest.raises(UserError, match="horizon: 5 is no multiple of the chunk, 2"):
        Collector(LocalSimulator(BanditBatch, actor.view(240, 320), 2), actor, 5)
