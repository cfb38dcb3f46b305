"""What a policy may return, and what `check_policy` says about good and bad ones."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest

from vla_gen_bench.policies import ActionSpec, Observation
from vla_gen_bench.policies.contract import PolicyError, check_actions, check_policy, check_spec, example_observation
from vla_gen_bench.policies.simple import HoldPolicy, RandomPolicy

LABEL = "policy 'acme' (acme_vla 0.3)"
SPEC = ActionSpec()


def zeros(batch=2, chunk=1):
    return np.zeros((batch, chunk, 7), np.float32)


def message(actions, batch=2, spec=SPEC):
    with pytest.raises(PolicyError) as caught:
        check_actions(LABEL, actions, batch, spec)
    return str(caught.value)


class Scripted:
    """A policy whose `act` is a given function of (self, observation)."""

    action_spec = ActionSpec()

    def __init__(self, act):
        self._act = act
        self.calls = 0

    def reset(self, instructions, seeds):
        self.seeds = seeds

    def act(self, observation):
        self.calls += 1
        return self._act(self, observation)


def results(policy, **options):
    return {result.name: result for result in check_policy(policy, LABEL, **options)}


def test_wrong_dtype_and_shape_are_named_with_what_was_expected():
    text = message(np.zeros((64, 7)), batch=64)
    assert text == f"{LABEL}: act() returned float64 [64, 7]; expected float32 [64, K, 7] with K = 1"


def test_float64_of_the_right_shape_is_refused():
    assert "returned float64 [2, 1, 7]" in message(zeros().astype(np.float64))


def test_another_number_of_episodes_is_refused():
    assert "returned float32 [3, 1, 7]; expected float32 [2, K, 7]" in message(zeros(3))


def test_another_chunk_than_declared_is_refused():
    assert "returned float32 [2, 4, 7]; expected float32 [2, K, 7] with K = 8" in message(
        zeros(2, 4), spec=ActionSpec(chunk=8)
    )


@pytest.mark.parametrize("value", [None, [[0.0] * 7], "act"])
def test_other_types_are_refused_by_name(value):
    assert f"act() returned {type(value).__name__}; expected" in message(value)


class Quitting(np.ndarray):
    def __array_ufunc__(self, *arguments, **options):
        sys.exit(0)


def test_an_array_with_code_of_its_own_is_refused_before_it_runs():
    assert "act() returned test_policy_check.Quitting; expected" in message(zeros().view(Quitting))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_located(value):
    actions = zeros(2, 3)
    actions[1, 2, 5] = value
    text = message(actions, spec=ActionSpec(chunk=3))
    assert f"dyaw = {value:g} (episode 1 of the batch, action 2 of the chunk); expected finite values" in text


@pytest.mark.parametrize(
    ("dim", "value", "limits"),
    [
        (2, 1.5, "dz = 1.5 .*in \\[-1, 1\\] m$"),
        (4, -1.6, "dpitch = -1.6 .*in \\[-1.5708, 1.5708\\] rad$"),
        (6, 1.01, "gripper = 1.01 .* \\[-1, 1\\] 1$"),
    ],
)
def test_values_out_of_range_name_dimension_value_and_limits(dim, value, limits):
    actions = zeros()
    actions[0, 0, dim] = value
    with pytest.raises(PolicyError, match=limits):
        check_actions(LABEL, actions, 2, ActionSpec())


def test_the_limits_themselves_are_allowed():
    # float32(pi / 2) is larger than pi / 2: limits are compared in the actions' own precision
    assert float(np.float32(math.pi / 2)) > math.pi / 2
    spec = ActionSpec()
    for limits in (spec.low, spec.high):
        check_actions(LABEL, np.tile(np.float32(limits), (2, 1, 1)), 2, spec)


def test_a_policy_is_held_to_its_own_narrower_limits():
    spec = ActionSpec(high=(0.05,) * 6 + (1.0,), low=(-0.05,) * 6 + (-1.0,))
    actions = zeros()
    actions[0, 0, 0] = 0.06
    assert "dx = 0.06" in message(actions, spec=spec)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rotation": "axis_angle"}, "action_spec.rotation is 'axis_angle'; the benchmark's is 'euler_XYZ'"),
        ({"frame": "world"}, "action_spec.frame is 'world'"),
        ({"chunk": 0}, "action_spec.chunk is 0; expected an integer >= 1"),
        ({"chunk": 2, "execute": 3}, "action_spec.execute is 3; expected 1 to 2"),
        ({"high": (2.0,) * 7}, "of dx are -1, 2; expected low <= high within [-1, 1]"),
        ({"low": (0.0,) * 6}, "low and high have 6 and 7 entries; expected 7"),
    ],
)
def test_a_spec_the_benchmark_cannot_run_is_refused(change, text):
    policy = HoldPolicy()
    policy.action_spec = dataclasses.replace(ActionSpec(), **change)
    with pytest.raises(PolicyError) as caught:
        check_spec(LABEL, policy)
    assert text in str(caught.value)


def test_an_object_without_the_protocol_is_refused():
    with pytest.raises(PolicyError, match="object has no method reset"):
        check_spec(LABEL, object())


@pytest.mark.parametrize("policy", [HoldPolicy(), HoldPolicy(chunk=4), RandomPolicy(), RandomPolicy(chunk=3)])
def test_built_in_policies_pass_every_check(policy):
    assert {result.status for name, result in results(policy).items() if name != "timing"} == {"ok"}


def test_sampling_from_one_generator_for_all_is_reported_not_refused():
    def act(self, observation):
        rng = np.random.default_rng(self.seeds[0])
        return rng.uniform(-0.1, 0.1, (len(observation), 1, 7)).astype(np.float32)

    found = results(Scripted(act))
    assert found["determinism"].status == "ok"
    assert found["batch independence"].status == "note"
    assert "differ by up to 0." in found["batch independence"].detail


def test_unseeded_sampling_is_reported():
    rng = np.random.default_rng(0)
    found = results(Scripted(lambda self, o: rng.uniform(-0.1, 0.1, (len(o), 1, 7)).astype(np.float32)))
    assert found["determinism"].status == "note"


def test_an_exception_is_a_failed_line_with_its_place_and_ends_the_check():
    lines = check_policy(Scripted(lambda self, o: 1 / 0), LABEL)
    assert [line.status for line in lines] == ["ok", "failed"]
    assert f"{LABEL}: act() raised ZeroDivisionError: division by zero (test_policy_check.py:" in lines[-1].detail


def test_a_policy_that_only_handles_one_episode_fails_at_the_larger_batch():
    found = results(Scripted(lambda self, o: zeros(1)), batch=4)
    assert found["batch of 1"].status == "ok"
    assert found["batch of 4"].status == "failed"


def test_a_policy_that_breaks_at_its_second_call_fails():
    found = results(Scripted(lambda self, o: zeros(len(o), 1 if o.step[0] == 0 else 2)))
    assert found["batch of 1"].status == "failed"


def test_writing_into_the_image_is_reported():
    def act(self, observation):
        observation.image[:] = 0
        return zeros(len(observation))

    assert results(Scripted(act))["observation"].status == "note"


def test_a_privileged_policy_is_not_called_without_a_simulator():
    policy = Scripted(lambda self, o: zeros(len(o)))
    assert results(policy, privileged=True)["batches"].status == "note"
    assert policy.calls == 0


def test_a_privileged_policy_is_called_with_a_given_observation():
    def observe(batch):
        return dataclasses.replace(example_observation(batch), privileged=["view"] * batch)

    policy = Scripted(lambda self, o: zeros(len(o)) if list(o.privileged) == ["view"] * len(o) else None)
    assert results(policy, privileged=True, observe=observe)["batch of 3"].status == "ok"


def test_example_rows_do_not_depend_on_the_batch():
    small, large = example_observation(2), example_observation(5)
    assert np.array_equal(small.image, large.image[:2])
    assert small.instruction == large.instruction[:2]
    assert large.image.dtype == np.uint8 and large.image.shape == (5, 240, 320, 3)
    assert len({row.tobytes() for row in large.image}) == 5


def test_select_keeps_rows_together():
    whole = Observation(
        np.arange(3 * 12, dtype=np.uint8).reshape(3, 2, 2, 3), ("a", "b", "c"), np.array([5, 5, 5]), ["x", "y", "z"]
    )
    part = whole.select([2, 0])
    assert part.instruction == ("c", "a") and part.privileged == ["z", "x"]
    assert np.array_equal(part.image, whole.image[[2, 0]])


def test_random_stays_within_its_documented_ranges_and_fills_them():
    policy = RandomPolicy(translation=0.02, rotation=0.05, chunk=500)
    policy.reset(["put a on b"] * 2, [0, 1])
    actions = policy.act(example_observation(2))
    check_actions(LABEL, actions, 2, policy.action_spec)
    assert np.abs(actions).max(axis=(0, 1)) == pytest.approx([0.02] * 3 + [0.05] * 3 + [1.0], rel=0.02)


def test_protocol_imports_neither_torch_nor_the_simulator():
    code = (
        "import sys, vla_gen_bench.policies.registry, vla_gen_bench.policies.chunking, vla_gen_bench.policies.simple\n"
        "assert not {'torch', 'mani_skill', 'sapien', 'gymnasium'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
