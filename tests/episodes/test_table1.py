"""The reference's episode ids: golden decodings worked by hand, and every recorded one where the folder is there."""

import json
import math
import os
from pathlib import Path

import pytest

from vla_gen_bench.episodes.spec import EpisodeSpec
from vla_gen_bench.episodes.suite import draw, load_suite
from vla_gen_bench.episodes.table1 import decode, ids, num_episodes, reference, triples
from vla_gen_bench.episodes.table1_envs import ENVS, PREFIX
from vla_gen_bench.errors import UserError

WORLD = "rl4vla"
ROOT = Path(__file__).resolve().parents[2]
CASES = Path(os.environ.get("VGB_SHARED", ROOT.parent / "shared")) / "parity" / "env" / "cases"
INITIAL_QPOS = (-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398)


def row(env: str, obj_set: str) -> dict:
    return reference(PREFIX + env, obj_set)


@pytest.mark.parametrize(
    "env,train,test",
    [  # fact sheet 3.3; for example MultiPlate test: 16 * 16 * 15 * 21 * 2104 * 4
        ("Main-v3", 802_816, 141_120),
        ("VisionImage-v1", 802_816, 250_880),
        ("VisionTexture03-v1", 802_816, 12_845_056),
        ("VisionTexture05-v1", 802_816, 12_845_056),
        ("VisionWhole03-v1", 802_816, 12_845_056),
        ("VisionWhole05-v1", 802_816, 12_845_056),
        ("Carrot-v1", 802_816, 451_584),
        ("Instruct-v1", 802_816, 12_845_056),
        ("Plate-v1", 802_816, 12_845_056),
        ("MultiCarrot-v1", 32_317_440, 9_695_232),
        ("MultiPlate-v1", 45_244_416, 678_666_240),
        ("Position-v1", 802_816, 643_072),
        ("EEPose-v1", 802_816, 11_540_480_000),
        ("PositionChangeTo-v1", 2_154_496, 2_154_496),
    ],
)
def test_episode_counts(env, train, test):
    assert (num_episodes(row(env, "train")), num_episodes(row(env, "test"))) == (train, test)


def test_triples_are_decided_by_rounding():
    assert len(triples("object", "float64")) == len(triples("receptacle", "float64")) == 2104
    assert len(triples("object", "exact")) == len(triples("receptacle", "exact")) == 1896


def test_carrot_test_83515():
    """83515 = ((1 * 16 + 10) * 784 + 494) * 4 + 3: object 16 + 1, table 10, pair 494, yaw 135 degrees.

    Pairs per column of the grid: 152, 128, 112, 112, ...: 152 + 128 + 112 = 392, so column 3, pair 102 of it.
    Per point there 23, 18, 15, 15, 18, 23: 23 + 18 + 15 + 15 + 18 = 89, so its point 5 is the target, partner 13.
    Column 0 gives 6 partners, column 1 four, column 2 three: partner 13 is the first of column 3, point 0.
    """
    assert ((1 * 16 + 10) * 784 + 494) * 4 + 3 == 83515
    spec = decode(row("Carrot-v1", "test"), 83515, WORLD)
    assert (spec.target.id, spec.table, spec.instruction) == ("018_pepper_1", "011_table_5", "put pepper on plate")
    assert spec.target.position == pytest.approx((-0.145, 0.075, 0.95), abs=1e-12)
    assert spec.receptacle.position == pytest.approx((-0.145, -0.075, 0.95), abs=1e-12)
    assert spec.target.quaternion == pytest.approx((math.cos(math.pi * 3 / 8), 0, 0, math.sin(math.pi * 3 / 8)))
    assert spec.receptacle.quaternion == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "env,obj_set,digits,expected",
    [  # digits: (value, size) most significant first
        ("Main-v3", "test", [(8, 9), (4, 5), (0, 784), (2, 4)], {"object": 24, "table": 20, "yaw": 2}),
        ("VisionImage-v1", "test", [(3, 16), (0, 5), (783, 784), (0, 4)], {"object": 3, "table": 16, "position": 783}),
        ("VisionTexture03-v1", "test", [(3, 16), (7, 16), (15, 16), (1, 784), (0, 4)], {"extra": 8, "table": 15}),
        ("VisionWhole05-v1", "test", [(3, 16), (15, 16), (0, 16), (1, 784), (0, 4)], {"extra": 16, "table": 0}),
        ("Instruct-v1", "test", [(2, 16), (12, 16), (1, 16), (5, 784), (0, 4)], {"object": 2, "extra": 13}),
        ("Plate-v1", "test", [(2, 16), (9, 16), (1, 16), (5, 784), (0, 4)], {"receptacle": 10, "table": 1}),
        # other = (15 + 0 + 1) % 16 = 0
        ("MultiCarrot-v1", "train", [(15, 16), (0, 15), (1, 16), (5, 2104), (0, 4)], {"object": 15, "other": 0}),
        # other = (18 + 1 + 1) % 9 + 16 = 18: the target itself
        ("MultiCarrot-v1", "test", [(2, 9), (1, 8), (1, 16), (5, 2104), (0, 4)], {"object": 18, "other": 18}),
        # other = (0 + 6 + 1) % 17 = 7
        ("MultiPlate-v1", "train", [(4, 16), (6, 16), (20, 21), (5, 2104), (0, 4)], {"receptacle": 0, "other": 7}),
        # other = (12 + 3 + 1) % 16 + 1 = 1
        ("MultiPlate-v1", "test", [(4, 16), (12, 16), (3, 15), (0, 21), (5, 2104), (0, 4)], {"other": 1, "table": 0}),
        ("Position-v1", "test", [(4, 16), (0, 16), (627, 628), (3, 4)], {"position": 1411, "yaw": 7}),
        ("EEPose-v1", "test", [(15, 16), (14374, 14375), (2, 16), (5, 784), (0, 4)], {"object": 15, "extra": 14375}),
        ("PositionChangeTo-v1", "test", [(15, 16), (2, 16), (2103, 2104), (1, 4)], {"position": 2103, "yaw": 1}),
    ],
)
def test_mixed_radix(env, obj_set, digits, expected):
    episode_id = 0
    for value, size in digits:
        episode_id = episode_id * size + value
    found = ids(row(env, obj_set), episode_id)
    assert {key: found[key] for key in expected} == expected
    assert ids(row(env, obj_set), episode_id + num_episodes(row(env, obj_set))) == found  # taken modulo the count


def test_first_triple():
    """Target corner (0, 0), receptacle (0, 3) cells. Third: (0, 5) is exactly 5 cells off, (1, 5) within 7 cm of the
    receptacle (sqrt 5 cells = 6.7 cm); (2, 5) is the first: sqrt 29 and sqrt 8 cells."""
    spec = decode(row("MultiCarrot-v1", "train"), 0, WORLD)
    assert spec.target.position == pytest.approx((-0.235, -0.075, 0.95), abs=1e-12)
    assert spec.receptacle.position == pytest.approx((-0.235, 0.015, 0.92), abs=1e-12)
    assert spec.distractor_objects[0].position == pytest.approx((-0.175, 0.075, 1.0), abs=1e-12)
    assert spec.distractor_objects[0].id == "002_kitchen shovel_1"  # (0 + 0 + 1) % 16 = 1


def test_self_distractor_leaves_one_object_at_the_third_place():
    with_bug = row("MultiCarrot-v1", "test")
    episode_id = (((2 * 8 + 1) * 16 + 6) * 2104) * 4
    spec = decode(with_bug, episode_id, WORLD)
    assert spec.distractor_objects == () and spec.target.id == "019_nonstop can_1"
    assert spec.target.position == pytest.approx((-0.175, 0.075, 1.0), abs=1e-12)
    mended = decode({**with_bug, "self_distractor": False}, episode_id, WORLD)
    assert mended.distractor_objects[0].id == "021_baguette_1"  # (2 + 1 + 1) % 9 + 16 = 20
    assert mended.target.position[2] == 0.95


def test_self_distractor_is_one_in_eight():
    test = row("MultiCarrot-v1", "test")
    one_per_pair = [((k * 8 + e) * 16) * 2104 * 4 for k in range(9) for e in range(8)]
    twins = [id for id in one_per_pair if not decode(test, id, WORLD).distractor_objects]
    assert len(twins) == 9  # of 72


def test_teleport_only_in_test_and_all():
    assert decode(row("PositionChangeTo-v1", "train"), 0, WORLD).effects == ()
    (effect,) = decode(row("PositionChangeTo-v1", "test"), 0, WORLD).effects
    assert effect.params["keep_velocity"] is True and effect.params["step"] == 5
    assert effect.params["position"] == pytest.approx([-0.175, 0.075, 1.0], abs=1e-12)


def test_texture_rows():
    (effect,) = decode(row("VisionTexture03-v1", "test"), 0, WORLD).effects
    assert (effect.name, effect.params) == ("texture", {"texture": "002", "alpha": 0.3})
    (effect,) = decode(row("VisionWhole05-v1", "test"), 0, WORLD).effects
    assert (effect.name, effect.params) == ("noise", {"texture": "002", "alpha": 0.5})
    assert decode(row("VisionTexture03-v1", "train"), 0, WORLD).effects == ()  # texture 0 has mix 0


def test_zero_offset_is_in_the_reference_list_once():
    """The list is its own mirror image: its middle, number 7,188 of 14,375, is the zero offset."""
    test = row("EEPose-v1", "test")
    middle = 7187 * 16 * 784 * 4
    assert decode(test, middle, WORLD).joint_offset == (0,) * 6
    mended = {**test, "zero_offset": False}
    assert num_episodes(mended) == num_episodes(test) // 14375 * 14374
    assert any(decode(mended, middle, WORLD).joint_offset)


def test_deviations_change_the_counts():
    multi = row("MultiPlate-v1", "test")
    assert num_episodes({**multi, "tables": "train"}) * 21 == num_episodes(multi) * 16
    assert num_episodes({**multi, "distance_test": "exact"}) * 2104 == num_episodes(multi) * 1896


def test_table1_states_every_deviation_as_the_reference_has_it():
    for scenario in load_suite("table1").scenarios.values():
        stated = scenario.reference
        assert stated == reference(stated["env"], stated["obj_set"])


def test_table1_has_the_sixteen_rows():
    rows = {(it.reference["env"], it.reference["obj_set"]) for it in load_suite("table1").scenarios.values()}
    assert len(rows) == 16
    assert {env for env, _ in rows} == {PREFIX + env for env in ENVS} - {PREFIX + "Main-v3"}
    assert (PREFIX + "Carrot-v1", "train") in rows


def test_drawn_ids_spread_over_the_whole_range():
    """The reference's own sampler never leaves ids below 1e9 in EEPose, that is objects 0 and 1 (9.21: ids < 1e9)."""
    scenario = load_suite("table1").scenarios["unseen_robot_pose"]
    specs = [draw(scenario, WORLD, 0, index) for index in range(200)]
    assert len({spec.target.id for spec in specs}) == 16
    assert draw(scenario, WORLD, 0, 7) == specs[7]


def test_multi_receptacle_rows_use_unseen_tables():
    scenario = load_suite("table1").scenarios["disturb_receptacle"]
    assert len({draw(scenario, WORLD, 0, index).table for index in range(300)}) == 21


def test_unknown_environment():
    with pytest.raises(UserError, match="unknown reference environment.*did you mean 'PutOnPlateInScene25Carrot-v1'"):
        reference("PutOnPlateInScene25Carrots-v1", "test")


def test_all_recorded_decodings():
    files = sorted(CASES.glob("*/decode.json"))
    if not files:
        pytest.skip(f"no recorded decodings in {CASES}; set VGB_SHARED to the shared folder")
    for file in files:
        head = json.loads(file.read_text())
        for it in head["rows"]:
            check_recorded(head, it)
    assert len(files) == len(ENVS)


def check_recorded(head: dict, it: dict) -> None:
    where, found = reference(head["env_id"], it["obj_set"]), it["ids"]
    assert num_episodes(where) == head["num_episodes"][it["obj_set"]]
    at, spec = ids(where, it["episode_id"]), decode(where, it["episode_id"], WORLD)
    assert [at["object"], at["receptacle"], at["table"], at["position"], at["yaw"]] == [
        found[key] for key in ("carrot", "plate", "overlay", "pos", "quat")
    ]
    assert at.get("extra", at.get("other")) == found["extra"]
    assert spec.instruction == it["instruction"]
    assert spec.target.quaternion == pytest.approx(it["spawn_quat"][0], abs=1e-12)
    assert spec.receptacle.quaternion == pytest.approx(it["spawn_quat"][1], abs=1e-12)
    teleports_not = "PositionChangeTo" in head["env_id"] and it["obj_set"] == "train"
    expected = it["spawn_xyz"][:2] if teleports_not else it["spawn_xyz"]
    for position, wanted in zip(positions(spec, expected), expected, strict=True):
        assert position == pytest.approx(wanted, abs=1e-12)
    if at.get("other") == at["object"] and head["env_id"].endswith("MultiCarrot-v1"):
        assert spec.distractor_objects == () and spec.target.position == pytest.approx(expected[2], abs=1e-12)
    if "init_qpos" in it:
        qpos = [start + offset for start, offset in zip(INITIAL_QPOS, spec.joint_offset, strict=True)]
        assert qpos == pytest.approx(it["init_qpos"][:6], abs=1e-12)


def positions(spec: EpisodeSpec, expected: list) -> list:
    """Returns target, receptacle, third as recorded; a self-distractor takes the third place, the first stays empty."""
    others = [*spec.distractor_objects, *spec.distractor_receptacles]
    third = [it.position for it in others] + [it.params["position"] for it in spec.effects if it.name == "reposition"]
    if spec.target.position == pytest.approx(expected[-1], abs=1e-12):
        return [expected[0], spec.receptacle.position, spec.target.position]
    return [spec.target.position, spec.receptacle.position, *third]
