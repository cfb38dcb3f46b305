"""Converters: each against values worked by hand, composed in YAML, and wrong uses named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vla_gen_bench.assets.world import get_world
from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.card import Card, load_card
from vla_gen_bench.policies.chunking import ChunkRunner
from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.converters import Adapted, needs_with, parse_adapter
from vla_gen_bench.policies.converters.compose import CONVERTERS
from vla_gen_bench.policies.registry import load_policy
from vla_gen_bench.policies.sensing import sensors_of
from vla_gen_bench.protocol import ActionSpec, Needs

STATE = Needs(state=True)
NOTHING = example_observation(1)


class Says:
    """A policy that returns what it is told to, one array per call."""

    def __init__(self, *answers, chunk: int = 1, execute: int | None = None) -> None:
        self.answers, self.seen = list(answers), []
        self.action_spec = ActionSpec(chunk=chunk, execute=execute)

    def reset(self, instructions, seeds):
        self.at = 0

    def act(self, observation):
        self.seen.append(observation)
        self.at += 1
        return self.answers[min(self.at, len(self.answers)) - 1]


def convert(entries, actions, observation=NOTHING, execute=1):
    """Applies converters to actions [K, n] of one episode."""
    actions = np.array(actions, np.float64)[None]
    for converter in parse_adapter(entries, "adapter"):
        converter.reset(1, execute)
        actions = converter.convert(actions, observation)
    return actions[0]


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("axis_angle", [0, 0, np.pi / 2]),
        ("quaternion_wxyz", [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]),
        ("quaternion_xyzw", [0, 0, np.sqrt(0.5), np.sqrt(0.5)]),
        ("quaternion_wxyz", [-np.sqrt(0.5), 0, 0, -np.sqrt(0.5)]),  # the antipode is the same rotation
        ("rot6d", [0, 1, 0, -1, 0, 0]),  # columns x -> y, y -> -x
        ("rot6d", [0, 2, 0, -1, 5, 0]),  # neither of unit length nor orthogonal: Gram-Schmidt
        ("euler_xyz", [0, 0, np.pi / 2]),
        ("euler_XYZ", [0, 0, np.pi / 2]),
    ],
)
def test_a_quarter_turn_about_z_in_every_notation(given, values):
    [action] = convert([{"rotation": {"given": given}}], [[0.01, 0.02, 0.03, *values, 1]])
    assert np.allclose(action, [0.01, 0.02, 0.03, 0, 0, np.pi / 2, 1], atol=1e-9)


@pytest.mark.parametrize("given", ["axis_angle", "quaternion_wxyz", "quaternion_xyzw", "rot6d", "euler_xyz"])
def test_notations_agree_on_any_rotation(given):
    rotation = Rotation.from_euler("XYZ", [0.3, -0.4, 0.5])
    written = {
        "axis_angle": rotation.as_rotvec(), "quaternion_xyzw": rotation.as_quat(),
        "quaternion_wxyz": np.roll(rotation.as_quat(), 1), "euler_xyz": rotation.as_euler("xyz"),
        "rot6d": rotation.as_matrix()[:, :2].T.reshape(-1),
    }  # fmt: skip
    [action] = convert([{"rotation": {"given": given}}], [[0, 0, 0, *written[given], 1]])
    assert np.allclose(action[3:6], [0.3, -0.4, 0.5])


def test_axis_angle_is_not_euler():
    [action] = convert([{"rotation": {"given": "axis_angle"}}], [[0, 0, 0, 0.3, -0.4, 0.5, 1]])
    assert not np.allclose(action[3:6], [0.3, -0.4, 0.5], atol=0.01)


def placed(x: float, opening: float = 1.0):
    """An observation of one arm at (x, 0, 0.15), straight down."""
    observation = example_observation(1, needs=STATE)
    state = observation.state.copy()
    state[0, 0], state[0, 16] = x, opening
    return replace(observation, state=state)


DOWN = [np.sqrt(0.5), 0, np.sqrt(0.5), 0]  # wxyz of 90 degrees about y


def test_absolute_poses_become_deltas_of_the_target():
    # Measured x = 0.30. Poses 0.32 and 0.33: deltas 0.02 and 0.01. One step is carried out, so the target is 0.32,
    # wherever the arm has got to (0.31); the next chunk 0.35, 0.36 gives 0.03 and 0.01.
    policy = Says(
        np.array([[[0.32, 0, 0.15, *DOWN, 1], [0.33, 0, 0.15, *DOWN, 1]]]),
        np.array([[[0.35, 0, 0.15, *DOWN, 1], [0.36, 0, 0.15, *DOWN, 1]]]),
        chunk=2,
        execute=1,
    )
    adapted = Adapted(policy, parse_adapter([{"absolute": {"given": "quaternion_wxyz"}}], "adapter"))
    adapted.reset(["put"], [0])
    first, second = adapted.act(placed(0.30)), adapted.act(placed(0.31))
    assert np.allclose(first[0, :, :3], [[0.02, 0, 0], [0.01, 0, 0]], atol=1e-6)
    assert np.allclose(second[0, :, :3], [[0.03, 0, 0], [0.01, 0, 0]], atol=1e-6)
    assert np.allclose(first[0, :, 3:6], 0, atol=1e-6) and first.dtype == np.float32


def test_absolute_rotations_multiply_from_the_left():
    turned = Rotation.from_euler("z", 0.2) * Rotation.from_euler("y", np.pi / 2)  # about the base's z axis
    quaternion = np.roll(turned.as_quat(), 1)
    [action] = convert([{"absolute": {"given": "quaternion_wxyz"}}], [[0.3, 0, 0.15, *quaternion, 1]], placed(0.3))
    assert np.allclose(action[:6], [0, 0, 0, 0, 0, 0.2], atol=1e-6)


def test_absolute_poses_may_be_relative_to_straight_down():
    entries = [{"absolute": {"given": "euler_xyz", "from_down": True}}]
    [action] = convert(entries, [[0.3, 0, 0.15, 0, 0, 0.2, 1]], placed(0.3))
    assert np.allclose(action[:6], [0, 0, 0, 0, 0, 0.2], atol=1e-6)


def test_deltas_from_the_measured_pose_follow_the_target():
    # Target 0.30 (measured at the start). 0.05 from the measured 0.30 -> target 0.35. The arm is then at 0.33:
    # 0.05 from there is 0.38, 0.03 beyond the target.
    policy = Says(np.array([[[0.05, 0, 0, 0, 0, 0, 1.0]]]))
    adapted = Adapted(policy, parse_adapter([{"deltas": {"from_pose": "measured"}}], "adapter"))
    adapted.reset(["put"], [0])
    assert np.allclose(adapted.act(placed(0.30))[0, 0, 0], 0.05, atol=1e-6)
    assert np.allclose(adapted.act(placed(0.33))[0, 0, 0], 0.03, atol=1e-6)
    adapted.reset(["put"], [0])  # a new episode begins at its own measured pose
    assert np.allclose(adapted.act(placed(0.20))[0, 0, 0], 0.05, atol=1e-6)


@pytest.mark.parametrize(("chunk", "moves"), [("steps", [0.02, 0.02]), ("start", [0.02, 0.0])])
def test_deltas_within_a_chunk(chunk, moves):
    actions = [[0.02, 0, 0, 0, 0, 0, 1], [0.02, 0, 0, 0, 0, 0, 1]]
    converted = convert([{"deltas": {"chunk": chunk}}], actions, placed(0.3), execute=2)
    assert np.allclose(converted[:, 0], moves, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said", "carried_out"),
    [
        ({}, [0, 0.25, 1, 1.2], [-1, -0.5, 1, 1]),  # 0 closed .. 1 open, cut beyond
        ({"closed": 1, "open": 0}, [0, 1], [1, -1]),  # 1 = close
        ({"closed": -1, "open": 1}, [-1, 0.5], [-1, 0.5]),
        ({"closed": 0, "open": 0.08}, [0.02, 0.08], [-0.5, 1]),  # a width in metres
        ({"binarise": True}, [0.49, 0.5, 0.51], [-1, -1, 1]),  # RL4VLA: open above 0.5
        ({"binarise": True, "threshold": 0.9}, [0.8, 0.95], [-1, 1]),
        # A change of mind is carried out for two more steps before the next one counts.
        ({"sticky": 2}, [1, 0, 1, 1, 1], [1, -1, -1, -1, 1]),
        # Relative: only a large change counts, here below 1/4 (close) and above 3/4 (open).
        ({"relative": True}, [0.5, 0.1, 0.5, 0.6, 0.9], [1, -1, -1, -1, 1]),
    ],
)
def test_gripper_conventions(arguments, said, carried_out):
    actions = [[0] * 6 + [value] for value in said]
    assert np.allclose(convert([{"gripper": arguments}], actions, execute=len(said))[:, 6], carried_out)


def test_a_sticky_gripper_remembers_over_calls_and_forgets_over_episodes():
    calls = [np.array([[[0, 0, 0, 0, 0, 0, value]]]) for value in (0.0, 1.0, 1.0)]
    adapted = Adapted(Says(*calls), parse_adapter([{"gripper": {"sticky": 1}}], "adapter"))
    for _ in range(2):
        adapted.reset(["put"], [0])
        assert [float(adapted.act(NOTHING)[0, 0, 6]) for _ in calls] == [-1, -1, 1]


def test_unnormalise_with_quantiles_and_with_mean_and_spread():
    limits = {"low": [-1, 0, 0, 0, 0, 0, 0], "high": [1, 0.1, 1, 1, 1, 1, 1]}
    [action] = convert([{"unnormalise": limits}], [[0.5, -1, 1, 0, 0, 0, 0.7]])
    assert np.allclose(action, [0.5, 0, 1, 0.5, 0.5, 0.5, 0.7])  # 0.5 * (x + 1) * (high - low) + low; gripper as it is
    moments = {"mode": "mean_std", "mean": [1] * 7, "std": [2] * 7, "mask": [True] * 7}
    [action] = convert([{"unnormalise": moments}], [[0, 1, -1, 0, 0, 0, 0.5]])
    assert np.allclose(action, [1, 3, -1, 1, 1, 1, 2])


@pytest.mark.parametrize("shape", ["openvla", "config", "lerobot"])
def test_statistics_come_from_the_file_beside_the_card(tmp_path, shape):
    action = {"q01": [-2] * 7, "q99": [2] * 7, "min": [-9] * 7, "max": [9] * 7, "mask": [True] * 6 + [False]}
    named = {"bridge_orig": {"action": action}}
    data = {"openvla": named, "config": {"norm_stats": named}, "lerobot": {"action": action}}[shape]
    (tmp_path / "stats.json").write_text(json.dumps(data))
    [converter] = parse_adapter([{"unnormalise": {"file": "stats.json"}}], "adapter", tmp_path)
    assert np.allclose(converter.convert(np.full((1, 1, 7), 0.5), NOTHING), [[[1] * 6 + [0.5]]])
    [converter] = parse_adapter([{"unnormalise": {"file": "stats.json", "mode": "min_max"}}], "adapter", tmp_path)
    assert np.allclose(converter.convert(np.full((1, 1, 7), 0.5), NOTHING), [[[4.5] * 6 + [0.5]]])


def test_select_and_scale():
    entries = [{"select": {"dims": [0, 1, 2, 3, 4, 5, 7]}}, {"scale": {"translation": 0.5, "rotation": 2}}]
    assert np.allclose(convert(entries, [[1, 2, 3, 4, 5, 6, 7, 8]]), [[0.5, 1, 1.5, 8, 10, 12, 8]])


def chunks(*firsts: float) -> list[np.ndarray]:
    """Chunks of three actions whose dx are first, first + 1, first + 2."""
    return [np.array([[[first + k, 0, 0, 0, 0, 0, 1] for k in range(3)]]) for first in firsts]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"method": "newest"}, [0, 10, 20, 30]),
        # Step 1: 0 + 1 = 1 of the first chunk and 10; step 2: 2, 11, 20; step 3: 12, 21 and 30.
        ({"method": "average"}, [0, 5.5, 11, 21]),
        # Weights 1, 1/2, 1/4, oldest first: (1 + 5) / 1.5 = 4; 12.5 / 1.75 = 50/7; 30 / 1.75 = 120/7.
        ({"method": "average", "decay": float(np.log(2))}, [0, 4, 50 / 7, 120 / 7]),
    ],
)
def test_ensembles_ask_at_every_step(arguments, expected):
    policy = Says(*chunks(0, 10, 20, 30), chunk=3)
    entries = [{"ensemble": arguments}, {"scale": {"translation": 0.01}}]
    adapted = Adapted(policy, parse_adapter(entries, "adapter"))
    runner = ChunkRunner(adapted, "policy 'says'")
    runner.reset(["put"], [0])
    said = [float(runner.next_actions(NOTHING)[0, 0]) for _ in expected]
    assert adapted.action_spec == ActionSpec(chunk=1) and len(policy.seen) == len(expected)
    assert np.allclose(said, 0.01 * np.array(expected), atol=1e-6)


def test_images_are_resized_cropped_and_compressed_on_every_camera():
    policy = Says(np.zeros((1, 1, 7)))
    entries = [{"resize": {"height": 32, "width": 48}}, {"crop": {"share": 0.25}}, {"jpeg": {"quality": 40}}]
    adapted = Adapted(policy, parse_adapter(entries, "adapter"))
    adapted.reset(["put"], [0])
    observation = example_observation(1, needs=Needs(cameras=("external", "wrist"), history=2))
    adapted.act(observation)
    [seen] = policy.seen
    assert {name: image.shape for name, image in seen.images.items()} == dict.fromkeys(seen.images, (1, 16, 24, 3))
    assert list(seen.images) == ["external", "wrist"] and seen.history["wrist"].shape == (1, 2, 16, 24, 3)
    assert observation.image.shape == (1, 240, 320, 3)  # the benchmark's own stays


def test_padding_keeps_proportions_as_openpi():
    # 240 x 320 into 224 x 224: 320 / 224 = 1.4286, so 168 rows, 28 black ones above and below.
    [converter] = parse_adapter([{"resize": {"height": 224, "width": 224, "pad": True}}], "adapter")
    image = converter.change(np.full((240, 320, 3), 200, np.uint8))
    assert (image[:28] == 0).all() and (image[28:196] == 200).all() and (image[196:] == 0).all()


def test_jpeg_changes_pixels_a_little():
    [converter] = parse_adapter([{"jpeg": {"quality": 95}}], "adapter")
    image = example_observation(1).image[0]
    changed = converter.change(image)
    assert 0 < np.abs(changed.astype(int) - image).mean() < 3


class Tensor:
    """Quacks as a torch tensor on a GPU that requires a gradient."""

    def __init__(self, values):
        import torch

        self.real = torch.tensor(values, dtype=torch.bfloat16, requires_grad=True)

    def __getattr__(self, name):
        return getattr(self.real, name)


@pytest.mark.parametrize("kind", [np.float64, np.float16, list, Tensor])
def test_numbers_of_other_types_are_taken(kind):
    values = [[[0.5, 0, 0, 0, 0, 0, 1]]]
    answer = values if kind is list else kind(values) if kind is Tensor else np.array(values, kind)
    adapted = Adapted(Says(answer), [])
    adapted.reset(["put"], [0])
    actions = adapted.act(NOTHING)
    assert actions.dtype == np.float32 and actions[0, 0, 0] == 0.5


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"grippr": {}}], r"adapter\[0\]: unknown converter 'grippr'; did you mean 'gripper'"),
        (
            ["jpeg", {"gripper": {"opened": 1}}],
            r"adapter\[1\].gripper.opened: unknown key 'opened'; did you mean 'open'",
        ),
        ([{"gripper": {"open": 1, "closed": 1}}], r"adapter\[0\].gripper:.*the same number"),
        ([{"rotation": {"given": "euler"}}], r"adapter\[0\].rotation: given"),
        ([{"unnormalise": {}}], r"needs low and high, or a file"),
        ([{"unnormalise": {"file": "nowhere.json"}}], r"nowhere.json"),
        ([{"jpeg": {}, "gripper": {}}], r"adapter\[0\]: expected one converter"),
        ("gripper", r"adapter: is str; expected a list"),
        ([{"jpeg": {"quality": 101}}], r"adapter\[0\].jpeg: quality"),
    ],
)
def test_a_wrong_adapter_is_named(entries, message):
    with pytest.raises(UserError, match=message):
        parse_adapter(entries, "adapter")


def test_a_file_without_the_statistics_is_named(tmp_path):
    (tmp_path / "stats.json").write_text(json.dumps({"bridge": {"action": {"mean": [0], "std": [1]}}}))
    with pytest.raises(UserError, match="no 'bridge_orig' in it; did you mean 'bridge'"):
        parse_adapter([{"unnormalise": {"file": "stats.json", "key": "bridge_orig"}}], "adapter", tmp_path)
    with pytest.raises(UserError, match="no 'q01' in it for mode q01_q99; it has mean, std"):
        parse_adapter([{"unnormalise": {"file": "stats.json"}}], "adapter", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "stats.json: input should be an object"),
        ({"norm_stats": 3}, "stats.json: norm_stats: input should be an object"),
        ({"b": 3}, "stats.json: b: input should be an object"),
        ({"b": {"action": []}}, "stats.json: action: input should be an object"),
        ({"b": {"action": {"q01": ["0"] * 7, "q99": [1] * 7}}}, "stats.json: q01: 0: input should be a valid number"),
        ({"b": {"action": {"q01": [0] * 7, "q99": [1] * 6}}}, "stats.json: low and high and mask differ in length"),
        (
            {"b": {"action": {"q01": [0] * 7, "q99": [1] * 7, "mask": [2] * 7}}},
            "mask: 0: input should be a valid boolean",
        ),
    ],
)
def test_statistics_of_another_shape_are_named(tmp_path, content, message):
    (tmp_path / "stats.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        parse_adapter([{"unnormalise": {"file": "stats.json"}}], "adapter", tmp_path)


CARD = """
name: acme
title: ACME
summary: Answers in axis-angle with a gripper that says 0 for open
factory: acme_says:Policy
adapter:
  - rotation: {given: axis_angle}
  - gripper: {closed: 1, open: 0, binarise: true}
"""


def test_a_card_composes_converters(tmp_path):
    (tmp_path / "card.yaml").write_text(CARD)
    (tmp_path / "acme_says.py").write_text(
        "import numpy as np\nfrom vla_gen_bench.policies import ActionSpec\n"
        "class Policy:\n    action_spec = ActionSpec()\n    def reset(self, instructions, seeds): pass\n"
        "    def act(self, observation): return [[[0, 0, 0, 0, 0, 0.1, 0.2]]] * len(observation)\n"
    )
    policy = load_policy(str(tmp_path))
    policy.reset(["put"], [0])
    assert np.allclose(policy.act(NOTHING), [[[0, 0, 0, 0, 0, 0.1, 1]]])
    option = load_policy(str(tmp_path), adapter=[{"gripper": {}}])  # the user's goes before the card's
    option.reset(["put"], [0])
    assert np.allclose(option.act(NOTHING)[0, 0, 6], -0.6)
    card = load_card(tmp_path / "card.yaml")
    assert sensors_of(card, get_world("builtin")) == Needs()
    assert sensors_of(card, get_world("builtin"), options={"adapter": [{"deltas": {}}]}) == STATE


def test_a_converter_that_reads_the_state_makes_it_needed():
    assert needs_with(Needs(), parse_adapter([{"deltas": {}}], "adapter")) == STATE
    assert needs_with(Needs(), parse_adapter([{"gripper": {}}], "adapter")) == Needs()


STATELESS = [
    {"resize": {"height": 8, "width": 8}}, {"crop": {"share": 0.9}}, "jpeg", "cast", {"select": {"dims": [*range(7)]}},
    {"scale": {"translation": 0.5}}, {"unnormalise": {"low": [0] * 7, "high": [1] * 7}},
    {"rotation": {"given": "axis_angle"}}, {"gripper": {}}, {"gripper": {"binarise": True}},
    {"ensemble": {"method": "newest"}},
]  # fmt: skip
STATEFUL = [
    {"gripper": {"sticky": 3}}, {"gripper": {"relative": True}}, {"ensemble": {"method": "average"}},
    {"absolute": {"given": "euler_XYZ"}}, "deltas",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Gimbal lock")  # the numbers are no real poses
@pytest.mark.parametrize("entry", [*STATELESS, *STATEFUL], ids=str)
def test_a_converter_that_depends_on_earlier_calls_is_stateful(entry):
    """Nothing else may be shared by the conversations of `vgb serve`."""
    [converter] = parse_adapter([entry], "adapter")
    observation = example_observation(1, needs=STATE)
    actions = [np.full((1, 2, 7), value) for value in (0.0, 1.0, 0.6)]

    def last(*calls):
        converter.reset(1, 1)
        return [converter.convert(call, observation) for call in calls][-1]

    depends = not np.allclose(last(actions[0], actions[2]), last(actions[1], actions[2]))
    assert converter.stateful == depends == (entry in STATEFUL)
    policy = Says(np.zeros((1, 1, 7)))
    assert not Adapted(policy, []).memoryless
    policy.memoryless = True
    assert Adapted(policy, [converter]).memoryless != depends


def test_every_converter_is_judged():
    names = {entry if isinstance(entry, str) else next(iter(entry)) for entry in [*STATELESS, *STATEFUL]}
    assert names == {*CONVERTERS}


def test_a_card_without_adapter_keeps_its_digest():
    plain = {"name": "acme", "title": "ACME", "summary": "One line", "factory": "acme:Policy"}
    assert Card(**plain).canonical() == Card(**plain, adapter=()).canonical()
    assert "adapter" not in Card(**plain).canonical()


def test_wrong_sizes_name_the_converter():
    with pytest.raises(ValueError, match="rotation: actions have 7 numbers; rot6d makes it 10"):
        convert([{"rotation": {"given": "rot6d"}}], [[0] * 7])
    with pytest.raises(ValueError, match="unnormalise: statistics of 3 numbers, actions have 7"):
        convert([{"unnormalise": {"low": [0, 0, 0], "high": [1, 1, 1]}}], [[0] * 7])
