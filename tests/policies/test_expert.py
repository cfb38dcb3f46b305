"""The privileged expert in the real simulator, on development seeds (evaluation uses 0 to 2)."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from privileged import IMAGE, observe
from sim import environment, simple_spec, spec_of

from vla_gen_bench.envs.privileged import BodyState
from vla_gen_bench.episodes.spec import EpisodeSpec, Placed
from vla_gen_bench.policies.expert import Expert
from vla_gen_bench.policies.expert.grasp import plan_grasps
from vla_gen_bench.policies.expert.motion import euler_xyz
from vla_gen_bench.protocol import Observation

STEPS = 80


def play(spec: EpisodeSpec, expert: Expert | None = None, steps: int = STEPS, meddle=None):
    """Returns the actions [steps, 7] of one episode and its last flags; `meddle(step, action)` may change an action."""
    env, expert = environment("builtin", "none"), expert or Expert()
    env.reset(options={"spec": spec})
    expert.reset([spec.instruction], [7])
    actions = []
    for step in range(steps):
        action = expert.act(observe([env.privileged_state(0)]))[0, 0]
        actions.append(action if meddle is None else meddle(step, action.copy()))
        info = env.step(actions[-1])[-1]
    return np.array(actions), {key: value[0].item() for key, value in info.items() if key != "elapsed_steps"}


@pytest.mark.parametrize(
    "scenario",
    ["ind", "unseen_robot_pose", "object_reposition", "multi_object_ood", "multi_receptacle", "unseen_position"],
)
def test_expert_succeeds_and_touches_no_distractor(scenario):
    flags = play(spec_of(scenario, seed=30, index=1))[1]
    assert flags["success"] and flags["held_ever"]
    assert not flags["wrong_touched"] and not flags["wrong_placed"]


def test_distractor_within_reach_of_an_unlucky_gripper_yaw_stays_untouched():
    """A carrot lies along x; a standing can 55 mm beside it stands where a finger would come down in the middle."""
    beside = Placed(id="soda_can", position=(-0.20, 0.105, 0.95))
    flags = play(simple_spec(distractor_objects=(beside,)))[1]
    assert flags["success"] and not flags["wrong_touched"]


def test_target_that_jumps_out_of_the_closing_gripper_is_followed():
    jump = spec_of("object_reposition", seed=30, index=2).effects[0]
    late = jump.model_copy(update={"params": {**jump.params, "step": 14}})
    flags = play(spec_of("ind", seed=30, index=2).model_copy(update={"effects": (late,)}))[1]
    assert flags["success"] and flags["grasped_ever"]


def test_dropped_target_is_picked_up_again():
    def drop(step: int, action: np.ndarray) -> np.ndarray:
        action[6] = 1.0 if step in (20, 21, 22) else action[6]
        return action

    assert play(simple_spec(), meddle=drop)[1]["success"]


def test_actions_stay_within_the_caps_and_use_a_binary_gripper():
    actions = play(spec_of("unseen_robot_pose", seed=30, index=4))[0].astype(np.float64)
    assert np.linalg.norm(actions[:, :2], axis=1).max() <= 0.025 + 1e-6
    assert np.abs(actions[:, 2]).max() <= 0.025 + 1e-6
    assert np.linalg.norm(actions[:, 3:6], axis=1).max() <= 0.30 + 0.01  # Euler angles of a turn of 0.30 rad
    assert set(actions[:, 6]) == {-1.0, 1.0}


def test_closing_takes_three_steps_without_motion():
    actions = play(simple_spec(), steps=35)[0]
    first = int(np.argmax(actions[:, 6] < 0))
    assert (actions[first : first + 3, 6] < 0).all()
    assert np.abs(actions[first : first + 3, :6]).max() < 1e-6


def test_expert_is_deterministic_with_and_without_noise():
    spec = spec_of("ind", seed=30, index=5)
    for noise in (0.0, 1.0):
        first, second = (play(spec, Expert(noise=noise), steps=25)[0] for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_noise_changes_what_the_expert_does():
    spec = spec_of("ind", seed=30, index=5)
    assert not np.array_equal(play(spec, Expert(noise=1.0), steps=25)[0], play(spec, Expert(), steps=25)[0])


def test_noisy_expert_still_succeeds():
    assert play(spec_of("ind", seed=30, index=6), Expert(noise=1.0))[1]["success"]


def test_rows_of_a_batch_do_not_influence_each_other():
    env, alone, pair = environment("builtin", "none"), Expert(noise=1.0), Expert(noise=1.0)
    states = []
    for index in (0, 1):
        env.reset(options={"spec": spec_of("ind", seed=31, index=index)})
        states.append(env.privileged_state(0))
    alone.reset([""], [11])
    pair.reset(["", ""], [11, 12])
    together = pair.act(observe(states))
    np.testing.assert_array_equal(together[:1], alone.act(observe(states[:1])))
    assert together.shape == (2, 1, 7) and together.dtype == np.float32


def test_missing_privileged_state_is_named():
    expert = Expert()
    expert.reset([""], [0])
    with pytest.raises(ValueError, match="privileged: true"):
        expert.act(Observation(IMAGE, ("",), np.zeros(1, np.int64)))


def box(size: tuple[float, float, float], yaw: float, centre: tuple[float, float] = (0.3, 0.0)) -> BodyState:
    corners = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0.0, 1.0)]) * size
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    points = corners @ turn.T + (*centre, 0.0)
    return BodyState(points.mean(axis=0), np.array([1.0, 0, 0, 0]), points, 0.0)


@pytest.mark.parametrize("degrees", [0, 30, 60, -45])
def test_grasp_closes_across_the_narrow_side(degrees):
    """Along x by `degrees`, 90 mm long and 30 mm wide: the closing axis, base y turned by the yaw, is across it."""
    best = plan_grasps(box((0.09, 0.03, 0.03), np.radians(degrees)), [])[0]
    assert np.degrees(best.yaw) == pytest.approx(degrees, abs=1e-6)
    assert best.width == pytest.approx(0.03, abs=1e-3)
    np.testing.assert_allclose(best.offset[:2], 0.0, atol=0.003)


def test_grasp_turns_away_from_a_neighbour():
    """A 30 mm cube and a wall 15 mm from its side in y: fingers, 26 to 42 mm from the middle, fit along x only."""
    wall = box((0.10, 0.02, 0.05), 0.0, centre=(0.3, 0.040))
    best = plan_grasps(box((0.03, 0.03, 0.03), 0.0), [wall.points])[0]
    assert abs(np.degrees(best.yaw)) == pytest.approx(90.0)


def test_some_grasp_is_found_on_a_thin_top_far_from_the_middle():
    base, spike = box((0.20, 0.20, 0.01), 0.0).points, box((0.001, 0.001, 0.12), 0.0, centre=(0.42, 0.12)).points
    assert plan_grasps(BodyState(np.array([0.3, 0, 0]), np.array([1.0, 0, 0, 0]), np.vstack([base, spike]), 0.0), [])


def test_euler_angles_multiply_to_the_rotation():
    turn = cv2.Rodrigues(np.array([0.2, -0.1, 0.25]))[0]
    a, b, c = (cv2.Rodrigues(axis * angle)[0] for axis, angle in zip(np.eye(3), euler_xyz(turn), strict=True))
    np.testing.assert_allclose(a @ b @ c, turn, atol=1e-12)
