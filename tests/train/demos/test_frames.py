"""What training reads of demonstrations: phases, hindsight, weights, tables, prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from demos import OPEN, SHUT, demo, demos_of, written

from vla_gen_bench.train.demos import frames as fr
from vla_gen_bench.train.demos.collect import describe, without_small
from vla_gen_bench.train.demos.dataset import Demos, load


@pytest.fixture
def demos(tmp_path: Path) -> Demos:
    written(tmp_path / "data", [demo(0), demo(1, (OPEN, OPEN, SHUT, OPEN, OPEN))])
    return load(tmp_path / "data")


def test_phases_are_read_off_the_labels() -> None:
    """open, SHUT, shut, OPEN, open: approach, close, carry, release, retreat."""
    single = demos_of([(OPEN, SHUT, SHUT, OPEN, OPEN)])
    kinds = fr.kinds_of(single)
    assert [fr.PHASES[p] for p in kinds.phase] == ["approach", "close", "carry", "release", "retreat"]
    assert kinds.next_close.tolist() == [1, 1, -1, -1, -1] and kinds.next_free.tolist() == [3, 3, 3, 3, -1]


def test_a_dropped_object_is_approached_again() -> None:
    kinds = fr.kinds_of(demos_of([(OPEN, SHUT, OPEN, OPEN, SHUT, OPEN)]))
    assert [fr.PHASES[p] for p in kinds.phase] == ["approach", "close", "release", "approach", "close", "release"]


def test_hindsight_is_the_way_to_the_next_closing_and_letting_go() -> None:
    """Frames at x = 0, 1, 2, 3 cm; closes in frame 1, opens in frame 3."""
    demos = demos_of([(OPEN, SHUT, SHUT, OPEN)])
    targets, known = fr.hindsight(demos, fr.kinds_of(demos))
    to_close, to_free = fr.AUXILIARY.index("close dx"), fr.AUXILIARY.index("free dx")
    assert targets[:2, to_close] == pytest.approx([0.01, 0.0]) and known[:, to_close].tolist() == [1, 1, 0, 0]
    assert targets[:, to_free] == pytest.approx([0.03, 0.02, 0.01, 0.0]) and known[:, to_free].all()


def test_episodes_do_not_look_into_each_other(demos: Demos) -> None:
    kinds = fr.kinds_of(demos)
    ends = demos.starts[demos.episode + 1]
    for events in (kinds.next_close, kinds.next_free):
        assert ((events < ends) & ((events >= demos.starts[demos.episode]) | (events == -1))).all()


def test_the_papers_filter_drops_small_moves_but_no_switch() -> None:
    """1 cm and 0.06 rad at most, gripper as before: RL4VLA's rule."""
    actions = np.zeros((5, 7), np.float32)
    actions[:, 6] = [OPEN, OPEN, SHUT, SHUT, SHUT]
    actions[1, 0], actions[4, 5] = 0.011, 0.07
    assert fr.small_moves(actions, np.array([0])).tolist() == [True, False, False, True, False]
    item = replace(demo(0, (OPEN, SHUT, SHUT, OPEN)), actions=np.concatenate([actions[:4]]))
    assert len(without_small(item)) == 2


def test_balance_weighs_switches_and_what_comes_before() -> None:
    demos = demos_of([(OPEN, OPEN, OPEN, SHUT, SHUT, OPEN, OPEN)])
    weights = fr.weights_of(demos, fr.kinds_of(demos), fr.Balance(begin=3, switch=4, before=2, steps=2, done=0.5))
    assert weights.tolist() == [3, 2, 2, 4, 2, 4, 0.5]  # the first frame begins; its neighbours come before the switch


def test_another_table_shows_only_where_nothing_stands_before_it() -> None:
    side = 4
    tables = np.stack([np.full((side, side, 3), value, np.float32) for value in (10.0, 110.0)])
    images = np.full((1, side, side, 3), 10, np.uint8)
    foreground = np.zeros((1, side, side), np.uint8)
    images[0, :2], foreground[0, :2] = 200, 255
    camera = fr.Camera(images, foreground, np.array([0]), tables, fr.Augment(tables=1.0))
    seen = {round(float(camera.take(np.array([0]), np.random.default_rng(n))[0, 0, 3, 3]) * 255) for n in range(20)}
    assert seen == {10, 110}
    for n in range(5):
        assert float(camera.take(np.array([0]), np.random.default_rng(n))[0, 0, 0, 0]) * 255 == pytest.approx(200)
    assert float(camera.take(np.array([0]), None)[0, 0, 3, 3]) * 255 == pytest.approx(10)


def test_mixed_tables_are_blends_of_two_mirrored_at_random() -> None:
    """Tables of 0 but for a corner of 100, and of 200: blends are p * 200 + (1 - p) * (0 or 100) anywhere."""
    tables = np.stack([np.zeros((4, 4, 3), np.float32), np.full((4, 4, 3), 200, np.float32)])
    tables[0, 0, 0] = 100
    blank = np.zeros((1, 4, 4, 3), np.uint8)
    blank[0, 0, 0] = 100
    camera = fr.Camera(blank, blank[..., 0] * 0, np.array([0]), tables, fr.Augment(tables=1.0, mix=1.0))
    seen = np.stack([camera.take(np.array([0]), np.random.default_rng(n))[0, 0].numpy() * 255 for n in range(200)])
    middle, corners = seen[:, 1, 1], seen[:, [0, 0, 3, 3], [0, 3, 0, 3]] - seen[:, 1, 1, None]
    assert len(np.unique(middle.round())) > 20 and middle.max() <= 200.5
    assert (corners.max(axis=0) > 30).all()  # the bright corner turns up in all four
    same = (middle < 1) & (corners.max(axis=1) > 99)
    assert same.any()  # twice the same table, mirrored alike


def test_tables_come_from_the_training_pool_alone() -> None:
    from vla_gen_bench.episodes.catalog import load_catalog

    catalog = load_catalog("builtin")
    assert set(fr.table_images("builtin", 16)) == set(catalog.ids("tables", "train"))


def test_shifts_move_by_whole_pixels_and_repeat_the_edge() -> None:
    images = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(3, axis=3)
    camera = fr.Camera(
        images, images[..., 0], np.array([0]), np.zeros((1, 8, 8, 3), np.float32), fr.Augment(shift=0.125)
    )
    original = images[0, ..., 0]
    rows, columns = np.indices((8, 8))
    shifts = [original[np.clip(rows + dy, 0, 7), np.clip(columns + dx, 0, 7)] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    seen = set()
    for seed in range(200):
        moved = camera.take(np.array([0]), np.random.default_rng(seed))[0, 0].numpy() * 255
        (which,) = [place for place, shifted in enumerate(shifts) if np.allclose(moved, shifted, atol=1e-3)]
        seen.add(which)
    assert seen == set(range(9))  # by one pixel in every direction, and not at all


def test_show_tells_counts_and_shares(demos: Demos) -> None:
    facts = describe(demos, {"attempts": 3, "failed": {"pipe": 1}, "origin": {}})
    assert (facts["demonstrations"], facts["frames"], facts["success"]) == (2, 9, pytest.approx(2 / 3))
    assert sum(facts["phases"].values()) == pytest.approx(1) and sum(facts["objects"].values()) == 2
