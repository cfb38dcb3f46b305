"""The environment realises specs: poses, images, determinism, ManiSkill's and gymnasium's conventions."""

from __future__ import annotations

import re
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from sim import CAMERA, STILL, environment, image, poses, simple_spec, spec_of

import vla_gen_bench.envs as envs
from vla_gen_bench.envs import robot
from vla_gen_bench.envs.making import make_env
from vla_gen_bench.envs.task import grasping, placed_on
from vla_gen_bench.episodes.spec import Placed
from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.expert import Expert


def rollout(env, spec, actions):
    states, pictures = [], []
    observation, _ = env.reset(options={"spec": spec})
    for action in actions:
        states.append(poses(env))
        pictures.append(image(observation))
        observation = env.step(action)[0]
    return np.array(states), np.array(pictures)


def wave(steps: int) -> np.ndarray:
    """Moves down into the scene while turning and closing."""
    time = np.arange(steps)
    actions = np.zeros((steps, 7), np.float32)
    actions[:, 0], actions[:, 1], actions[:, 2] = 0.01 * np.sin(time), 0.01 * np.cos(time), -0.012
    actions[:, 3], actions[:, 5] = 0.02 * np.sin(time / 2), 0.05
    actions[:, 6] = np.where(time < steps // 2, 1.0, -1.0)
    return actions


def test_same_spec_and_actions_are_bit_identical_whatever_ran_before():
    env, spec, actions = environment(), spec_of("multi_object_ind"), wave(12)
    states, pictures = rollout(env, spec, actions)
    rollout(env, spec_of("noise_strong", index=3), wave(7))
    rollout(env, spec_of("unseen_robot_pose", index=5), wave(3))
    again, repainted = rollout(env, spec, actions)
    np.testing.assert_array_equal(states, again)
    np.testing.assert_array_equal(pictures, repainted)


def test_robot_starts_at_the_initial_pose_plus_the_spec_s_offset():
    env = environment("builtin", "none")
    env.reset(options={"spec": simple_spec(joint_offset=(0.15, -0.08, 0.0, 0.08, 0.15, -0.6))})
    expected = np.array(robot.INITIAL_QPOS) + [0.15, -0.08, 0, 0.08, 0.15, -0.6, 0, 0]
    np.testing.assert_allclose(env.agent.robot.get_qpos()[0].numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(env.agent.robot.pose.p[0].numpy(), robot.BASE_POSITION, atol=1e-7)


def test_end_effector_starts_where_the_reference_has_it():
    """Fact sheet 1.2: base frame (0.2921, -0.0061, 0.1353), pointing down."""
    env = environment("builtin", "none")
    env.reset(options={"spec": simple_spec()})
    state = env.privileged_state()
    np.testing.assert_allclose(state.position, [0.2921, -0.0061, 0.1353], atol=2e-4)
    assert state.rotation[2, 0] < -0.99


def test_objects_settle_on_the_table_near_where_they_were_dropped():
    env = environment("builtin", "none")
    env.reset(options={"spec": simple_spec()})
    state = env.privileged_state()
    assert state.target.points[:, 2].min() == pytest.approx(0, abs=1e-3)  # base frame: z = 0 is the table top
    assert state.receptacle.points[:, 2].min() == pytest.approx(0, abs=1e-3)
    assert state.target.speed < 0.01
    # World (-0.20, 0.05) is base (0.147 + 0.20, 0.028 - 0.05).
    np.testing.assert_allclose(state.target.position[:2], [0.347, -0.022], atol=0.02)


def test_only_the_needed_bodies_are_in_the_scene():
    env = environment("builtin", "none")
    env.reset(options={"spec": simple_spec()})
    assert set(env.scene.actors) == {"table", "target", "receptacle"}
    env.reset(options={"spec": spec_of("multi_object_ood")})
    assert set(env.scene.actors) == {"table", "target", "receptacle", "distractor_object_0"}


def test_an_action_moves_the_target_pose_in_the_base_frame():
    env = environment("builtin", "none")
    env.reset(options={"spec": simple_spec()})
    before = env.privileged_state()
    env.step(np.array([0.02, -0.01, 0.03, 0.1, -0.2, 0.3, 1], np.float32))
    after = env.privileged_state()
    np.testing.assert_allclose(after.commanded_position - before.commanded_position, [0.02, -0.01, 0.03], atol=1e-6)
    a, b, c = 0.1, -0.2, 0.3
    turn_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    turn_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    np.testing.assert_allclose(
        after.commanded_rotation, turn_x @ turn_y @ turn_z @ before.commanded_rotation, atol=1e-6
    )


def test_the_arm_follows_its_target():
    env = environment("builtin", "none")
    env.reset(options={"spec": simple_spec()})
    for _ in range(3):
        env.step(np.array([0, 0, 0.02, 0, 0, 0, 1], np.float32))
    for _ in range(12):
        env.step(STILL)
    state = env.privileged_state()
    assert np.linalg.norm(state.position - state.commanded_position) < 0.002


def test_controller_does_what_mani_skill_s_does():
    """The fast CPU path and ManiSkill's own code command the same joint angles."""
    from mani_skill.agents.controllers.pd_ee_pose import PDEEPoseController

    env = environment("builtin", "none")
    for action in ([0.01, 0.02, -0.03, 0.1, -0.2, 0.3, 1.0], [0.5, 0, 0, 0, 0, 0, -1.0]):  # the second is out of reach
        targets = []
        for ours in (True, False):
            env.reset(options={"spec": simple_spec()})
            arm = env.agent.controller.controllers["arm"]
            command = torch.tensor([action[:6]], dtype=torch.float32)
            arm.set_action(command) if ours else PDEEPoseController.set_action(arm, command)
            drives = [joint._objs[0].drive_target[0] for joint in arm.joints]
            targets.append(np.concatenate([drives, arm._target_pose.raw_pose[0].numpy()]))
        np.testing.assert_allclose(targets[0], targets[1], atol=2e-6)


def test_an_unreachable_target_holds_the_joints():
    env = environment("builtin", "none")
    env.reset(options={"spec": simple_spec()})
    env.step(np.array([0.9, 0, 0, 0, 0, 0, 1], np.float32))
    state = env.privileged_state()
    assert not state.ik_ok
    np.testing.assert_allclose(state.qpos[:6], robot.INITIAL_QPOS[:6], atol=1e-3)
    assert state.commanded_position[0] > 1.1


def test_gripper_action_is_a_position():
    env = environment("builtin", "none")
    for command, finger in ((1.0, 0.037), (-1.0, 0.015), (0.0, 0.026)):  # 0.014 .. 0.038, joint limits 0.015 .. 0.037
        env.reset(options={"spec": simple_spec()})
        for _ in range(6):
            env.step(np.array([0, 0, 0.01, 0, 0, 0, command], np.float32))
        np.testing.assert_allclose(env.privileged_state().qpos[6:], finger, atol=1e-3)


def test_the_judge_is_what_the_rules_say_with_and_without_contacts():
    """A whole episode of the expert, from no contact to the placement."""
    env, expert = environment("builtin", "none"), Expert()
    env.reset(options={"spec": spec_of("multi_object_ind", index=1)})
    expert.reset(list(env.instructions), [0])
    seen = set()
    for _ in range(60):
        look = replace(example_observation(1), privileged=[env.privileged_state()])
        env.step(expert.act(look)[0, 0])
        judge = env.judge
        force = {side: judge.forces[f"{side}/target"] for side in ("left", "right")}
        links = {"left": env.agent.finger1_link, "right": env.agent.finger2_link}
        turned = {side: link.pose.to_transformation_matrix()[:, :3, 1] for side, link in links.items()}
        expected = grasping(force["left"], turned["left"]) & grasping(force["right"], -turned["right"])
        offset = judge.positions["target"] - judge.positions["receptacle"]
        sizes = judge.extents["target"], judge.extents["receptacle"]
        placed = placed_on(offset, *sizes, judge.forces["target/receptacle"])
        assert judge.grasped.tolist() == expected.tolist() and judge.success.tolist() == placed.tolist()
        seen.add((any(bool(force.any()) for force in judge.forces.values()), bool(expected), bool(placed)))
    assert {(False, False, False), (True, True, False), (True, False, True)} <= seen


def test_the_table_image_is_behind_everything():
    env = environment()
    observation, _ = env.reset(options={"spec": simple_spec()})
    segmentation = observation["sensor_data"][CAMERA]["segmentation"]
    things = [env.role_mask(segmentation, role)[0].numpy() for role in ("robot", "target", "receptacle")]
    background = ~np.any(things, axis=0)
    assert all(mask.sum() > 50 for mask in things)
    np.testing.assert_array_equal(image(observation)[background], env._tables[0].numpy()[background])


def test_image_size_and_camera_matrix_belong_to_the_world():
    env = environment()
    observation, _ = env.reset(options={"spec": simple_spec()})
    assert image(observation).shape == (240, 320, 3) and image(observation).dtype == np.uint8
    matrix = observation["sensor_param"][CAMERA]["intrinsic_cv"][0].numpy()
    np.testing.assert_allclose(matrix[0, 0], 623.588 / 2, rtol=1e-4)
    np.testing.assert_allclose(matrix[:2, 2], [159.5005, 119.5225], atol=0.51)


def test_evaluating_twice_changes_nothing():
    env = environment("builtin", "none")
    env.reset(options={"spec": simple_spec()})
    env.step(STILL)
    first, second = env.get_info(), env.get_info()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_teleport_happens_once_after_its_step():
    env, spec = environment("builtin", "none"), spec_of("object_reposition")
    goal = np.array(spec.effects[0].params["position"])
    env.reset(options={"spec": spec})
    heights, distances = [], []
    for _ in range(7):
        env.step(STILL)
        place = env._thing("target").actor.pose.p[0].numpy()
        heights.append(place[2])
        distances.append(np.linalg.norm(place[:2] - goal[:2]))
    assert min(distances[:4]) > 0.09 and max(distances[4:]) < 0.09  # on its way down it meets the waiting arm
    assert heights[4] > 0.93  # still falling: 0.1 s of physics after a drop from z = 1.0
    assert heights[6] < 0.92


def test_a_spec_of_another_world_is_refused():
    with pytest.raises(UserError, match="spec of world 'rl4vla'"):
        environment("builtin", "none").reset(options={"spec": spec_of(world="rl4vla")})


def test_an_unknown_asset_is_named():
    spec = simple_spec(target=Placed(id="carot", position=(-0.2, 0, 0.95)))
    with pytest.raises(UserError, match="no object 'carot'; did you mean 'carrot'"):
        environment("builtin", "none").reset(options={"spec": spec})


@pytest.mark.parametrize(("options", "message"), [
    ({"specs": []}, "0 specs were given for 1 environments"),
    ({"env_idx": [0, 1]}, "a reset of 2 of 1 environments"),
])  # fmt: skip
def test_a_reset_that_cannot_be_done_is_refused_and_changes_nothing(options, message):
    env = environment("builtin", "none")
    env.reset(options={"spec": simple_spec(), "env_idx": [0]})
    with pytest.raises(UserError, match=message):
        env.reset(options=options)
    assert env.specs == [simple_spec()]


@pytest.mark.parametrize(("given", "message"), [
    ({"cameras": ("wirst",)}, "cameras: unknown camera 'wirst'; did you mean 'wrist'?"),
    ({"cameras": ()}, "cameras: []; expected different ones of external, wrist, at least one"),
    ({"cameras": ("wrist", "wrist")}, "expected different ones"),
    ({"image_size": (0, 0)}, "image_size: [0, 0]; expected height and width, 1 to 2048 pixels each"),
    ({"image_size": (64,)}, "image_size: [64]; expected height and width"),
])  # fmt: skip
def test_views_that_cannot_be_are_refused(given, message):
    with pytest.raises(UserError, match=re.escape(message)):
        envs.PickPlaceEnv(**given)


# ---- gymnasium and ManiSkill


def test_success_does_not_end_an_episode():
    """It may be lost again, and the last step counts."""
    spec = simple_spec(target=Placed(id="carrot", position=(-0.12, -0.05, 0.98)))
    env = environment("builtin", "none")
    env.reset(options={"spec": spec})
    *_, terminated, truncated, info = env.step(STILL)
    assert bool(info["success"]) and not bool(terminated) and not bool(truncated)


def test_the_suite_decides_when_an_episode_is_truncated(tmp_path):
    suite = tmp_path / "short.yaml"
    suite.write_text("id: short\nversion: '1'\nprotocol: {horizon: 3}\nscenarios: {ind: {dimension: ind}}\n")
    single = envs.make_cpu_env(suite=str(suite), observation="state")
    for env in (make_env(suite=str(suite), obs_mode="none"), single):
        env.reset(seed=1)
        assert [bool(env.step(STILL)[3]) for _ in range(3)] == [False, False, True]
        env.close()


def test_every_scenario_has_an_id():
    ids = [name for name in gym.registry if name.startswith("VGB-")]
    assert {"VGB-PickPlace-v1", "VGB-Ind-v1", "VGB-UnseenTable-v1", "VGB-Table1MultiReceptacle-v1"} <= set(ids)
    assert len(ids) == 1 + 16 + 16


@pytest.fixture(scope="module")
def made():
    env = gym.make(envs.env_id("unseen_object"), obs_mode="rgb")
    yield env
    env.close()


def test_gym_make_follows_the_conventions(made):
    observation, info = made.reset(seed=3)
    assert made.observation_space.contains({k: _numpy(v) for k, v in observation.items()})
    assert made.action_space.shape == (7,) and made.action_space.dtype == np.float32
    step = made.step(np.zeros(7, np.float32))
    assert len(step) == 5
    _, reward, terminated, truncated, info = step
    assert (tuple(reward.shape), reward.dtype) == ((1,), torch.float32)
    assert terminated.dtype == torch.bool and truncated.dtype == torch.bool
    assert {"success", "grasped", "wrong_touched", "elapsed_steps"} <= set(info)


def _numpy(value):
    return {k: _numpy(v) for k, v in value.items()} if isinstance(value, dict) else np.asarray(value)


def test_resets_are_seeded_and_draw_new_episodes(made):
    env = made.unwrapped
    drawn = []
    for seed in (3, None, None, 3, None):
        made.reset(seed=seed)
        drawn.append(env.specs[0].digest())
    assert drawn[0] == drawn[3] and drawn[1] == drawn[4] and len(set(drawn)) == 3


def test_resets_never_draw_an_evaluation_episode(made):
    made.reset(seed=0)
    spec = made.unwrapped.specs[0]
    assert spec.seed >= 1_000_000
    assert spec.target.id in made.unwrapped.pack.catalog.ids("objects", "unseen")


def test_the_time_limit_truncates(made):
    made.reset(seed=1)
    env = made.unwrapped
    env._obs_mode = "none"
    flags = [bool(made.step(np.zeros(7, np.float32))[3]) for _ in range(80)]
    env._obs_mode = "rgb"
    assert flags == [False] * 79 + [True]


def test_every_fresh_environment_draws_episodes_of_its_own():
    drawn = []
    for _ in range(2):
        env = environment.__wrapped__("builtin", "none")
        for _ in range(2):
            env.reset()
            drawn.append(env.specs[0].digest())
        env.close()
    assert len(set(drawn)) == 4


def test_the_robot_s_state_comes_with_the_image():
    env = environment.__wrapped__("builtin", "rgb+state")
    observation, info = env.reset(options={"spec": simple_spec()})
    # 8 joint angles, their 8 speeds, and the controller's target pose: position and quaternion.
    assert observation["state"].shape == (1, 8 + 8 + 7) and image(observation).shape == (240, 320, 3)
    assert info["instruction"] == ["put carrot on plate"]
    env.close()


def test_render_shows_what_the_policy_sees():
    env = environment()
    env.reset(options={"spec": simple_spec()})
    observation = env.step(STILL)[0]
    np.testing.assert_array_equal(env.render_rgb_array()[0].numpy(), image(observation))


def test_cpu_gym_wrapper_gives_plain_arrays(made):
    from mani_skill.utils.wrappers.gymnasium import CPUGymWrapper

    wrapped = CPUGymWrapper(made)
    observation, _ = wrapped.reset(seed=5)
    assert observation["sensor_data"][CAMERA]["rgb"].shape == (240, 320, 3)
    _, reward, terminated, _, info = wrapped.step(wrapped.action_space.sample())
    assert isinstance(float(reward), float) and isinstance(bool(terminated), bool) and "success" in info
