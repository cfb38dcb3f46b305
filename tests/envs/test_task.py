"""The task's rules on hand-made numbers."""

from __future__ import annotations

import math

import pytest
import torch

from vla_gen_bench.envs.task import Progress, grasping, placed_on

PLATE = [0.11, 0.11, 0.006]  # radius 0.055 + 0.01 slack = 0.065
CARROT = [0.118, 0.032, 0.041]


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("force", "expected"),
    [
        ((0.0, 0.5, 0.0), True),  # 0.5 N straight along the opening direction
        ((0.0, 0.499, 0.0), False),
        ((0.0, -2.0, 0.0), False),  # pressed from outside
        ((math.sin(math.radians(84)), math.cos(math.radians(84)), 0.0), True),
        ((math.sin(math.radians(86)), math.cos(math.radians(86)), 0.0), False),
        ((0.0, 0.0, 0.0), False),
    ],
)
def test_a_finger_grasps_with_half_a_newton_within_85_degrees(force, expected):
    assert bool(grasping(row(*force), row(0.0, 1.0, 0.0))) is expected


@pytest.mark.parametrize(
    ("offset", "contact", "expected"),
    [
        ((0.0, 0.0, 0.0235), 0.1, True),  # resting: 0.003 + 0.0205
        ((0.064, 0.0, 0.02), 0.1, True),
        ((0.066, 0.0, 0.02), 0.1, False),
        ((0.046, 0.046, 0.02), 0.1, False),  # sqrt(2) * 0.046 = 0.06505
        ((0.0, 0.0, 0.0734), 0.1, True),  # 0.0734 - 0.003 - 0.0205 = 0.0499
        ((0.0, 0.0, 0.0736), 0.1, False),
        ((0.0, 0.0, 0.0), 0.1, False),  # must be above
        ((0.0, 0.0, 0.02), 0.03, False),  # more than 0.03 N
        ((0.0, 0.0, 0.02), 0.031, True),
    ],
)
def test_placed_needs_radius_height_and_contact(offset, contact, expected):
    force = row(0.0, 0.0, contact)
    assert bool(placed_on(row(*offset), row(*CARROT), row(*PLATE), force)) is expected


def test_the_radius_is_the_largest_of_three_half_sizes():
    """A receptacle 0.2 m tall reaches 0.1 + 0.01 m sideways: the reference's rule, kept."""
    tall = row(0.05, 0.05, 0.2)
    assert bool(placed_on(row(0.109, 0.0, 0.1), row(*CARROT), tall, row(0, 0, 1.0)))
    assert not bool(placed_on(row(0.111, 0.0, 0.1), row(*CARROT), tall, row(0, 0, 1.0)))


def play(grasps: str, successes: str) -> tuple[Progress, list[float]]:
    """Feeds one character per step, "x" = true; step 0 is the reset."""
    progress = Progress.start(1, torch.device("cpu"))
    never = {name: torch.tensor([False]) for name in ("touched", "grasped", "placed")}
    rewards = []
    for step, (grasp, success) in enumerate(zip(grasps, successes, strict=True)):
        progress.update(torch.tensor([step]), torch.tensor([grasp == "x"]), torch.tensor([success == "x"]), never)
        rewards.append(round(float(progress.reward), 6))
    return progress, rewards


def test_reward_pays_grasp_hold_and_placement_once():
    _, rewards = play(".xxxxxx.", ".......x")
    assert rewards == [0, 0.1, 0, 0, 0, 0.1, 0, 1.0]


def test_reward_takes_the_placement_back_when_the_object_leaves():
    _, rewards = play(".x....", "..x..x")
    assert rewards == [0, 0.1, 1.0, -1.0, 0, 1.0]


def test_placement_without_a_grasp_pays_nothing_until_there_was_one():
    _, rewards = play("...x", ".xxx")
    assert rewards == [0, 0, 0, 1.1]


def test_an_interrupted_hold_starts_anew():
    progress, _ = play(".xxxx.xxxx", "." * 10)
    assert not bool(progress.held_ever) and int(progress.hold_steps) == 4
    assert bool(progress.grasped_ever)


def test_first_success_step_counts_control_steps():
    progress, _ = play("......", "..x.x.")
    assert int(progress.first_success_step) == 2 and bool(progress.success_ever)
    progress, _ = play("...", "...")
    assert int(progress.first_success_step) == -1 and not bool(progress.success_ever)
