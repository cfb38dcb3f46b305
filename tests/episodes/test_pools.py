"""Streams, geometry and drawing: the promises of `vla_gen_bench.episodes`."""

import hashlib
import math
from collections import Counter
from importlib.metadata import EntryPoint

import pytest

from vla_gen_bench.episodes import effects as effects_module
from vla_gen_bench.episodes.axes import TEMPLATES, reference_joint_offsets, unseen_joint_offsets
from vla_gen_bench.episodes.catalog import Body, Catalog, load_catalog
from vla_gen_bench.episodes.draw import draw, draw_for_env, draw_training
from vla_gen_bench.episodes.geometry import (
    CENTRE,
    Footprint,
    distance,
    fine_grid,
    gap,
    grid,
    pairs,
    quaternion,
    ring,
    third_candidates,
)
from vla_gen_bench.episodes.shift import Scenario, Shift
from vla_gen_bench.episodes.spec import EpisodeSpec, Placed
from vla_gen_bench.episodes.streams import Stream
from vla_gen_bench.episodes.suite import load_suite
from vla_gen_bench.errors import UserError

WORLD = "rl4vla"
WORLDS = ("builtin", "rl4vla")
DEFAULT = load_suite("all").scenarios
IND = DEFAULT["ind"]


def scenario(**shift) -> Scenario:
    return Scenario(id="x", label="x", dimension="mixed", shift=Shift.parse(shift))


def box(half_x: float, half_y: float) -> Body:
    low, high = (-half_x, -half_y, 0.0), (half_x, half_y, 0.01)
    body = load_catalog(WORLD).objects[0]
    return body.model_copy(update={"bbox_min": low, "bbox_max": high})


def footprint(catalog: Catalog, placed: Placed) -> Footprint:
    w, _, _, z = placed.quaternion
    kind = "objects" if placed.id in catalog.ids("objects") else "receptacles"
    return Footprint(catalog.get(kind, placed.id), placed.position[:2], 2 * math.atan2(z, w))


# ---- streams


def test_a_number_is_the_hash_of_its_key():
    # printf '1:0:0:object:0' | sha256sum  ends in the hex digit of the number modulo 16
    digest = hashlib.sha256(b"1:0:0:object:0").hexdigest()
    assert Stream("1", 0, 0, "object").below(16) == int(digest[-1], 16)
    assert Stream("1", 0, 0, "object").below(256) == int(digest[-2:], 16)


def test_every_part_of_the_key_matters():
    streams = [("1", 0, 0, "a", 0), ("2", 0, 0, "a", 0), ("1", 1, 0, "a", 0), ("1", 0, 1, "a", 0), ("1", 0, 0, "b", 0)]
    values = {Stream(*key[:4]).below(2**64, key[4]) for key in [*streams, ("1", 0, 0, "a", 1)]}
    assert len(values) == 6


@pytest.mark.parametrize("n", [4, 5, 9, 16, 784])
def test_draws_are_uniform(n):
    """Chi-square with n - 1 degrees of freedom has mean n - 1 and variance 2 (n - 1); allow four sigma."""
    total = 20 * n + 4000
    counts = Counter(Stream("1", 0, index, "test").below(n) for index in range(total))
    chi2 = sum((counts[value] - total / n) ** 2 / (total / n) for value in range(n))
    assert abs(chi2 - (n - 1)) < 4 * math.sqrt(2 * (n - 1))


def test_axes_are_independent():
    """For two fair 4-way axes each of the 16 combinations has probability 1/16: 4096/16 = 256, sigma 15.5."""
    both = Counter(
        (Stream("1", 0, index, "object").below(4), Stream("1", 0, index, "table").below(4)) for index in range(4096)
    )
    assert all(abs(both[a, b] - 256) < 4 * 15.5 for a in range(4) for b in range(4))


# ---- geometry


def test_grid_has_784_pairs():
    """Too near is d^2 <= 5 cells of 3 cm (6.7 cm): per column 64, 88, 104, 104, 88, 64 of 216 fall out."""
    assert [round(x, 12) for x, _ in grid()[::6]] == [-0.235, -0.205, -0.175, -0.145, -0.115, -0.085]
    assert len(pairs(grid())) == 6 * 216 - 2 * (64 + 88 + 104) == 784


def test_ring_is_the_references_for_3_cm():
    points = [(round(x, 12), round(y, 12)) for x, y in ring(0.03)]
    assert len(points) == 28 and len(pairs(ring(0.03))) == 628
    assert points[0] == (-0.265, -0.105) and points[7] == (-0.265, 0.105)  # 0.235 + 0.03, 0.075 + 0.03
    assert points[8:10] == [(-0.235, -0.105), (-0.235, 0.105)] and points[-1] == (-0.055, 0.105)


def test_ring_moves_out_with_its_displacement():
    xs = [x for x, _ in ring(0.06)]
    assert (min(xs), max(xs)) == pytest.approx((-0.235 - 0.06, -0.085 + 0.06))


def test_gap_of_footprints():
    long = box(0.05, 0.02)
    still, there = Footprint(long, (0.0, 0.0), 0.0), Footprint(long, (0.12, 0.0), 0.0)
    assert gap(still, there) == pytest.approx(0.12 - 0.05 - 0.05)
    assert gap(still, there._replace(yaw=math.pi / 2)) == pytest.approx(0.12 - 0.05 - 0.02)
    # Turned by 45 degrees it reaches (0.05 + 0.02) / sqrt 2 = 0.0495 along x.
    assert gap(still, there._replace(yaw=math.pi / 4)) == pytest.approx(0.12 - 0.05 - 0.07 / math.sqrt(2))
    assert gap(still, there._replace(xy=(0.08, 0.0))) == pytest.approx(-0.02)


def test_footprint_uses_the_offset_of_the_box_from_its_origin():
    spoon = load_catalog(WORLD).get("objects", "023_kitchen spoon_1")  # y from -0.076108 to 0.050176
    assert Footprint(spoon, (0.0, 0.0), 0.0).span(math.pi / 2) == pytest.approx((-0.076108, 0.050176))
    assert Footprint(spoon, (0.0, 0.0), math.pi).span(math.pi / 2) == pytest.approx((-0.050176, 0.076108))


def candidates_of_a_speck(target, receptacle, least=0.15):
    speck = box(1e-4, 1e-4)
    others = [Footprint(speck, target, 0.0), Footprint(speck, receptacle, 0.0)]
    return third_candidates([grid()], speck, 0.0, receptacle, target, others, least)


def test_third_positions_fall_back_only_where_they_must():
    """Without footprints: 2,760 triples at 0.15 m or more (fact sheet 3.1); 156 of the 784 pairs have none."""
    triples, least = 0, Counter()
    for target, receptacle in pairs(grid()):
        found = candidates_of_a_speck(target, receptacle)
        nearest = min(round(distance(point, target), 9) for point in found)
        assert all(distance(point, receptacle) > 0.07 for point in found)
        least[0.15 if nearest >= 0.15 else 0.12 if nearest >= 0.12 else 0.10] += 1
        triples += len(found) if nearest >= 0.15 else 0
    assert triples == 2760
    assert least == {0.15: 628, 0.12: 132, 0.10: 24}


def test_third_position_keeps_footprints_clear():
    """A 14 cm wide thing reaches 0.07 m: beside 0.07 m of the target and 1 cm it needs 0.15 m along x."""
    wide, target, receptacle = box(0.07, 0.001), (-0.235, -0.075), (-0.085, 0.075)
    others = [Footprint(wide, target, 0.0)]
    found = third_candidates([grid()], wide, 0.0, receptacle, target, others, 0.10)
    in_row = [point for point in found if point[1] == target[1]]
    assert [round(x, 9) for x, _ in in_row] == [-0.085]
    assert len(found) > len(in_row)  # other rows only need 1 cm in y


def test_least_overlap_where_nothing_is_clear():
    huge, target, receptacle = box(0.3, 0.3), (-0.235, -0.075), (-0.235, 0.015)
    found = third_candidates([grid()], huge, 0.0, receptacle, target, [Footprint(huge, target, 0.0)], 0.15)
    # Best is 0.15 m along x or y. Of those, (-0.235, 0.075) and (-0.205, 0.075) lie within 0.07 m of the receptacle.
    assert [(round(x, 9), round(y, 9)) for x, y in found] == [(-0.175, 0.075)]


def test_the_first_of_the_others_is_spared():
    """The wall covers all; 0.15 m from the first along x or y leaves 0.15 - 0.065 - 0.065 = 2 cm to it."""
    square, target, receptacle = box(0.065, 0.065), (-0.235, -0.075), (-0.085, -0.015)
    wall = Footprint(box(0.2, 0.2), receptacle, 0.0)
    found = third_candidates([grid()], square, 0.0, receptacle, target, [Footprint(square, target, 0.0), wall], 0.10)
    assert len(found) == 1 and gap(Footprint(square, found[0], 0.0), Footprint(square, target, 0.0)) >= 0.01


def test_other_points_are_tried_before_footprints_collide():
    """The plate in the middle covers +-0.055 m; a 6 cm square needs 0.055 + 0.03 + 0.01 = 0.095 m from its centre."""
    plate, square = Footprint(box(0.055, 0.055), CENTRE, 0.0), box(0.03, 0.03)
    target = (CENTRE[0] - 0.075, CENTRE[1] - 0.075)
    on_grid = third_candidates([grid()], square, 0.0, CENTRE, target, [plate], 0.10)
    assert len(on_grid) == 1 and gap(Footprint(square, on_grid[0], 0.0), plate) < 0
    wider = third_candidates([grid(), fine_grid(), fine_grid(2)], square, 0.0, CENTRE, target, [plate], 0.10)
    assert len(wider) > 1
    for x, y in wider:
        assert gap(Footprint(square, (x, y), 0.0), plate) >= 0.01 - 1e-9
        assert max(abs(x - CENTRE[0]), abs(y - CENTRE[1])) == pytest.approx(0.105)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("id", ["multi_object_ind", "multi_object_ood", "disturb_receptacle", "multi_receptacle"])
def test_distractors_touch_nothing(id, world):
    catalog = load_catalog(world)
    for seed in (0, 1, 2):
        for index in range(64):
            spec = draw(DEFAULT[id], world, seed, index)
            others = [footprint(catalog, item) for item in (spec.target, spec.receptacle)]
            third = footprint(catalog, (*spec.distractor_objects, *spec.distractor_receptacles)[0])
            assert min(gap(third, other) for other in others) >= 0.01 - 1e-6


@pytest.mark.parametrize("world", WORLDS)
def test_teleport_goals_touch_no_receptacle(world):
    catalog = load_catalog(world)
    for index in range(192):
        spec = draw(DEFAULT["object_reposition"], world, 0, index)
        goal = spec.effects[0].params
        moved = spec.target.model_copy(update={"position": tuple(goal["position"])})
        assert gap(footprint(catalog, moved), footprint(catalog, spec.receptacle)) >= 0.01 - 1e-6


@pytest.mark.parametrize("displacement", [0.005, 0.03, 0.10])
def test_every_ring_pair_leaves_a_third_position(displacement):
    points, speck = ring(displacement), box(1e-4, 1e-4)
    for target, receptacle in pairs(points):
        assert third_candidates([points], speck, 0.0, receptacle, target, [Footprint(speck, target, 0.0)], 0.20)


def test_quaternions_are_wxyz_about_z():
    assert quaternion(math.pi / 2) == pytest.approx((math.sqrt(0.5), 0, 0, math.sqrt(0.5)))
    assert quaternion(-math.pi / 8)[3] == pytest.approx(-math.sin(math.pi / 16))


def test_joint_offsets():
    """5 waist * (25 - 2) shoulder and elbow * 5 * 5 * 5 = 14,375, of which one moves nothing."""
    assert len(reference_joint_offsets()) == 5 * (25 - 2) * 5 * 5 * 5 == 14_375
    assert len(unseen_joint_offsets()) == 14_374
    assert reference_joint_offsets()[0] == (-0.15, -0.15, -0.08, -0.15, -0.15, -0.6)


# ---- drawing

CHANGES = {
    "object": {"target.id", "instruction"},
    "receptacle": {"receptacle.id", "instruction"},
    "distractor_object": {"distractor_objects"},
    "distractor_receptacle": {"distractor_receptacles"},
    "table": {"table"},
    "phrasing": {"instruction"},
    "layout": {"target.position", "receptacle.position"},
    "yaw": {"target.quaternion"},
    "joint_offset": {"joint_offset"},
}


def flat(spec: EpisodeSpec) -> dict:
    data = spec.model_dump()
    placed = {f"{kind}.{key}": value for kind in ("target", "receptacle") for key, value in data.pop(kind).items()}
    return {**data, **placed}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("id", DEFAULT)
def test_only_the_shifted_axes_differ_from_ind(id, world):
    shift = DEFAULT[id].shift
    allowed = set().union(*(CHANGES[axis] for axis in shift.axes), {"effects"} if shift.effects else set())
    changed = set()
    for index in range(40):
        here, ind = flat(draw(DEFAULT[id], world, 1, index)), flat(draw(IND, world, 1, index))
        changed |= {key for key in here if here[key] != ind[key]}
    assert changed == allowed


@pytest.mark.parametrize("name", ["vision", "semantics", "execution"])
def test_ind_is_the_same_in_every_suite(name):
    assert draw(load_suite(name).scenarios["ind"], WORLD, 2, 5) == draw(IND, WORLD, 2, 5)


def test_the_world_is_not_part_of_the_key():
    for index in range(20):
        one, other = (draw(DEFAULT["unseen_position"], world, 0, index) for world in WORLDS)
        assert (one.target.position, one.receptacle.position) == (other.target.position, other.receptacle.position)
        assert one.target.quaternion == other.target.quaternion


def test_drawing_is_pure():
    """Order and repetition do not matter, and a spec survives JSON."""
    late = draw(DEFAULT["multi_object_ood"], WORLD, 0, 9)
    for index in (3, 9, 1):
        spec = draw(DEFAULT["multi_object_ood"], WORLD, 0, index)
        assert EpisodeSpec.model_validate_json(spec.model_dump_json()) == spec
    assert draw(DEFAULT["multi_object_ood"], WORLD, 0, 9) == late


def test_ind_stays_in_the_training_pools():
    catalog = load_catalog(WORLD)
    specs = [draw(IND, WORLD, 0, index) for index in range(300)]
    assert {spec.target.id for spec in specs} == set(catalog.ids("objects", "train"))
    assert {spec.table for spec in specs} == set(catalog.ids("tables", "train"))
    assert {spec.receptacle.id for spec in specs} == {"001_plate_simpler"}
    assert {spec.target.position[2] for spec in specs} == {spec.receptacle.position[2] for spec in specs} == {0.95}
    assert all(spec.instruction == f"put {catalog.get('objects', spec.target.id).name} on plate" for spec in specs)
    assert len({spec.target.quaternion for spec in specs}) == 4


def test_ind_objects_are_balanced():
    """1,600 draws of 16 objects: 100 each, sigma sqrt(1600 * 15/16 / 16) = 9.7."""
    counts = Counter(draw(IND, WORLD, seed, index).target.id for seed in range(4) for index in range(400))
    assert len(counts) == 16 and all(abs(count - 100) < 4 * 9.7 for count in counts.values())


@pytest.mark.parametrize("id", ["multi_object_ind", "multi_object_ood"])
def test_distractor_object_never_equals_target(id):
    catalog = load_catalog(WORLD)
    split = "train" if id.endswith("_ind") else "unseen"
    seen = Counter()
    for index in range(600):
        spec = draw(DEFAULT[id], WORLD, 0, index)
        (other,) = spec.distractor_objects
        assert other.id != spec.target.id and other.quaternion == spec.target.quaternion
        assert other.position[2] == 1.0
        seen[other.id] += 1
    assert set(seen) == set(catalog.ids("objects", split))


@pytest.mark.parametrize("id", ["disturb_receptacle", "multi_receptacle"])
def test_distractor_receptacle_never_equals_receptacle(id):
    unseen = load_catalog(WORLD).ids("receptacles", "unseen")
    for index in range(300):
        spec = draw(DEFAULT[id], WORLD, 0, index)
        (other,) = spec.distractor_receptacles
        assert other.id != spec.receptacle.id and other.id in unseen
        assert (spec.receptacle.id == "001_plate_simpler") == (id == "disturb_receptacle")
        assert distance(other.position[:2], spec.receptacle.position[:2]) >= 0.10 - 1e-9
        assert distance(other.position[:2], spec.target.position[:2]) > 0.07
        assert other.position[2] == 0.96


def test_unseen_phrasings_are_templates_1_to_16():
    catalog = load_catalog(WORLD)
    found = Counter()
    for index in range(600):
        spec = draw(DEFAULT["unseen_instruction"], WORLD, 0, index)
        name = catalog.get("objects", spec.target.id).name
        texts = [text.format(object=name, receptacle="plate") for text in TEMPLATES]
        found[texts.index(spec.instruction)] += 1
    assert set(found) == set(range(1, 17))
    assert TEMPLATES[13] == "Move {object} so it\u2019s on {receptacle}."  # the source's typographic apostrophe


@pytest.mark.parametrize("id,name,alpha", [("texture_weak", "texture", 0.3), ("noise_strong", "noise", 0.5)])
def test_overlay_effects_are_concrete(id, name, alpha):
    unseen = load_catalog(WORLD).ids("textures", "unseen")
    effects = [draw(DEFAULT[id], WORLD, 0, index).effects for index in range(300)]
    assert all(len(each) == 1 and each[0].name == name for each in effects)
    assert {each[0].params["alpha"] for each in effects} == {alpha}  # every unseen texture has mix 1
    assert {each[0].params["texture"] for each in effects} == set(unseen)


def test_weak_and_strong_use_the_same_texture():
    for index in range(20):
        weak, strong = (draw(DEFAULT[f"noise_{kind}"], WORLD, 0, index).effects[0] for kind in ("weak", "strong"))
        assert weak.params["texture"] == strong.params["texture"]


def test_reposition_is_concrete():
    far = 0
    for index in range(200):
        spec = draw(DEFAULT["object_reposition"], WORLD, 0, index)
        (effect,) = spec.effects
        params = effect.params
        assert set(params) == {"step", "position", "quaternion", "keep_velocity", "settle_substeps"}
        assert (params["step"], params["keep_velocity"], params["settle_substeps"]) == (5, False, 50)
        assert params["quaternion"] == list(spec.target.quaternion) and params["position"][2] == 1.0
        away = distance(params["position"][:2], spec.target.position[:2])
        assert away >= 0.10 - 1e-9 and distance(params["position"][:2], spec.receptacle.position[:2]) > 0.07
        far += away >= 0.15 - 1e-9
    assert far > 100


def test_severities_reach_the_episode():
    shift = {"layout": {"pool": "ring", "displacement": 0.06}, "joint_offset": {"pool": "unseen", "scale": 0.5}}
    far, near = scenario(**shift), DEFAULT["unseen_robot_pose"]
    for index in range(20):
        spec = draw(far, WORLD, 0, index)
        x, y, _ = spec.target.position  # 0.075 + 0.06 from the centre (-0.16, 0) along one axis at least
        assert max(abs(x + 0.16), abs(y)) == pytest.approx(0.135)
        assert spec.joint_offset == pytest.approx([0.5 * it for it in draw(near, WORLD, 0, index).joint_offset])
        assert any(spec.joint_offset)


def test_training_and_evaluation_seeds_do_not_meet():
    with pytest.raises(UserError, match="evaluation seeds are 0 to 999999"):
        draw(IND, WORLD, 1_000_000, 0)
    with pytest.raises(UserError, match="training seeds start at 1000000"):
        draw_training(WORLD, 999_999, 0)
    with pytest.raises(UserError, match="evaluation seeds"):
        draw(IND, WORLD, -1, 0)
    with pytest.raises(UserError, match="count from 0"):
        draw(IND, WORLD, 0, -1)
    trained, evaluated = (
        {spec(index).model_copy(update={"seed": 0}).model_dump_json() for index in range(192)}
        for spec in (lambda index: draw_training(WORLD, 1_000_000, index), lambda index: draw(IND, WORLD, 0, index))
    )
    assert len(trained) == len(evaluated) == 192 and not trained & evaluated


def test_training_is_in_distribution():
    trained = {draw_training(WORLD, 1_000_000, index).target.id for index in range(200)}
    assert trained == set(load_catalog(WORLD).ids("objects", "train"))


def test_unknown_world_is_a_user_error():
    with pytest.raises(UserError, match="unknown world 'rl4vl'; did you mean 'rl4vla'"):
        draw(IND, "rl4vl", 0, 0)


def test_environments_never_meet_evaluation_draws():
    spec = draw_for_env(DEFAULT["unseen_table"], WORLD, 7)
    assert spec.seed == 1_000_007 and spec.table in load_catalog(WORLD).ids("tables", "unseen")
    assert draw_for_env(IND, WORLD, 7) == draw_training(WORLD, 1_000_007, 0)
    with pytest.raises(UserError, match="expected 0 or more"):
        draw_for_env(IND, WORLD, -1)


class Glare:
    """What a plug-in of the older form offers."""

    kind = "image"

    def apply(self, images, foreground):
        return images


def test_a_plugins_effect_gets_its_params_and_a_seed(monkeypatch):
    """Its name comes from the entry points of `vla_gen_bench.effects`."""
    with pytest.raises(UserError, match="expected a name, got 'glare'"):
        scenario(effects=["glare"])
    point = EntryPoint("glare", f"{__name__}:Glare", effects_module.GROUP)
    monkeypatch.setattr(effects_module, "plugin_points", lambda: {"glare": point})
    glare = scenario(effects=[{"name": "glare", "strength": 2}, "noise"])
    seeds = set()
    for index in range(20):
        effect, noise = draw(glare, WORLD, 0, index).effects
        assert (effect.name, effect.params["strength"], noise.name) == ("glare", 2, "noise")
        seeds.add(effect.params["seed"])
    assert len(seeds) == 20
    assert glare.shift.describe() == "glare strength 2; noise alpha 0.3"


@pytest.mark.parametrize("displacement", [0.005, 0.01, 0.02, 0.03, 0.06])
def test_a_layout_moved_out_never_starts_with_the_object_on_the_receptacle(displacement):
    """Near the grid the ring's corners close in: a pair drawn at 3 cm may be too close at 1 cm."""
    moved = scenario(layout={"pool": "outside", "displacement": displacement})
    for index in range(400):
        spec = draw(moved, WORLD, 0, index)
        assert distance(spec.target.position[:2], spec.receptacle.position[:2]) > 0.07, index
