"""A critic of the simulator's state: what it reads, when, and what each action is credited with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bandit import BanditBatch, new_checkpoint
from rl_runs import ITERATIONS, assert_same, collected, recipe_of, run

from vla_gen_bench.envs.factory import build_batch
from vla_gen_bench.episodes.draw import draw_training
from vla_gen_bench.train.processes import join
from vla_gen_bench.train.rl.experience import Experience
from vla_gen_bench.train.rl.learner import Learner
from vla_gen_bench.train.rl.sim_workers import WorkerSimulator
from vla_gen_bench.train.rl.simulators import LocalSimulator, Stage, View
from vla_gen_bench.train.rl.state_critic import StateCritic, estimate, fit
from vla_gen_bench.train.rl.state_numbers import NUMBERS, state_numbers
from vla_gen_bench.train.starts import Start

STATE = {"value": {"source": "state"}}
OFT = {"decoding": "parallel", "chunk": 2}


def test_numbers_of_a_real_state() -> None:
    """Lengths in decimetres between end effector, target object and receptacle; rewards and time so far at the end."""
    batch = build_batch("builtin", 1, "cpu", render=False)
    try:
        batch.reset([draw_training("builtin", 1_000_000, 0)])
        state = batch.privileged()[0]
    finally:
        batch.close()
    row = state_numbers(state)
    assert row.shape == (NUMBERS,) and row.dtype == np.float32 and np.abs(row).max() < 6
    away = state.target.position - state.position
    assert row[:3] == pytest.approx(10 * state.position, rel=1e-5)
    assert row[6:9] == pytest.approx(10 * away, rel=1e-4, abs=1e-5)
    assert np.linalg.norm(row[9:12]) == pytest.approx(10 * np.linalg.norm(away), rel=1e-4)
    low, high = row[12:15], row[15:18]
    assert (low < row[6:9]).all() and (row[6:9] < high).all()
    assert row[18:21] == pytest.approx(10 * (state.receptacle.position - state.target.position), rel=1e-4, abs=1e-5)
    assert row[39:41] == pytest.approx(100 * state.qpos[6:], rel=1e-5)  # fingers, cm
    assert list(row[-4:]) == [0, 0, 0, 0]


def test_a_state_is_bounded() -> None:
    """An object that falls for ever, with fingers pressed together."""
    state = BanditBatch(1)
    state.reset([draw_training("builtin", 1_000_000, 0)])
    thrown = state.privileged()[0]
    thrown.target.position, thrown.target.speed = np.array([0.0, 0.0, -80.0]), 40.0
    thrown.finger_forces = np.array([1e6, 0.0])
    row = state_numbers(thrown)
    assert np.isfinite(row).all() and np.abs(row).max() == 6


def test_the_state_of_every_control_step_is_kept_and_no_image_more() -> None:
    """Horizon 4, chunks of two: the state before the first step and after each of the four."""
    stage = Stage(lambda size: BanditBatch(size), View(8, 8, states=True), 2)
    out = np.zeros((2, 8, 8, 3), np.uint8)
    specs = [draw_training("builtin", 1_000_000, index) for index in (0, 1)]
    _, infos = stage.reset("lane", [Start(spec, 0) for spec in specs], out)
    assert infos["states"].shape == (2, 1, NUMBERS)
    assert list(infos["states"][:, 0, 0]) == [0, 1]  # the colours of episodes 0 and 1
    _, infos = stage.step("lane", np.zeros((2, 2, 7), np.float32), out)
    assert infos["states"].shape == (2, 2, NUMBERS)
    assert infos["states"][:, :, 0].tolist() == [[1, 0], [1, 0]]


def test_states_do_not_depend_on_the_number_of_workers(checkpoint: Path) -> None:
    actor = Learner(recipe_of("ppo", checkpoint, **STATE), join("cpu")).actor
    view = actor.view(240, 320)
    alone = collected(actor, LocalSimulator(BanditBatch, view, 2, 2))
    assert alone.states.shape == (5, 5, NUMBERS) and not alone.values.any()
    assert_same(collected(actor, WorkerSimulator(BanditBatch, view, 2, 2, 2)), alone)


def rollout_of(rewards: list[list[float]], values: list[float]) -> tuple[SimpleNamespace, SimpleNamespace]:
    """One episode of decisions with these rewards; the critic reads the value of a state from its first number."""
    states = np.zeros((len(values), 1, NUMBERS), np.float32)
    states[:, 0, 0] = values
    learner = SimpleNamespace(actor=SimpleNamespace(device="cpu"), critic=lambda rows: rows[..., 0])
    return learner, SimpleNamespace(rewards=np.array(rewards, np.float32)[:, None], states=states)


def test_an_action_of_a_chunk_is_credited_with_what_follows_it() -> None:
    """Two chunks of two, gamma 1/2, lambda 0: reward + half the next value - the value."""
    learner, rollout = rollout_of([[0, 1], [0, 0]], [0.5, 0.25, 0.5, 1, 2])
    advantages, values, targets = estimate(learner, rollout, 0.5, 0, foresee=True, by_action=True)
    assert advantages[:, 0].tolist() == [[-0.375, 1], [0, 0]]
    assert values[:, 0].tolist() == [0.5, 0.25, 0.5, 1]
    assert targets[:, 0].tolist() == [0.625, 1.25, 0.5, 1]  # all rewards after a state, and half the last value
    ended, *_ = estimate(learner, rollout, 0.5, 0, foresee=False, by_action=True)
    assert ended[:, 0].tolist() == [[-0.375, 1], [0, -1]]


def test_a_decision_is_credited_from_its_first_control_step_on() -> None:
    """Lambda 1: the discounted rewards after it, minus the value of the state it met."""
    learner, rollout = rollout_of([[0, 1], [0, 1]], [0.5, 0.25, 0.5, 1, 2])
    advantages, *_ = estimate(learner, rollout, 0.5, 1, foresee=False, by_action=False)
    assert advantages[:, 0].tolist() == [0.5 + 0.125 - 0.5, 0.5 - 0.5]


def test_it_learns_the_returns_of_states(checkpoint: Path) -> None:
    learner = Learner(recipe_of("ppo", checkpoint, **STATE), join("cpu"))
    assert isinstance(learner.critic, StateCritic) and learner.actor.critic is None
    states = np.random.default_rng(0).normal(size=(2000, NUMBERS)).astype(np.float32)
    returns = np.tanh(states[:, 0])
    before = {name: value.detach().clone() for name, value in learner.weights().items() if name.startswith("policy.")}
    assert not learner.critic(torch.from_numpy(states)).any()  # nothing is expected at first
    assert fit(learner, states, returns, 30) < 0.1 * returns.var()
    assert all(torch.equal(value, before[name]) for name, value in learner.weights().items() if name in before)
    assert float(learner.critic(torch.from_numpy(1000 * states)).detach().abs().max()) <= 1.5


def test_ppo_learns_with_it_in_chunks(tmp_path: Path) -> None:
    """As `test_learning_improves_the_policy`; each action of a chunk has an advantage of its own."""
    start = new_checkpoint(tmp_path / "oft", **OFT)
    model = {"checkpoint": str(start), **OFT}
    changes = {"model": model, "horizon": 4, "env_steps": 64 * 4 * ITERATIONS, "loss": {"ratio": "action"}}
    rows = run(recipe_of("ppo", start, **changes, **STATE), tmp_path / "run")
    returns = np.array([float(row["return"]) for row in rows])
    assert returns[-3:].mean() > returns[:3].mean() + 0.1
    assert not (tmp_path / "run" / "checkpoint" / "value_head.safetensors").exists()


def test_an_experience_has_one_advantage_per_action(checkpoint: Path) -> None:
    rollout = SimpleNamespace(values=np.zeros((4, 3)), log_probs=np.zeros((3, 3, 14), np.float32))
    advantages = np.arange(18.0).reshape(3, 3, 2)
    experience = Experience.of(rollout, advantages)
    assert experience.advantages.shape == (9, 2) == tuple(experience.by_action.shape)
    assert experience.advantages[4].tolist() == [8, 9]  # decision 1 of episode 1
