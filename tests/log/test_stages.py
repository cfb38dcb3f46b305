"""Every label of docs/stages.md on a scripted trajectory, coverage by hand, and both in the real simulator."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gpu_emulator import EmulatedEnv, emulated_gpu
from privileged import observe
from sim import STILL, environment, simple_spec, spec_of

from vla_gen_bench.eval.rollout import run_episode
from vla_gen_bench.eval.state_trace import StateTrace
from vla_gen_bench.log.coverage import cell_centres, coverage, orientation_spread_deg, pack_cells, unpack_cells, visits
from vla_gen_bench.log.stages import STAGES, States, runs, stage, tries
from vla_gen_bench.policies.chunking import ChunkRunner
from vla_gen_bench.policies.expert import Expert
from vla_gen_bench.policies.simple import HoldPolicy

REST, HIGH = (0.30, 0.0, 0.02), (0.33, 0.0, 0.08)  # the target at rest and carried: 6 cm up
PLATE = (0.36, 0.0, 0.03)
AWAY = (0.30, 0.0, 0.20)
OPEN, SHUT = 0.037, 0.016


def phase(steps: int, hand=None, target=REST, opening=OPEN, **flags) -> list[dict]:
    """The same state `steps` times; the hand is at the target unless `hand` says where."""
    return [{"hand": target if hand is None else hand, "target": target, "opening": opening, **flags}] * steps


def far(steps: int = 5, **changes) -> list[dict]:
    return phase(steps, AWAY, **changes)


def grip(steps: int = 5, target=REST, **changes) -> list[dict]:
    return phase(steps, target=target, opening=0.025, grasped=True, touched=True, **changes)


def placed(steps: int = 5, **changes) -> list[dict]:
    return phase(steps, AWAY, PLATE, placed=True, **changes)


def miss() -> list[dict]:
    """Closes beside the target and opens again."""
    return phase(3, opening=SHUT) + phase(3)


CARRY = grip() + grip(target=HIGH)


def states(*phases: list[dict]) -> States:
    rows = [row for rows in phases for row in rows]
    flags = {
        name: np.array([row.get(name, False) for row in rows])
        for name in ("touched", "grasped", "placed", "wrong_touched", "wrong_grasped")
    }
    return States(
        position=np.array([row["hand"] for row in rows]),
        rotation=np.tile(np.eye(3), (len(rows), 1, 1)),
        opening=np.array([row["opening"] for row in rows]),
        target=np.array([row["target"] for row in rows]),
        target_extent=np.array([0.04, 0.04, 0.04]),
        **flags,
    )


TRAJECTORIES = {
    "hovers above": ("never_reached", [far(20)]),
    "hovers 5.1 cm above the origin: 3.1 cm above the box": ("never_reached", [phase(9, (0.30, 0.0, 0.071))]),
    "stops 4.9 cm above the origin: 2.9 cm above the box": ("reached_not_grasped", [far(), phase(9, (0.30, 0, 0.069))]),
    "brushes it with a finger from afar": ("reached_not_grasped", [far(), far(1, touched=True), far()]),
    "misses twice": ("reached_not_grasped", [far(), miss(), miss(), far()]),
    "misses three times": ("regrasp_loop", [far(), miss(), miss(), miss()]),
    "grips and lets go on the table, three times": ("regrasp_loop", [far(), *[grip() + phase(3)] * 3]),
    "closes three times far away": ("never_reached", [*[far(3, opening=SHUT) + far(3)] * 3]),
    "a gripper that opens for one step has not let go": (
        "reached_not_grasped",
        [far(), *[phase(3, opening=SHUT) + phase(1)] * 3],
    ),
    "loses it in the air": ("dropped", [far(), CARRY, phase(8)]),
    "loses it in the air twice": ("dropped", [far(), CARRY, phase(4), CARRY, phase(8)]),
    "loses it with the fingers shut": ("dropped", [far(), CARRY, phase(8, opening=SHUT)]),
    "loses it, then has it in hand when time is up": ("grasped_not_placed", [far(), CARRY, phase(4), CARRY]),
    "carries it until time is up": ("grasped_not_placed", [far(), CARRY]),
    "sets it down beside the plate": ("grasped_not_placed", [far(), CARRY, grip(), phase(8)]),
    "grips it for one step": ("grasped_not_placed", [far(), grip(1), phase(8)]),
    "takes the distractor": ("wrong_object", [far(), far(9, wrong_touched=True, wrong_grasped=True)]),
    "pushes the distractor only": ("wrong_object", [far(), far(9, wrong_touched=True)]),
    "brushes the distractor, then stays at the target": ("reached_not_grasped", [far(), phase(9, wrong_touched=True)]),
    "takes the distractor after it had the target": (
        "grasped_not_placed",
        [far(), CARRY, grip(), phase(3), far(9, wrong_touched=True, wrong_grasped=True)],
    ),
    "places it and knocks it off": ("placed_then_lost", [far(), CARRY, placed(), far()]),
    "places it and takes it away": ("placed_then_lost", [far(), CARRY, placed(), CARRY]),
    "pushes it over the edge": ("swept_off_table", [far(), phase(3), phase(9, AWAY, (0.3, 0.5, -0.4))]),
    "pushes it 31 cm away": ("swept_off_table", [far(), phase(9, AWAY, (0.307, 0.338, 0.02))]),
    "pushes it 29 cm away": ("never_reached", [far(), phase(9, AWAY, (0.307, 0.318, 0.02))]),
    "places it and sweeps it off": ("swept_off_table", [far(), CARRY, placed(), phase(9, AWAY, (0.3, 0.5, -0.4))]),
    "holds it outside the work area": ("grasped_not_placed", [far(), grip(), grip(target=(0.3, 0.5, 0.08))]),
    "picks and places": ("success", [far(), CARRY, grip(2, PLATE, placed=True), placed()]),
    "lets go, and it lands two steps later": ("success", [far(), CARRY, phase(2, AWAY, PLATE), placed()]),
    "the grip flickers for one step on the way": ("success", [far(), CARRY, phase(1, target=HIGH), CARRY, placed()]),
    "carried across the plate before": (
        "success",
        [far(), grip(2, PLATE, placed=True), grip(6, HIGH), grip(2, PLATE, placed=True), placed()],
    ),
    "pushed onto the plate": ("success", [far(), phase(5), placed()]),
    "trembles for two steps after release": (
        "success",
        [far(), CARRY, placed(1), phase(2, AWAY, PLATE), placed()],
    ),
    "misses once first": ("success_after_recovery", [far(), miss(), CARRY, placed()]),
    "drops it once first": ("success_after_recovery", [far(), CARRY, phase(4), CARRY, placed()]),
    "knocks it off and puts it back": ("success_after_recovery", [far(), CARRY, placed(), far(), CARRY, placed()]),
    "takes the distractor first": (
        "success_after_recovery",
        [far(), far(3, wrong_grasped=True), *[[row | {"wrong_grasped": True} for row in CARRY + placed()]]],
    ),
}


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_the_label_of_a_scripted_trajectory(name):
    expected, phases = TRAJECTORIES[name]
    assert stage(states(*phases)) == expected


def test_every_label_is_scripted_and_defined():
    assert {label for label, _ in TRAJECTORIES.values()} == set(STAGES)
    text = (Path(__file__).parents[2] / "docs" / "stages.md").read_text()
    labels = text.partition("## Labels")[2].partition("## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", labels, re.MULTILINE)) == sorted(STAGES)


def test_the_thresholds_in_the_docs_are_those_of_the_code():
    import vla_gen_bench.log.coverage as grid
    import vla_gen_bench.log.stages as rules

    text = (Path(__file__).parents[2] / "docs" / "stages.md").read_text()
    stated = dict(re.findall(r"`([A-Z_]+)` = ([\d.]+)", text))
    assert {"REACH_M", "LIFT_M", "LOOP_TRIES", "WORK_RADIUS_M", "CELL_M"} <= set(stated)
    for name, value in stated.items():
        assert getattr(rules, name, None) == float(value) or getattr(grid, name, None) == float(value), name


@pytest.mark.parametrize("seed", range(40))
def test_the_label_never_contradicts_the_log_s_flags(seed):
    """Random phases: success at the end, success once and grasped ever follow from the label."""
    generator = np.random.default_rng(seed)
    pieces = [far(), phase(3), miss(), CARRY, placed(3), phase(4, AWAY, (0.3, 0.5, -0.4)), far(2, wrong_touched=True)]
    script = states(*[pieces[choice] for choice in generator.integers(len(pieces), size=6)])
    label = stage(script)
    assert label.startswith("success") == script.placed[-1]
    if label == "placed_then_lost":
        assert script.placed.any()
    if label in ("dropped", "grasped_not_placed"):
        assert script.grasped.any() and not script.placed.any()
    if label in ("reached_not_grasped", "never_reached", "wrong_object"):
        assert not script.grasped.any()


def test_runs_bridge_short_gaps():
    flags = np.array([1, 1, 0, 1, 0, 0, 1], bool)
    assert runs(flags) == [(0, 2), (3, 4), (6, 7)]
    assert runs(flags, bridge=1) == [(0, 4), (6, 7)]
    assert runs(np.zeros(3, bool)) == []


def test_a_try_tells_whether_it_failed_and_whether_it_dropped():
    """5 states far, 3 shut, 3 open, 10 carrying, 4 open."""
    first, second = tries(states(far(), miss(), CARRY, phase(4)))
    assert (first.start, first.end, first.failed, first.dropped) == (5, 8, True, False)
    assert (second.start, second.end, second.failed, second.dropped) == (11, 21, True, True)


# ---- coverage ----------------------------------------------------------------------------------------------


def turned(degrees: float) -> np.ndarray:
    """Rotations [2, 3, 3] by +- `degrees` about z."""
    a = np.radians([degrees, -degrees])
    zero, one = np.zeros(2), np.ones(2)
    rows = [[np.cos(a), -np.sin(a), zero], [np.sin(a), np.cos(a), zero], [zero, zero, one]]
    return np.array(rows).transpose(2, 0, 1)


def test_cells_are_counted_once_and_come_back():
    """(0.01, -0.31, -0.01) is cell (0, 0, 0); 2 cm up is (0, 0, 1); 2 cm forward is (1, 0, 0) = 512; 9 m is out."""
    path = np.array(
        [[0.01, -0.31, -0.01], [0.015, -0.305, -0.005], [0.01, -0.31, 0.01], [0.03, -0.31, -0.01], [0, 0, 9]]
    )
    packed = coverage(path, np.tile(np.eye(3), (5, 1, 1)))
    assert (packed["states"], packed["outside"]) == (5, 1)
    assert unpack_cells(packed["cells"]).tolist() == [0, 1, 512]
    np.testing.assert_allclose(cell_centres(np.array([0, 1, 512])), path[[0, 2, 3]], atol=1e-12)
    counts = visits([packed, packed])
    assert counts.sum() == 6 and counts[1, 0, 0] == 2


def test_a_row_stays_small_whatever_the_path():
    """81 states in 81 cells: 162 bytes, 216 characters, and 9 numbers."""
    generator = np.random.default_rng(0)
    path = generator.uniform([0, -0.32, -0.02], [0.64, 0.32, 0.30], (81, 3))
    turns = np.linalg.qr(generator.normal(size=(81, 3, 3)))[0]
    assert len(json.dumps(coverage(path, turns))) < 400


def test_packing_no_cells():
    assert unpack_cells(pack_cells(np.zeros(0, int))).size == 0


@pytest.mark.parametrize("degrees", [0, 10, 60])
def test_the_spread_of_half_the_time_at_either_side_is_that_angle(degrees):
    still = np.zeros((2, 3))
    both = coverage(still, turned(degrees))
    assert orientation_spread_deg([both]) == pytest.approx(degrees, abs=0.6)  # 4 decimals: arccos(1 - 5e-5) = 0.57
    left, right = (coverage(still[:1], turned(degrees)[i : i + 1]) for i in range(2))
    assert orientation_spread_deg([left, right]) == pytest.approx(degrees, abs=0.6)  # pooled over episodes


def test_longer_episodes_weigh_more():
    """9 states at 0, 1 at 90 degrees: mean cos and sin are 0.9 and 0.1, so cos of the spread is sqrt(0.82)."""
    quarter = turned(90)[:1]
    rows = [coverage(np.zeros((9, 3)), np.tile(np.eye(3), (9, 1, 1))), coverage(np.zeros((1, 3)), quarter)]
    assert orientation_spread_deg(rows) == pytest.approx(np.degrees(np.arccos(np.sqrt(0.82))), abs=0.05)


# ---- the real simulator ------------------------------------------------------------------------------------


class Mistaken(Expert):
    """The expert, taking the first distractor object for the target, and the target for the distractor."""

    def act(self, observation):
        return super().act(replace(observation, privileged=[self.mistake(state) for state in observation.privileged]))

    @staticmethod
    def mistake(state):
        name = next(iter(state.distractors))
        distractors = {**state.distractors, name: state.target}
        return replace(state, target=state.distractors[name], distractors=distractors)


class Opening(Expert):
    """The expert with the gripper forced open at some control steps."""

    def __init__(self, steps: range) -> None:
        super().__init__()
        self.open_at = steps

    def act(self, observation):
        actions = super().act(observation)
        if int(observation.step[0]) in self.open_at:
            actions[..., 6] = 1.0
        return actions


def episode(policy, spec=None, privileged: bool = True) -> dict:
    """The row of one episode; without a spec, of a carrot and a plate 12 cm apart."""
    env = environment("builtin", "none")
    return run_episode(env, ChunkRunner(policy, "test"), spec or simple_spec(), 80, privileged=privileged).row


@pytest.mark.parametrize("scenario", ["ind", "object_reposition", "multi_object_ood"])
def test_the_expert_succeeds(scenario):
    row = episode(Expert(), spec_of(scenario, seed=30, index=1))
    assert row["success_at_end"] and row["stage"] == "success"
    assert row["coverage"]["states"] == 81 and row["coverage"]["outside"] == 0
    assert 10 < len(unpack_cells(row["coverage"]["cells"])) < 81


def test_hold_never_reaches():
    row = episode(HoldPolicy(), privileged=False)
    assert row["stage"] == "never_reached"
    assert len(unpack_cells(row["coverage"]["cells"])) <= 2  # the arm sags by some millimetres
    assert orientation_spread_deg([row["coverage"]]) < 2


def test_an_expert_that_mistakes_the_distractor_takes_the_wrong_object():
    assert episode(Mistaken(), spec_of("multi_object_ood", seed=31))["stage"] == "wrong_object"


def test_a_gripper_forced_open_on_the_way_drops():
    assert episode(Opening(range(20, 80)))["stage"] == "dropped"


def test_a_gripper_forced_open_for_a_moment_recovers():
    assert episode(Opening(range(20, 23)))["stage"] == "success_after_recovery"


def test_a_gripper_that_never_closes_reaches_only():
    assert episode(Opening(range(80)))["stage"] == "reached_not_grasped"


def test_recorded_states_are_those_of_the_simulator():
    env = environment("builtin", "none")
    env.reset(options={"spec": spec_of(seed=30)})
    trace, expert = StateTrace(env), Expert()
    expert.reset([""], [0])
    for _ in range(14):
        env.step(expert.act(observe([env.privileged_state(0)]))[0, 0])
        trace.record()
    states, truth = trace.states(), env.privileged_state(0)
    assert states.position.shape == (15, 3)
    np.testing.assert_allclose(states.position[-1], truth.position, atol=1e-6)
    np.testing.assert_allclose(states.rotation[-1], truth.rotation, atol=1e-5)
    np.testing.assert_allclose(states.target[-1], truth.target.position, atol=1e-6)
    assert states.opening[-1] == pytest.approx(truth.qpos[-2:].mean(), abs=1e-6)
    assert states.grasped[-1] == truth.grasped


def test_each_row_of_a_batch_has_its_own_states():
    """The code for a GPU over two scenes, with different numbers of things: both rows are what they are alone."""
    specs = [spec_of("multi_object_ood", seed=30), spec_of("ind", seed=30, index=1)]
    with emulated_gpu():
        env = EmulatedEnv(num_envs=2, sim_backend="physx_cpu", obs_mode="none")
        env.reset(options={"specs": specs})
        together = StateTrace(env)
        env.step(np.tile(STILL, (2, 1)))
        together.record()
        for row, spec in enumerate(specs):
            single = environment("builtin", "none")
            single.reset(options={"spec": spec})
            alone = StateTrace(single)
            single.step(STILL)
            alone.record()
            for name in ("position", "rotation", "target", "target_extent", "opening", "placed"):
                ours, own = (getattr(trace.states(at), name) for trace, at in ((together, row), (alone, 0)))
                np.testing.assert_allclose(ours, own, atol=1e-3, err_msg=name)


def test_recording_a_step_costs_less_than_a_fifth_of_a_millisecond():
    """The best of 100, so that a busy machine does not decide."""
    env = environment("builtin", "none")
    env.reset(options={"spec": spec_of(seed=30)})
    trace, spent = StateTrace(env), []
    for _ in range(100):
        start = time.perf_counter()
        trace.record()
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.2e-3
