"""`EnvBatch`: an episode is the same, bit by bit, in any row of any batch and alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from batches import STEPS, actions, alone, assert_same, judged, table1_spec
from sim import environment, simple_spec, spec_of

from vla_gen_bench.envs.vector import EnvBatch, make_batch
from vla_gen_bench.errors import UserError


@lru_cache(maxsize=None)
def batch() -> EnvBatch:
    return make_batch("builtin", 3)


def test_an_episode_is_the_same_in_any_row_and_alone_also_when_a_neighbour_starts_anew():
    """Three suites' worth of specs: a teleport, a texture over two objects, table1's two receptacles; then noise."""
    specs = [spec_of("object_reposition", index=2), spec_of("texture_strong", index=3), table1_spec()]
    late, moves = spec_of("multi_object_ood", index=4), [actions(row) for row in range(3)]
    images = batch().reset(specs)
    histories = [[part] for part in zip(batch().states(), images, *judged(batch()), strict=True)]
    for step in range(STEPS):
        if step == 3:
            [image] = batch().reset_rows([1], [late])
            assert_same(histories[1], alone(specs[1], moves[1][:3]))
            histories[1] = [(batch().states()[1], image, *(value[1] for value in judged(batch())))]
        images, rewards, infos = batch().step(np.stack([moves[row][step] for row in range(3)]))
        for row in range(3):
            flags = (infos[name][row] for name in sorted(infos))
            histories[row].append((batch().states()[row], images[row], rewards[row], *flags))
    assert batch().specs == [specs[0], late, specs[2]]
    assert infos["elapsed_steps"].tolist() == [STEPS, STEPS - 3, STEPS]
    for row, spec, first in ((0, specs[0], 0), (1, late, 3), (2, specs[2], 0)):
        assert_same(histories[row], alone(spec, moves[row][first:]))


def test_arrays_have_the_promised_shapes_and_types():
    images = batch().reset([spec_of(index=0), spec_of(index=1)])
    assert images.shape == (2, 240, 320, 3) and images.dtype == np.uint8 and len(batch()) == 2
    images, rewards, infos = batch().step(actions(0, 2))
    assert images.shape == (2, 240, 320, 3) and (rewards.shape, rewards.dtype) == ((2,), np.float32)
    assert all(value.shape == (2,) for value in infos.values()) and infos["success"].dtype == bool
    assert [state.step for state in batch().privileged()] == [1, 1]
    assert batch().instructions == (spec_of(index=0).instruction, spec_of(index=1).instruction)


def test_without_drawing_images_are_none():
    blind = EnvBatch([environment("builtin", "none")])
    assert blind.reset([simple_spec()]) is None
    assert blind.step(actions(0, 1)).images is None


def test_steps_that_are_not_drawn_change_nothing_of_what_comes_after():
    specs, moves = [spec_of("object_reposition", index=2), spec_of("texture_strong", index=3)], actions(0)
    ends = []
    for drawn in (range(STEPS), [STEPS - 1]):
        batch().reset(specs)
        steps = [batch().step(np.stack([move] * 2), draw=step in drawn) for step, move in enumerate(moves)]
        assert [step.images is not None for step in steps] == [step in drawn for step in range(STEPS)]
        infos = [np.stack([step.infos[name] for step in steps]) for name in sorted(steps[0].infos)]
        rewards = np.stack([step.rewards for step in steps])
        ends.append([np.stack(batch().states()), steps[-1].images, rewards, *infos])
    for found, expected in zip(*ends, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_a_step_returned_stays_as_it_was():
    single = EnvBatch([environment("builtin", "none")])
    single.reset([simple_spec()])
    first, second = single.step(actions(0, 1)), single.step(actions(1, 1))
    assert [step.infos["elapsed_steps"].tolist() for step in (first, second)] == [[1], [2]]


def test_a_refused_call_leaves_every_row_as_it_was():
    two, other = [simple_spec(), simple_spec(index=1)], simple_spec(index=2)
    batch().reset(two)
    before = batch().states()
    wrong = actions(0, 2)
    wrong[1, 3] = np.nan
    with pytest.raises(ValueError, match="the action of row 1 is not finite"):
        batch().step(wrong)
    for specs in ([other, simple_spec(table="nowhere")], [other, other, simple_spec(world="rl4vla")]):
        with pytest.raises(UserError):
            batch().reset(specs)
    with pytest.raises(UserError):
        batch().reset_rows([0, 1], [other, simple_spec(table="nowhere")])
    assert batch().specs == two and len(batch()) == 2
    for now, then in zip(batch().states(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_wrong_calls_are_refused():
    batch().reset([simple_spec()])
    for wrong in (actions(0, 2), np.zeros((1, 6), np.float32)):
        with pytest.raises(ValueError, match=r"expected \[1, 7\]"):
            batch().step(wrong)
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="the action of row 0 is not finite"):
            batch().step(np.full((1, 7), value, np.float32))
    for rows, count in (([1], 1), ([0, 0], 2), ([], 1), ([], 0)):
        with pytest.raises(ValueError, match="specs for rows"):
            batch().reset_rows(rows, [simple_spec()] * count)
    with pytest.raises(ValueError, match="4 specs for a batch of 1 to 3"):
        batch().reset([simple_spec()] * 4)
    with pytest.raises(UserError, match="backend 'tpu'"):
        make_batch("builtin", backend="tpu")
