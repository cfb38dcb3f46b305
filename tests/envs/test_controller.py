"""The controllers on the CPU compute what ManiSkill's do, bit by bit."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mani_skill.agents.controllers.pd_ee_pose import PDEEPoseController
from mani_skill.agents.controllers.pd_joint_pos import PDJointPosMimicController
from mani_skill.utils.structs.pose import Pose
from sim import environment, spec_of

from vla_gen_bench.envs.controller import moved_pose

FRAME = "root_translation:root_aligned_body_rotation"  # the benchmark's: widowx.py


def mani_skill(pose: np.ndarray, delta: np.ndarray) -> np.ndarray:
    owner = SimpleNamespace(config=SimpleNamespace(use_delta=True, frame=FRAME))
    target, move = Pose(torch.from_numpy(pose[None])), torch.from_numpy(delta[None])
    return PDEEPoseController.compute_target_pose(owner, target, move).raw_pose[0].numpy()


@pytest.mark.parametrize("scale", [0.0, 0.05, 3.0])
def test_a_target_moves_and_turns_as_mani_skill_s_bit_by_bit(scale: float) -> None:
    generator = np.random.default_rng(int(10 * scale))
    pose = np.float32([0.3, 0, 0.2, 1, 0, 0, 0])
    for _ in range(500 if scale else 5):  # each from where the last one led: all quadrants, all signs
        delta = (scale * generator.normal(size=6)).astype(np.float32)
        moved = moved_pose(pose, delta)
        assert moved.dtype == np.float32 and np.array_equal(moved, mani_skill(pose, delta))
        pose = moved


def test_the_benchmark_s_frame_is_the_one_computed() -> None:
    arm = environment("builtin", "none").agent.controller.controllers["arm"]
    assert arm.config.frame == FRAME and arm.config.use_delta and arm.config.use_target and not arm._normalize_action


def test_the_fingers_are_driven_as_by_mani_skill_bit_by_bit() -> None:
    env = environment("builtin", "none")
    env.reset(options={"spec": spec_of()})
    gripper = env.agent.controller.controllers["gripper"]
    for value in (-1.5, -1.0, -0.3, 0.0, 0.123456, 1.0, 2.0):
        action, found = torch.tensor([[value]], dtype=torch.float32), []
        for drive in (type(gripper).set_action, PDJointPosMimicController.set_action):
            drive(gripper, action)
            driven = [joint._objs[0].drive_target.item() for joint in gripper.joints]
            found.append((gripper._target_qpos.tolist(), driven))
        assert found[0] == found[1] and found[0][0][0] == found[0][1], value
