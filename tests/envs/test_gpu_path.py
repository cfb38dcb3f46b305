"""The code for a GPU, run over several CPU scenes: what it sets, reads and judges is what single episodes have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bandit import new_checkpoint
from batches import actions, alone, assert_same, judged, table1_spec
from gpu_emulator import EmulatedEnv, emulated_gpu
from rl_runs import recipe_of
from sim import CAMERA, draw, environment, load_suite, poses, simple_spec, spec_of

from vla_gen_bench.envs.controller import MAX_ITERATIONS, TargetDeltaPoseController
from vla_gen_bench.envs.vector import EnvBatch
from vla_gen_bench.episodes.spec import Effect
from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.rollout import run_episode, run_episodes
from vla_gen_bench.policies.chunking import ChunkRunner
from vla_gen_bench.policies.expert import Expert
from vla_gen_bench.train.processes import join
from vla_gen_bench.train.rl.learner import Learner, open_simulator
from vla_gen_bench.train.rl.rollout import Collector
from vla_gen_bench.train.starts import starts

STEPS = 7  # the teleport happens in the fifth
MIXED = [spec_of("multi_object_ood", index=2), spec_of("texture_strong", index=3), table1_spec()]
TELEPORTS = [spec_of("object_reposition", index=2), spec_of("object_reposition", index=3)]
TELEPORTS.append(draw(load_suite("table1").select(["object_reposition"])[0], "builtin", 0, 1))  # keeps its velocity
CHANGES = [  # camera, light, bodies and table differ from row to row
    {
        "camera_position": {"offset": [0.02, -0.03, 0.01]},
        "light_direction": {"direction": [0.6, 0.2, -0.8]},
        "light_shadow": {"share": 0.9},
    },
    {"target_scale": {"scale": 1.15}, "target_friction": {"coefficient": 0.3}, "camera_zoom": {"zoom": 1.2}},
    {
        "table_friction": {"coefficient": 0.05},
        "target_mass": {"factor": 5.0},
        "light_colour": {"gain": [1, 2, 3]},
        "light_shadow": {"share": 0.6},
    },
]
SCENES = [
    spec.model_copy(update={"effects": tuple(Effect(name=name, params=params) for name, params in changes.items())})
    for spec, changes in zip([simple_spec(), simple_spec(), spec_of("multi_object_ind", index=3)], CHANGES, strict=True)
]


def one_by_one(self: TargetDeltaPoseController, target) -> tuple[torch.Tensor, torch.Tensor]:
    """The CPU's inverse kinematics, arm after arm: all that the two backends do differently."""
    found, reached = [], []
    for arm, link, pose in zip(self.articulation._objs, self.ee_link._objs, target, strict=True):
        mask = np.array([True] * 6 + [False] * 2)
        angles, ok, _ = arm.create_pinocchio_model().compute_inverse_kinematics(
            arm.links.index(link), pose.sp, initial_qpos=arm.qpos, active_qmask=mask, max_iterations=MAX_ITERATIONS
        )
        found.append(torch.from_numpy((angles if ok else arm.qpos)[:6].astype(np.float32)))
        reached.append(ok)
    return torch.stack(found), torch.tensor(reached)


@pytest.fixture(scope="module")
def gpu():
    with emulated_gpu():
        yield emulated_batch(3)


@pytest.mark.parametrize("specs", [MIXED, TELEPORTS, SCENES], ids=["mixed", "teleports", "scenes"])
def test_a_batch_equals_its_episodes_run_alone(gpu, monkeypatch, specs):
    """Unequal numbers of distractors, an effect in one row, a teleport in all: states, images, rewards and flags."""
    monkeypatch.setattr(TargetDeltaPoseController, "solve_all", one_by_one)
    moves = [actions(row, STEPS) for row in range(3)]
    images = gpu.reset(specs)
    histories = [[part] for part in zip(gpu.states(), images, *judged(gpu), strict=True)]
    for step in range(STEPS):
        images, rewards, infos = gpu.step(np.stack([moves[row][step] for row in range(3)]))
        states = gpu.states()
        for row in range(3):
            flags = (infos[name][row] for name in sorted(infos))
            histories[row].append((states[row], images[row], rewards[row], *flags))
    for row, spec in enumerate(specs):
        assert_same(histories[row], alone(spec, moves[row]), tolerance=1e-6)


def test_forces_and_views_are_those_of_each_row(gpu):
    gpu.reset(MIXED)
    gpu.step(np.stack([actions(row, 1)[0] for row in range(3)]))
    single = environment("builtin", "none")
    for row, (spec, view) in enumerate(zip(MIXED, gpu.privileged(), strict=True)):
        single.reset(options={"spec": spec})
        single.step(actions(row, 1)[0])
        own = single.privileged_state()
        assert set(view.distractors) == set(own.distractors) and view.ik_ok and view.step == 1
        np.testing.assert_allclose(view.target.points, own.target.points, atol=1e-5)
        np.testing.assert_allclose(view.commanded_position, own.commanded_position, atol=1e-6)
        np.testing.assert_allclose(view.position, own.position, atol=1e-3)  # another inverse kinematics
        resting = [name for name in single.judge.forces if "receptacle" in name]
        for name in resting:
            found = gpu.envs[0].judge.forces[name][row]
            np.testing.assert_allclose(found, single.judge.forces[name][0], atol=2e-3)


def test_masks_are_those_of_each_row(gpu):
    env = gpu.envs[0]
    gpu.reset(MIXED)
    segmentation = env._sensors[CAMERA].get_obs(rgb=False, depth=False, position=False)["segmentation"]
    single = environment()
    for row, spec in enumerate(MIXED):
        own = single.reset(options={"spec": spec})[0]["sensor_data"][CAMERA]["segmentation"]
        for thing in single.things:
            mask = env.role_mask(segmentation, thing.role)
            np.testing.assert_array_equal(mask[row], single.role_mask(own, thing.role)[0])
        np.testing.assert_array_equal(env.role_mask(segmentation, "robot")[row], single.role_mask(own, "robot")[0])
    lacking = env.role_mask(segmentation, "distractor_object_0")
    assert lacking[0].any() and not lacking[2].any()  # only the first episode has a second object


def test_all_arms_are_solved_as_one_is(gpu):
    gpu.reset(MIXED)
    arm = gpu.envs[0].agent.controller.controllers["arm"]
    drawn = np.random.default_rng(3)
    for _ in range(20):
        shift = torch.from_numpy(drawn.uniform(-0.03, 0.03, (3, 6)).astype(np.float32))
        target = arm.compute_target_pose(arm.ee_pose_at_base, shift * torch.tensor([1] * 3 + [5.0] * 3))
        found, ok = arm.solve_all(target)
        expected, reached = one_by_one(arm, target)
        assert ok.all() and reached.all()
        np.testing.assert_allclose(found, expected, atol=2e-3)  # the CPU stops within 1e-4 m or rad of the target


def test_one_arm_out_of_reach_holds_still_and_the_others_move(gpu):
    gpu.reset(MIXED)
    before = gpu.envs[0].agent.robot.get_qpos().clone()
    moves = np.float32([[0.9, 0, 0, 0, 0, 0, 1], [0, 0, 0.02, 0, 0, 0, 1], [0, 0, 0.02, 0, 0, 0, 1]])
    gpu.step(moves)
    assert [view.ik_ok for view in gpu.privileged()] == [False, True, True]
    travelled = (gpu.envs[0].agent.robot.get_qpos() - before)[:, :6].abs().amax(1)
    assert travelled[0] < 1e-3 and (travelled[1:] > 0.02).all()


def test_the_expert_succeeds_on_the_batch_as_alone(gpu):
    specs = [spec_of("ind", index=index) for index in range(2)]
    for episodes in (
        run_episodes(gpu, ChunkRunner(Expert(), "expert"), specs, 60, privileged=True),
        [run_episode(environment(), ChunkRunner(Expert(), "expert"), spec, 60, privileged=True) for spec in specs],
    ):
        assert [episode.row["success_once"] for episode in episodes] == [True, True]
        assert [episode.row["target"] for episode in episodes] == [spec.target.id for spec in specs]


def test_episodes_that_stop_the_clock_at_different_steps_cannot_share_it(gpu):
    with pytest.raises(UserError, match="cannot share a simulation"):
        gpu.reset([TELEPORTS[0], simple_spec(), simple_spec()])
    later = TELEPORTS[0].effects[0].params | {"step": 9}
    with pytest.raises(UserError, match="cannot share a simulation"):
        gpu.reset([TELEPORTS[0], simple_spec(effects=(Effect(name="reposition", params=later),)), TELEPORTS[1]])


def test_all_rows_begin_at_once(gpu):
    gpu.reset(MIXED)
    with pytest.raises(ValueError, match="begins all its episodes at once"):
        gpu.reset_rows([1], [simple_spec()])
    assert gpu.reset_rows([0, 1, 2], [simple_spec()] * 3).shape == (3, 240, 320, 3)
    assert len({state.tobytes() for state in gpu.states()}) == 1
    np.testing.assert_array_equal(poses_alone(simple_spec()), gpu.states()[0])


def poses_alone(spec) -> np.ndarray:
    env = environment("builtin", "none")
    env.reset(options={"spec": spec})
    return poses(env)


def test_what_is_written_and_not_applied_is_lost(gpu):
    """The emulation itself: a pose in the buffer counts only after it was applied."""
    gpu.reset(MIXED)
    env = gpu.envs[0]
    target, before = env.things[0].actor, env.things[0].actor.pose.raw_pose.clone()
    target.set_pose(target.pose.raw_pose + torch.tensor([0, 0, 1.0, 0, 0, 0, 0]))
    env.scene._gpu_fetch_all()
    torch.testing.assert_close(target.pose.raw_pose, before)
    target.set_pose(before + torch.tensor([0, 0, 1.0, 0, 0, 0, 0]))
    env.scene.px.gpu_apply_rigid_dynamic_data()
    env.scene._gpu_fetch_all()
    torch.testing.assert_close(target.pose.raw_pose[:, 2], before[:, 2] + 1)


def test_reward_learning_collects_from_the_batch_what_single_episodes_give(monkeypatch, tmp_path):
    """A rollout with `simulation: gpu` is that of CPU scenes; the inverse kinematics are made the same."""
    recipe = recipe_of("ppo", new_checkpoint(tmp_path), episodes=3, together=3, lanes=1, horizon=2)
    actor = Learner(recipe, join("cpu")).actor
    chosen = starts("builtin", 0, 0, 3)
    with open_simulator(recipe, actor, "cpu", 0) as simulator:
        single = Collector(simulator, actor, recipe.horizon).collect(chosen, recipe.sampling)
    monkeypatch.setattr(TargetDeltaPoseController, "solve_all", one_by_one)
    with emulated_gpu(), open_simulator(recipe, actor, "gpu", 2, emulated_batch) as simulator:
        assert (simulator.width, simulator.lanes) == (3, 1)
        batch = Collector(simulator, actor, recipe.horizon).collect(chosen, recipe.sampling)
    assert batch.images.shape == (2, 3, 32, 32, 3) and not np.array_equal(batch.images[0], batch.images[1])
    for name in ("images", "tokens", "rewards"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(single, name), name)


def emulated_batch(size: int) -> EnvBatch:
    return EnvBatch([EmulatedEnv(num_envs=size, sim_backend="physx_cpu", obs_mode="rgb")])
