"""What the options of RL's recipes do: each against hand-worked numbers, or against the same without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rl_runs import loss_of, recipe_of, run, score, some_rollout
from torch import Tensor

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla.model.sampling import sampler
from vla_gen_bench.policies.openvla.oft import choose_tokens
from vla_gen_bench.train import processes as joined
from vla_gen_bench.train.processes import Processes, join
from vla_gen_bench.train.rl import clipped, dpo, grpo, ppo
from vla_gen_bench.train.rl.actor_critic import Decision, Sampling
from vla_gen_bench.train.rl.clipped import ClippedLoss
from vla_gen_bench.train.rl.experience import Experience
from vla_gen_bench.train.rl.exploration import correlated_draws
from vla_gen_bench.train.rl.learner import Learner
from vla_gen_bench.train.rl.rollout import Rollout

KEYS, STEPS = [3, 4, 5], [0, 1, 2]


def learner_of(checkpoint: Path, name: str = "ppo", **changes: Any) -> Learner:
    return Learner(recipe_of(name, checkpoint, **changes), join("cpu"))


# ---- what actions were worth ---------------------------------------------------------------------------------


def learnt_from(module: Any, subject: Learner, rollout: Rollout, monkeypatch: pytest.MonkeyPatch) -> Experience:
    """Returns what an algorithm would make its clipped steps on."""
    taken: list[Experience] = []
    monkeypatch.setattr(
        module, "clipped_steps", lambda recipe, learner, experience, *more: taken.append(experience) or {"kl": 0.0}
    )
    module.improve(subject.recipe, subject, rollout)
    return taken[0]


def paid(subject: Learner, rewards: list, values: list) -> Rollout:
    """Rewards [T, B, K], values [T + 1, B]."""
    rewards = np.array(rewards, np.float32)
    rollout = some_rollout(subject, rewards.shape[1], rewards.shape[0])
    rollout.rewards, rollout.values = rewards, np.array(values, np.float32)
    return rollout


@pytest.mark.parametrize(
    ("time_limit", "advantages", "returns"),
    [("bootstrap", [0.4125, 0.5], [0.5125, 0.7]), ("terminal", [0.3875, 0.3], [0.4875, 0.5])],
)
def test_chunks_and_the_time_limit_by_hand(
    time_limit: str, advantages: list, returns: list, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two decisions of two steps; gamma 0.5 a step, 0.25 a decision, lambda 0.5. Rewards 0.2 + 0.4 / 2 = 0.4 and
    0 + 1 / 2 = 0.5; values 0.1, 0.2, and 0.8 beyond the limit. Errors 0.4 + 0.25 * 0.2 - 0.1 = 0.35 at first, then
    0.5 + 0.25 * 0.8 - 0.2 = 0.5, or 0.3 where nothing comes after; the first gets 0.25 * 0.5 of the second's."""
    changes = {"gamma": 0.5, "lam": 0.5, "time_limit": time_limit, "normalise": False}
    subject = learner_of(checkpoint, **changes)
    rollout = paid(subject, [[[0.2, 0.4]], [[0.0, 1.0]]], [[0.1], [0.2], [0.8]])
    found = learnt_from(ppo, subject, rollout, monkeypatch)
    assert found.advantages.tolist() == pytest.approx(advantages)
    assert found.returns.tolist() == pytest.approx(returns)


def test_advantages_are_normalised_unless_asked_not_to(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.4125 and 0.5 of the case above are 1 below and 1 above their mean; returns stay as they are."""
    subject = learner_of(checkpoint, gamma=0.5, lam=0.5, time_limit="bootstrap")
    rollout = paid(subject, [[[0.2, 0.4]], [[0.0, 1.0]]], [[0.1], [0.2], [0.8]])
    found = learnt_from(ppo, subject, rollout, monkeypatch)
    assert found.advantages.tolist() == pytest.approx([-1, 1], abs=1e-3)
    assert found.returns.tolist() == pytest.approx([0.5125, 0.7])


@pytest.mark.parametrize(
    ("advantage", "expected"), [("group", [1, -1, 1, -1]), ("as-coded", [0, 0, 1, 0])], ids=["group", "as-coded"]
)
def test_grpos_two_advantages_by_hand(
    advantage: str, expected: list, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One episode is paid 0.1 and then 1, the other nothing. As coded, 0.1 and 1 become -1 and 1, and the first
    decision is credited with both."""
    subject = learner_of(checkpoint, "grpo", group=2, advantage=advantage)
    rollout = paid(subject, [[[0.1], [0.0]], [[1.0], [0.0]]], np.zeros((3, 2)).tolist())
    found = learnt_from(grpo, subject, rollout, monkeypatch)
    assert found.advantages.tolist() == pytest.approx(expected, abs=1e-3)


def test_moments_over_two_processes_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here 5; there 1 and 3: mean 3, variance (4 + 4 + 0) / 3. Where this one has nothing: mean 2, deviation 1."""
    both = Processes(0, 2, torch.device("cpu"))

    def with_the_others(others: list[float]) -> Any:
        parts = [torch.tensor([4.0, 2.0]), torch.tensor(sum(others))]
        return lambda total: total.add_(parts.pop(0))

    monkeypatch.setattr(joined.dist, "all_reduce", with_the_others([4.0, 0.0]))
    assert both.moments(np.array([5.0])) == pytest.approx((3, (8 / 3) ** 0.5))
    monkeypatch.setattr(joined.dist, "all_reduce", with_the_others([1.0, 1.0]))
    assert both.moments(np.array([])) == pytest.approx((2, 1))
    monkeypatch.setattr(joined.dist, "all_reduce", lambda total: total)
    assert both.moments(np.array([])) == (0, 0)


# ---- losses --------------------------------------------------------------------------------------------------


def test_the_value_loss_has_a_weight() -> None:
    """Off by 1: Huber 0.5. The policy's part is -1 at a ratio of 1."""
    for weight, expected in ((1.0, -0.5), (0.5, -0.75), (0.0, -1.0)):
        loss, _ = loss_of(ClippedLoss(value_weight=weight), score([0.0], [1.0]), [1.0])
        assert loss.item() == pytest.approx(expected)


def test_coarse_targets_have_eight_bits(checkpoint: Path) -> None:
    """bfloat16 has steps of 1/16 at -10, of 1/128 at 1."""
    subject = learner_of(checkpoint)
    rollout = paid(subject, np.zeros((1, 2, 1)).tolist(), [[1.004, 0.0], [0.0, 0.0]])
    rollout.log_probs[:] = -10.02 / 7
    experience = Experience.of(rollout, np.full((1, 2), 1.003), np.full((1, 2), 0.997))
    rows = np.arange(2)
    settings = (ClippedLoss(coarse=which) for which in (False, True))
    fine, coarse = (clipped.old_numbers(experience, rows, torch.zeros(1), each) for each in settings)
    assert [column[0].item() for column in fine] == pytest.approx([-10.02, 1.003, 1.004, 0.997])
    assert [column[0].item() for column in coarse] == [-10, 1, 1.0078125, 0.99609375]


def value_gradients(subject: Learner) -> dict[str, Tensor]:
    """Gradients of the policy where nothing was an advantage: what the value loss alone sends."""
    rollout = some_rollout(subject, 2, 3)
    experience = Experience.of(rollout, np.zeros((3, 2)), np.ones((3, 2)))
    for loss in clipped._losses(subject.recipe, subject, experience, np.arange(6), False, {}):
        loss.backward()
    weights = subject.student.model.named_parameters()
    return {name: weight.grad for name, weight in weights if weight.grad is not None and weight.grad.abs().max() > 0}


def test_the_value_loss_shapes_the_backbone_only_where_it_may(checkpoint: Path) -> None:
    assert len(value_gradients(learner_of(checkpoint, value={"shared": True}))) > 10
    alone = learner_of(checkpoint, value={"shared": False})
    assert value_gradients(alone) == {}
    assert all(weight.grad.abs().max() > 0 for weight in alone.critic.parameters())


@pytest.mark.parametrize("renew_every", [0, 1])
def test_dpos_reference_is_the_policy_it_began_with_unless_it_is_renewed(
    renew_every: int, checkpoint: Path, tmp_path: Path
) -> None:
    changes = {"episodes": 16, "together": 16, "env_steps": 96, "batch": 2, "renew_every": renew_every}
    recipe = recipe_of("dpo", checkpoint, **changes)
    began = Learner(recipe, join("cpu")).weights()
    assert len(run(recipe, tmp_path)) == 3
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    reference = state["extra"][dpo.REFERENCE]
    assert all(torch.equal(reference[name], weight) for name, weight in began.items()) == (renew_every == 0)
    assert not all(torch.equal(state["weights"][name], weight) for name, weight in began.items())


# ---- choosing actions ----------------------------------------------------------------------------------------


def decided(subject: Learner, **sampling: Any) -> Decision:
    return subject.actor.act(looked_at(subject), KEYS, STEPS, Sampling(**sampling))


def looked_at(subject: Learner) -> Any:
    rollout = some_rollout(subject, 3, 1)
    return subject.actor.look(rollout.images[0], rollout.prompts, rollout.squashed)


def test_the_likeliest_token_alone_is_the_greedy_one(checkpoint: Path) -> None:
    subject = learner_of(checkpoint)
    greedy, first, free = (
        decided(subject, **how) for how in ({"temperature": 0}, {"temperature": 1, "top_k": 1}, {"temperature": 1})
    )
    assert np.array_equal(first.tokens, greedy.tokens) and not np.array_equal(free.tokens, greedy.tokens)
    assert np.allclose(first.log_probs, greedy.log_probs) and (first.log_probs < -1).all()  # over all 256, not 0


def test_correlated_noise_is_what_actions_are_drawn_with(checkpoint: Path) -> None:
    subject = learner_of(checkpoint)
    found = decided(subject, correlation=0.9)
    with torch.no_grad():
        draws = correlated_draws(KEYS, STEPS, 7, 0.9)
        expected = choose_tokens(subject.student.model, looked_at(subject), sampler(draws, 1.0, None)).tokens
    assert np.array_equal(found.tokens, expected.numpy())
    assert not np.array_equal(found.tokens, decided(subject).tokens)


# ---- the critic ----------------------------------------------------------------------------------------------


def test_a_head_of_another_kind_is_refused_unless_a_new_one_is_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    trained = learner_of(checkpoint, value={"source": "hn"})
    trained.export(tmp_path)
    assert torch.equal(
        learner_of(tmp_path, value={"source": "hn"}).critic.head_l1.weight, trained.critic.head_l1.weight
    )
    given = "the checkpoint's is on hn with 1; give --set value.new=true"
    for source in ("concat", "separate"):
        with pytest.raises(UserError, match=f"{source} needs a value head on .*, {given}"):
            learner_of(tmp_path, value={"source": source})
    assert learner_of(tmp_path, value={"source": "concat", "new": True}).critic.source == "concat"
