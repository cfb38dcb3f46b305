"""Pretraining data: other training pools, and both roles of a scene."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from vla_gen_bench.cli.collect import collect
from vla_gen_bench.episodes.axes import AXES
from vla_gen_bench.episodes.catalog import load_catalog
from vla_gen_bench.episodes.draw import check_training_shift, draw_training, with_roles_swapped
from vla_gen_bench.episodes.shift import Shift
from vla_gen_bench.errors import UserError

SEED = 1_000_000
TWO = Shift.parse({"distractor_object": "train", "distractor_receptacle": "train"})


@pytest.mark.parametrize("index", range(8))
def test_swapped_roles_show_the_same_scene_and_name_the_other_object(index):
    spec = draw_training("pretrain", SEED, index, TWO)
    other = with_roles_swapped(spec)
    assert (other.target, other.distractor_objects) == (spec.distractor_objects[0], (spec.target,))
    same = ("receptacle", "distractor_receptacles", "table", "joint_offset", "seed", "index")
    assert all(getattr(other, name) == getattr(spec, name) for name in same)
    names = [load_catalog("pretrain").get("objects", item.id).name for item in (spec.target, other.target)]
    assert names[0] in spec.instruction and names[1] in other.instruction
    assert other.instruction.replace(names[1], names[0]) == spec.instruction
    assert with_roles_swapped(other) == spec


def test_a_shift_changes_the_axes_it_sets_only():
    plain, both = draw_training("pretrain", SEED, 4), draw_training("pretrain", SEED, 4, TWO)
    assert both.distractor_objects and both.distractor_receptacles
    assert both.model_copy(update={"distractor_objects": (), "distractor_receptacles": ()}) == plain


@pytest.mark.parametrize(("given", "told"), [
    ({"object": "unseen"}, "object: pool 'unseen' is held back for evaluation; training takes train"),
    ({"layout": "ring"}, "layout: pool 'ring' is held back"),
    ({"instruction": "none"}, "instruction: pool 'none' is held back for evaluation; training takes own"),
    ({"effects": ["noise"]}, "effects: training episodes have none"),
])  # fmt: skip
def test_what_evaluations_hold_back_is_no_training_data(given, told):
    with pytest.raises(UserError, match=told):
        check_training_shift(Shift.parse(given))


def test_the_first_pool_of_every_axis_is_training_s():
    check_training_shift(Shift.parse({axis: next(iter(pools)) for axis, pools in AXES.items()}))


def test_roles_need_another_object():
    with pytest.raises(UserError, match="give distractor_object=train"):
        with_roles_swapped(draw_training("pretrain", SEED, 0))


@pytest.mark.parametrize(("options", "told"), [
    (["--shift", "object=unseen"], "held back for evaluation"),
    (["--shift", "objekt=train"], "unknown axis 'objekt'; did you mean 'object'?"),
    (["--shift", "object"], "--shift object: expected key.path=value"),
    (["--swap"], "give distractor_object=train"),
    (["--shift", "distractor_receptacle=train"], "nothing in ['plate'] that is not on the table already"),
])  # fmt: skip
def test_bad_options_leave_no_folder(options, told, tmp_path):
    out = tmp_path / "data"
    ran = CliRunner().invoke(collect, ["--episodes", "1", "--out", str(out), *options])
    assert isinstance(ran.exception, UserError) and told in str(ran.exception)
    assert not out.exists()
