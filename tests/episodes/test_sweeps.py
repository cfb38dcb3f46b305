"""What a user writes in a suite's YAML beyond one scenario a row: levels, lists, explicit pools, combinations."""

import pytest

from vla_gen_bench.episodes.catalog import load_catalog
from vla_gen_bench.episodes.draw import draw
from vla_gen_bench.episodes.shift import Scenario, Shift
from vla_gen_bench.episodes.suite import load_suite, union
from vla_gen_bench.errors import UserError

MINE = """
id: mine
version: "1"
protocol: {episodes_per_seed: 4, seeds: [3]}
dimensions: [kitchen]
scenarios:
  ind:    {label: IND, dimension: ind}
  blur:   {label: Blur, dimension: kitchen, levels: [1, 3], shift: {effects: [blur]}}
  haze:   {label: Haze, dimension: vision, shift: {effects: [{name: noise, alpha: [0.2, 0.8]}]}}
  far:    {label: Far, dimension: execution, levels: [5], shift: {layout: outside}}
  lunch:
    dimension: semantics
    shift: {object: [carrot, banana], table: [oak_desk], phrasing: ["bring {object} to {receptacle}"], yaw: [0, 30]}
  dim:    {dimension: vision, shift: {effects: [{name: light_intensity, level: 4}]}}
  both:   {combine: [blur_3, dim]}
"""


@pytest.fixture
def write(tmp_path):
    def file(text):
        (tmp_path / "mine.yaml").write_text(text)
        return str(tmp_path / "mine.yaml")

    return file


@pytest.fixture
def mine(write):
    return load_suite(write(MINE))


def test_levels_become_scenarios_with_the_severities_they_stand_for(mine):
    assert list(mine.scenarios)[:6] == ["ind", "blur_1", "blur_3", "haze_1", "haze_2", "far_5"]
    third = mine.scenarios["blur_3"]
    assert (third.sweep, third.level, third.label) == ("blur", 3, "Blur (0.009 of the width)")
    assert third.shift.effects[0].params == {"sigma": 0.009}
    assert mine.scenarios["far_5"].shift.choice("layout").params == {"displacement": 0.06}
    assert mine.scenarios["dim"].shift.effects[0].params == {"stops": 1.5} and mine.scenarios["dim"].sweep is None


def test_a_list_of_severities_becomes_scenarios_in_its_order(mine):
    assert [mine.scenarios[f"haze_{n}"].shift.effects[0].params["alpha"] for n in (1, 2)] == [0.2, 0.8]
    assert mine.scenarios["haze_2"].label == "Haze (alpha 0.8)"


def test_a_dimension_of_ones_own(mine):
    assert mine.scenarios["blur_1"].dimension == "kitchen" and mine.scenarios["both"].dimension == "mixed"


def test_explicit_pools_are_drawn_from(mine):
    specs = [draw(mine.scenarios["lunch"], "builtin", 3, index) for index in range(40)]
    assert {spec.target.id for spec in specs} == {"carrot", "banana"}
    assert {spec.table for spec in specs} == {"oak_desk"}
    assert {spec.instruction for spec in specs} == {"bring carrot to plate", "bring banana to plate"}
    assert len({spec.target.quaternion for spec in specs}) == 2


def test_an_explicit_pool_pairs_with_ind(mine):
    """Only what the shift sets differs: positions are IND's, from their own stream."""
    ind, lunch = (draw(mine.scenarios[name], "builtin", 3, 7) for name in ("ind", "lunch"))
    assert ind.target.position == lunch.target.position and ind.receptacle == lunch.receptacle


def test_explicit_pools_count_in_the_digest(write):
    one = load_suite(write(MINE)).digest()
    assert load_suite(write(MINE.replace("[carrot, banana]", "[carrot, zucchini]"))).digest() != one
    assert load_suite(write(MINE.replace("label: Blur", "label: Unsharp"))).digest() == one


def test_combined_rows_have_both_shifts(mine):
    both = mine.scenarios["both"]
    assert both.parts == ("blur_3", "dim") and [it.name for it in both.shift.effects] == ["blur", "light_intensity"]


def test_levels_share_their_episodes(mine):
    suite = load_suite("robustness")
    for name in ("layout", "clutter", "camera_position"):
        rows = [draw(suite.scenarios[f"{name}_{level}"], "builtin", 0, 5) for level in (1, 2, 3)]
        assert len({(spec.target.id, spec.table, spec.instruction) for spec in rows}) == 1
    first, second, third = (draw(suite.scenarios[f"clutter_{level}"], "builtin", 0, 5) for level in (1, 2, 3))
    assert third.distractor_objects[:2] == second.distractor_objects and len(third.distractor_objects) == 3
    assert second.distractor_objects[:1] == first.distractor_objects
    inner, outer = (draw(suite.scenarios[f"layout_{level}"], "builtin", 0, 5).target.position for level in (1, 5))
    assert max(abs(outer[0] + 0.16), abs(outer[1])) - max(abs(inner[0] + 0.16), abs(inner[1])) == pytest.approx(0.05)


def test_clutter_never_repeats_what_lies_there():
    suite = load_suite("robustness")
    for index in range(30):
        spec = draw(suite.scenarios["clutter_5"], "builtin", 0, index)
        ids = [spec.target.id, *(item.id for item in spec.distractor_objects)]
        assert len(set(ids)) == 5


def test_quick_is_a_share_of_the_protocol(write, mine):
    assert (mine.quick.episodes_per_seed, mine.quick.seeds) == (4, (3,))
    quick = load_suite(write("quick: {episodes_per_seed: 2, seeds: [3]}\n" + MINE))
    assert (
        quick.quick.episodes_per_seed == 2
        and quick.digest() == mine.digest()
        and union([quick, quick]).quick == quick.quick
    )
    with pytest.raises(UserError, match="quick: expected at most the protocol's episodes_per_seed"):
        load_suite(write("quick: {episodes_per_seed: 5, seeds: [3]}\n" + MINE))


def test_instructions_that_are_not_the_episodes_own():
    suite = load_suite("controls")
    for index in range(12):
        ind, two = (draw(suite.scenarios[name], "builtin", 0, index) for name in ("ind", "two_objects"))
        other, another, none = (
            draw(suite.scenarios[name], "builtin", 0, index)
            for name in ("other_object", "other_episode", "no_instruction")
        )
        assert other.distractor_objects == two.distractor_objects and other.target == two.target
        name = other.distractor_objects[0].id.replace("_", " ")
        assert other.instruction == f"put {name} on plate"
        assert another.instruction != ind.instruction and another.target == ind.target
        assert none.instruction == "" and none.model_copy(update={"instruction": ind.instruction}) == ind


@pytest.mark.parametrize("phrasing", ["train", "unseen", "paraphrase"])
def test_the_instruction_of_another_episode_names_something_else(phrasing):
    """Another wording of the right task would be no control."""
    row = shifted({"instruction": "other_episode", "phrasing": phrasing})
    catalog = load_catalog("builtin")
    for index in range(64):
        spec = draw(row, "builtin", 0, index)
        there = ("objects", spec.target), ("receptacles", spec.receptacle)
        assert not all(catalog.get(kind, placed.id).name in spec.instruction for kind, placed in there), index


def test_no_other_episode_names_something_else():
    row = shifted({"instruction": "other_episode", "object": ["carrot"], "receptacle": ["plate"]})
    with pytest.raises(UserError, match="every episode names the same object and receptacle"):
        draw(row, "builtin", 0, 0)


def test_no_offset_at_all_is_the_training_pose():
    row = shifted({"joint_offset": {"pool": "unseen", "scale": 0}})
    assert draw(row, "builtin", 0, 3).digest() == draw(load_suite("all").scenarios["ind"], "builtin", 0, 3).digest()


def shifted(shift):
    return Scenario(id="one", label="One", dimension="control", shift=Shift.parse(shift))


def test_a_step_that_no_episode_reaches_is_refused(write):
    row = "  dim:    {dimension: vision, shift: {effects: [{name: reposition, step: %d}]}}"
    lines = [line if "  dim:" not in line else row % 81 for line in MINE.splitlines()]
    with pytest.raises(UserError, match="scenarios.dim: effect 'reposition' acts after step 81, but an episode has 80"):
        load_suite(write("\n".join(lines)))
    lines = [line if "step: 81" not in line else row % 80 for line in lines]
    assert load_suite(write("\n".join(lines))).scenarios["dim"].shift.effects[0].params["step"] == 80


MISTAKES = [
    ("levels: [1, 3]", "levels: [0, 3]", "blur.levels: expected some of 1, 2, 3, 4, 5, each once, got [0, 3]"),
    ("levels: [1, 3]", "levels: [1, 1]", "scenarios.blur.levels: expected some of 1, 2, 3, 4, 5"),
    ("levels: [1, 3]", "levels: 3", "scenarios.blur.levels: expected some of 1, 2, 3, 4, 5, each once, got 3"),
    ("levels: [1, 3], shift: {effects: [blur]}", "levels: [1]", "blur.levels: there is no shift whose levels"),
    ("effects: [blur]", "effects: [black_image]", "shift.effects[0].level: effect 'black_image' has no levels"),
    ("effects: [blur]", "effects: [{name: blur, sigma: 0.1}]", "both level and sigma are given; level 1 means sigma"),
    ("effects: [blur]", "effects: [{name: blur, sigma: [0.01, 0.02]}]", "both levels and a list of sigma are given"),
    ("alpha: [0.2, 0.8]", "alpha: [0.2, 8]", "haze.shift.effects[0].alpha: expected a number from 0 to 1, got 8"),
    ("alpha: [0.2, 0.8]", "alpha: []", "scenarios.haze.shift: lists of severities must have one length, got [0]"),
    ("level: 4", "level: 6", "scenarios.dim.shift.effects[0].level: expected a whole number from 1 to 5, got 6"),
    ("level: 4", "level: 4.0", "scenarios.dim.shift.effects[0].level: expected a whole number from 1 to 5, got 4.0"),
    ("[carrot, banana]", "[carot]", "shift.object: no world has objects with the id 'carot'; did you mean 'carrot'?"),
    ("[carrot, banana]", "[carrot, carrot]", "shift.object: expected a list of text, each once"),
    ("[carrot, banana]", "[]", "shift.object: expected a list of text, each once, got []"),
    ("yaw: [0, 30]", "layout: [0]", "shift.layout: axis 'layout' takes no list; expected one of grid, ring, outside"),
    ("bring {object}", "bring {object:>999999999}", "expected no other braces than {object}, {receptacle}"),
    ("bring {object}", "bring {thing}", "expected no other braces than {object}, {receptacle}"),
    ("[blur_3, dim]", "[blur_3, dimm]", "scenarios.both.combine: unknown scenario 'dimm'; did you mean 'dim'?"),
    ("[blur_3, dim]", "[blur_3, blur_1]", "both set effect 'blur'"),
    ("[blur_3, dim]", "[dim]", "scenarios.both.combine: expected a list of two scenarios or more, got ['dim']"),
    ("[blur_3, dim]", "[blur_3, {dim: 1}]", "scenarios.both.combine: unknown scenario {'dim': 1}"),
    ("[blur_3, dim]", '[blur_3, "a\\nb"]', "scenarios.both.combine: unknown scenario 'a\\nb'"),
    ("[blur_3, dim]", '[blur_3, dim], label: "a\\nb"', "scenarios.both.label: string should match pattern"),
    ("[blur_3, dim]", "[blur_3, dim], label: 3", "scenarios.both.label: expected text, got 3"),
    ("label: Blur", "label: [Blur]", "scenarios.blur.label: expected text, got ['Blur']"),
    ("label: Blur", f"label: {'x' * 190}", "scenarios.blur.label: string should have at most 200 characters"),
    ("shift: {effects: [blur]}", "shift: blur", "scenarios.blur.levels: there is no shift whose levels these are"),
    ("dimension: kitchen", "dimension: kitchn", "scenarios.blur.dimension: got 'kitchn'; did you mean 'kitchen'?"),
    ("dimensions: [kitchen]", "dimensions: kitchen", "dimensions: expected a list of names of letters, digits and _"),
    ("{effects: [blur]}", "{effects: ['no_such.module:Thing']}", "effect 'no_such.module:Thing': no_such.module"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_mistakes_name_file_key_and_remedy(write, old, new, message):
    assert old in MINE
    with pytest.raises(UserError) as error:
        load_suite(write(MINE.replace(old, new, 1)))
    assert message in str(error.value) and "\n" not in str(error.value) and "mine.yaml" in str(error.value)


def test_a_combination_of_rows_with_long_labels_has_one_of_bounded_length(write):
    suite = load_suite(
        write(MINE.replace("label: Haze", f"label: {'h' * 180}").replace("label: Far", f"label: {'f' * 180}"))
    )
    (both,) = suite.select(["haze_1 + far_5"])
    assert len(both.label) <= 200 and both.label.startswith("hhh") and both.label.endswith("m)")


def test_an_id_of_another_world_is_named_when_it_is_drawn(mine):
    with pytest.raises(UserError, match="world 'rl4vla': no "):
        draw(mine.scenarios["lunch"], "rl4vla", 3, 0)


def test_a_pool_that_leaves_nothing_is_named(write):
    text = MINE.replace("object: [carrot, banana]", "object: [carrot], distractor_object: [carrot]")
    with pytest.raises(UserError, match=r"axis 'distractor_object': nothing in \['carrot'\] that is not on the table"):
        draw(load_suite(write(text)).scenarios["lunch"], "builtin", 3, 0)


def test_spanish_has_a_word_for_everything_both_worlds_name():
    from vla_gen_bench.episodes.catalog import load_catalog
    from vla_gen_bench.episodes.spanish import WORDS

    for world in ("builtin", "rl4vla"):
        catalog = load_catalog(world)
        assert {item.name for item in (*catalog.objects, *catalog.receptacles)} <= WORDS.keys()


def test_quick_runs_the_suites_share(cli, write, monkeypatch):
    plans = []

    def kept(plan, *_, **__):
        plans.append(plan)
        raise UserError("enough")

    monkeypatch.setattr("vla_gen_bench.eval.evaluate.evaluate", kept)
    file = write(MINE.replace("seeds: [3]}", "seeds: [3, 4]}\nquick: {episodes_per_seed: 2, seeds: [3]}"))
    for flags in ((), ("--quick",)):
        done = cli("eval", "--policy", "expert", "--suite", file, "--scenario", "ind", *flags)
        assert done.exit_code == 2 and "enough" in done.stderr
    whole, quick = ([job.key for job in plan.jobs] for plan in plans)
    assert len(whole) == 8 and quick == [("ind", 3, 0), ("ind", 3, 1)]


def test_quick_and_a_number_of_episodes_exclude_each_other(cli, write):
    done = cli("eval", "--policy", "expert", "--suite", write(MINE), "--quick", "--episodes", "3")
    assert done.exit_code == 2 and "--quick stands for the suite's own choice" in done.stderr


def test_the_levels_are_documented():
    from pathlib import Path

    from vla_gen_bench.episodes.levels import level_table

    page = Path(__file__).parents[2] / "docs" / "robustness.md"
    assert level_table() in page.read_text(encoding="utf-8"), "paste the output of `vgb suites levels` into it"
