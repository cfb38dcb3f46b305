"""The losses of PPO and TPO: by hand, against autograd, and against the recorded actor-critic case."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import openvla_cases as parity
import pytest
import torch
from bandit import new_checkpoint
from rl_runs import loss_of, recipe_of, score, some_rollout

from vla_gen_bench.policies.openvla.actions import action_stats
from vla_gen_bench.policies.openvla.processor import Processor
from vla_gen_bench.resources import data_dir
from vla_gen_bench.train.processes import join
from vla_gen_bench.train.recipe import load_recipe
from vla_gen_bench.train.rl import dpo, learner
from vla_gen_bench.train.rl.actor_critic import Score
from vla_gen_bench.train.rl.advantages import Pair
from vla_gen_bench.train.rl.clipped import ClippedLoss, clipped_loss, clipped_steps, old_numbers, value_loss
from vla_gen_bench.train.rl.experience import Experience
from vla_gen_bench.train.rl.learner import Learner
from vla_gen_bench.train.rl.ppo import PpoRecipe
from vla_gen_bench.train.rl.rollout import Rollout
from vla_gen_bench.train.student import Student

PAPER = data_dir() / "policies" / "openvla-ppo" / "recipe-paper.yaml"


def test_the_clipped_policy_loss_by_hand() -> None:
    """Ratios 1.5 and 0.5. Advantages +1 and +1: min(1.5, 1.2) and min(0.5, 0.8): -(1.2 + 0.5) / 2 = -0.85.
    Advantages -1 and -1: min(-1.5, -1.2) and min(-0.5, -0.8): (1.5 + 0.8) / 2 = 1.15."""
    rows = [math.log(1.5), math.log(0.5)]
    loss, numbers = loss_of(ClippedLoss(), score(rows), [1.0, 1.0])
    assert loss.item() == pytest.approx(-0.85)
    assert numbers["clip_fraction"] == 1 and numbers["entropy"] == 2
    assert loss_of(ClippedLoss(), score(rows), [-1.0, -1.0])[0].item() == pytest.approx(1.15)
    assert loss_of(ClippedLoss(policy_weight=7), score(rows), [1.0, 1.0])[0].item() == pytest.approx(-5.95)
    assert loss_of(ClippedLoss(entropy=0.1), score(rows), [1.0, 1.0])[0].item() == pytest.approx(-1.05)


def test_the_kl_estimate_by_hand() -> None:
    """Ratio 2: 2 - 1 - ln 2."""
    assert loss_of(ClippedLoss(), score([math.log(2)]), [1.0])[1]["kl"].item() == pytest.approx(1 - math.log(2))


def test_nothing_is_gained_beyond_the_clip() -> None:
    scored = score([math.log(1.5), math.log(1.1)])
    loss_of(ClippedLoss(), scored, [1.0, 1.0])[0].backward()
    assert scored.log_prob.grad.tolist() == pytest.approx([0, -0.55])  # -ratio / 2


def test_a_ratio_of_each_action_by_hand() -> None:
    """Two actions with ratios 1.5 and 1.1, advantage 1: (1.2 + 1.1) / 2 = 1.15. Jointly 1.65: 1.2. The other decision
    did not change: 1 either way. Nothing is gained by the first action: its gradient is 0."""
    parts = torch.tensor([[math.log(1.5), math.log(1.1)], [0.0, 0.0]], requires_grad=True)
    scored = Score(parts.sum(1), torch.zeros(2), None, parts)
    settings, old = ClippedLoss(ratio="action"), [[0.0, 0.0], [0.0, 0.0]]
    loss, numbers = loss_of(settings, scored, [1.0, 1.0], old_log_prob=old)
    assert loss.item() == pytest.approx(-(1.15 + 1) / 2) and numbers["clip_fraction"] == 0.25
    assert loss_of(ClippedLoss(), scored, [1.0, 1.0])[0].item() == pytest.approx(-(1.2 + 1) / 2)
    loss.backward()
    assert parts.grad.flatten().tolist() == pytest.approx([0, -1.1 / 4, -1 / 4, -1 / 4])


def test_the_parts_of_an_experience_add_up(tmp_path: Path) -> None:
    subject = Learner(recipe_of("ppo", new_checkpoint(tmp_path)), join("cpu"))
    experience = Experience.of(some_rollout(subject, 2, 3), np.zeros((3, 2)))
    rows = np.arange(6)
    found = experience.score(subject, rows)
    assert found.by_action.shape == experience.by_action.shape == (6, 1)
    assert torch.allclose(found.by_action.sum(1), found.log_prob) and not found.log_prob.equal(experience.log_probs)
    assert torch.equal(experience.by_action[:, 0], experience.log_probs)
    old = old_numbers(experience, rows, found.log_prob, ClippedLoss(ratio="action"))
    shapes = [tuple(column.shape) for column in old]
    assert shapes == [(6, 1), (6,), (6,), (6,)]


def test_the_clipped_huber_value_loss_by_hand() -> None:
    """Old values 0, new 1, returns 1: off by 0, but the clipped value 0.2 is off by 0.8: 0.32. Without the clip: 0.
    Off by 12 with delta 10: 10 * (12 - 5) = 70."""
    settings, one, zero = ClippedLoss(), torch.ones(1), torch.zeros(1)
    assert value_loss(settings, one, zero, one).item() == pytest.approx(0.32)
    assert value_loss(settings.model_copy(update={"value_clip": None}), one, zero, one).item() == 0
    assert value_loss(settings, 12 * one, 12 * one, zero).item() == pytest.approx(70)


def test_warming_up_leaves_the_policy_out() -> None:
    scored = score([0.0], [1.0])
    zeros = torch.zeros(1)
    loss, _ = clipped_loss(ClippedLoss(), scored, zeros, torch.ones(1), torch.ones(1), zeros, value_only=True)
    assert loss.item() == pytest.approx(0.5) and not loss.requires_grad


def test_the_preference_loss_by_hand() -> None:
    """beta 0.1; better: -10 against -12 before (+2), worse: -9 against -8 (-1). 0.1 * 3 = 0.3, -ln sigmoid(0.3)."""
    present = {4: torch.tensor(-10.0), 7: torch.tensor(-9.0)}
    before = {4: torch.tensor(-12.0), 7: torch.tensor(-8.0)}
    margins = dpo.preference_margins(0.1, [Pair(4, 7)], present, before)
    assert margins.item() == pytest.approx(0.3)
    assert dpo.preference_loss(margins).item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.3))))


def test_the_gradient_of_tpo_in_parts_is_that_of_the_whole_loss(tmp_path: Path) -> None:
    """Two passes and a weight per episode, against autograd through everything at once; in float64, for sums cancel."""
    recipe = recipe_of("dpo", new_checkpoint(tmp_path), part=2)
    subject = Learner(recipe, join("cpu"))
    subject.student.model.double()
    rollout = some_rollout(subject, episodes=4, decisions=3)
    pairs, weights = [Pair(1, 0), Pair(3, 2)], list(subject.weights().values())
    reference = {number: torch.tensor(-100.0 - number) for number in range(4)}

    parts = dpo._Episodes(subject, rollout, recipe.part)
    present = parts.log_probs(range(4))
    margins = dpo.preference_margins(recipe.beta, pairs, present, reference)
    for loss in dpo._losses(recipe, parts, pairs, margins):
        loss.backward()
    found = [weight.grad.clone() for weight in weights]

    whole = dpo._Episodes(subject, rollout, 100)
    graph = {number: next(iter(whole.scores([number])))[1].sum() for number in range(4)}
    assert all(present[number] == pytest.approx(graph[number].item()) for number in range(4))
    loss = dpo.preference_loss(dpo.preference_margins(recipe.beta, pairs, graph, reference))
    for gradient, expected in zip(found, torch.autograd.grad(loss, weights)):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


# ---- the paper's recipe against the recorded actor-critic ---------------------------------------------------


@pytest.mark.skipif(not parity.CASES.is_dir(), reason=f"no recorded outputs at {parity.CASES}; set VGB_SHARED")
@pytest.mark.filterwarnings("ignore:vision tower of width")
def test_a_step_of_the_paper_recipe_equals_the_recorded_actor_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advantages 1/7 undo the policy loss times 7, returns 0 make the Huber loss half a square; at a ratio of 1 the
    gradient is that of -log-prob: the recorded loss. Only what that case lacks is changed: no adapter, full precision,
    its entropy bonus; 20 parts are one sample each here."""
    changes = {"adapter": None, "precision": "float32", "loss.entropy": 0.01, "loss.coarse": False, "simulation": "cpu"}
    recipe = load_recipe(PAPER, PpoRecipe, changes)
    data, recorded = parity.recorded("rl4vla_actor_critic"), parity.extra("rl4vla_actor_critic")["grad_norms"]
    student = actor_critic()
    monkeypatch.setattr(learner, "build_student", lambda *arguments: student)
    subject = Learner(recipe, join("cpu"))
    before = {name: weight.detach().clone() for name, weight in subject.weights().items()}

    experience = recorded_experience(data)
    numbers = clipped_steps(recipe, subject, experience)

    total = math.sqrt(sum(norm**2 for norm in recorded.values() if norm is not None))
    assert numbers["grad_norm"] == pytest.approx(total, rel=1e-4)
    loss = -data["rand_logprob"].mean() + recipe.loss.value_weight * numbers["value_loss"] - 0.01 * numbers["entropy"]
    assert loss.item() == pytest.approx(data["loss"].item(), rel=1e-5)
    assert (numbers["kl"], numbers["clip_fraction"]) == (pytest.approx(0, abs=1e-6), 0)
    clipped = min(1.0, recipe.optimiser.clip / total)
    for name, weight in subject.weights().items():
        expected = recorded[name.removeprefix("policy.").replace("critic.", "value_head.")]
        assert weight.grad.norm().item() == pytest.approx(expected * clipped, rel=1e-3), name
        rate, decay = (3e-3, 0.01) if name.startswith("critic.") else (1e-4, decay_of(name, weight))
        first_step = before[name] * (1 - rate * decay) - rate * weight.grad / (weight.grad.abs() + 1e-8)
        torch.testing.assert_close(weight.detach(), first_step, rtol=0, atol=1e-6)


def decay_of(name: str, weight: torch.Tensor) -> float:
    """The paper's, on matrices; of an adapter everything is one."""
    kept = ("cls_token", "reg_token", "pos_embed", "embed_tokens.weight")
    return 0.01 if weight.ndim > 1 and not name.endswith(kept) else 0.0


def actor_critic() -> Student:
    """The recorded policy: `full_openvla`'s weights, the case's value head, images by RL4VLA's path."""
    from vla_gen_bench.policies.openvla.checkpoint.loading import load

    model = load(parity.CASES / "full_openvla").model.requires_grad_(True)
    processor = Processor(model.config, None, "tensor")
    head = parity.value_head("rl4vla_actor_critic", model)
    return Student(model, processor, action_stats(model.config), head)


def recorded_experience(data: dict[str, torch.Tensor]) -> Experience:
    """Three decisions of one step each, with the recorded log-probabilities and values as the old ones."""
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(data["input_ids"], data["attention_mask"])]
    log_probs = torch.cat([data["rand_logprob"], torch.zeros(3, 6)], 1)  # the joint one; only the sum is used
    rollout = Rollout(
        images=data["images_uint8"].numpy()[None],
        squashed=False,
        prompts=prompts,
        tokens=data["rand_tokens"].numpy()[None],
        log_probs=log_probs.numpy()[None],
        values=np.stack([data["rand_value"][:, 0].numpy(), np.zeros(3, np.float32)]),
        rewards=np.zeros((1, 3, 1), np.float32),
        flags={},
        digests=("",) * 3,
    )
    return Experience.of(rollout, np.full((1, 3), 1 / 7), np.zeros((1, 3)))
