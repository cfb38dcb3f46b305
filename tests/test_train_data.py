"""Demonstrations: how they are driven and labelled, what is written, and what training reads of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vla_gen_bench.errors import UserError
from vla_gen_bench.pools.draw import draw_training
from vla_gen_bench.train import frames as fr
from vla_gen_bench.train import lerobot_format as form
from vla_gen_bench.train.collect import WANDER, Request, check_request, describe, wandering, without_small
from vla_gen_bench.train.dataset import Demos, Writer, load
from vla_gen_bench.train.demonstrate import Demo, Demonstrator
from vla_gen_bench.train.disturbance import DROP_STEPS, Disturbance
from vla_gen_bench.train.joined import joined

OPEN, SHUT = 1.0, -1.0
SIDE = 32  # x264 codes 16 pixels now and then otherwise: 1 time in 60 with the same frames
ORIGIN = {"world": "builtin", "policy": "expert", "noise": 1.0, "side": SIDE, "seed": 1_000_000}


def demo(index: int = 0, gripper: tuple[float, ...] = (OPEN, SHUT, SHUT, OPEN), side: int = SIDE) -> Demo:
    """A made-up demonstration: the end effector moves 1 cm along x in every step."""
    length, random = len(gripper), np.random.default_rng(index)
    actions = np.zeros((length, 7), np.float32)
    actions[:, 0], actions[:, 6] = 0.02, gripper
    states = np.zeros((length, 7), np.float32)
    states[:, 0] = 0.01 * np.arange(length)
    images = np.repeat(random.integers(0, 255, (1, side, side, 3)), length, axis=0).astype(np.uint8)
    foreground = np.zeros((length, side, side), np.uint8)
    foreground[:, : side // 2] = 255
    spec = draw_training("builtin", 1_000_000, index)
    return Demo(spec, True, images, foreground, actions, actions + 0.001, states)


def written(folder: Path, demos: list[Demo]) -> Writer:
    writer = Writer(
        folder, SIDE, {"world": "builtin", "policy": "expert", "noise": 1.0, "side": SIDE, "seed": 1_000_000}
    )
    for item in demos:
        writer.add(item)
    writer.finish()
    return writer


@pytest.fixture
def demos(tmp_path: Path) -> Demos:
    written(tmp_path / "data", [demo(0), demo(1, (OPEN, OPEN, SHUT, OPEN, OPEN))])
    return load(tmp_path / "data")


# ---- disturbances ------------------------------------------------------------------------------------------


def test_a_disturbance_depends_on_the_episode_alone() -> None:
    def run(index: int) -> np.ndarray:
        disturb = Disturbance(1_000_000, index)
        return np.stack([disturb.apply(np.zeros(7)) for _ in range(20)])

    assert (run(3) == run(3)).all() and (run(3) != run(5)).any()


def test_a_quarter_of_the_episodes_is_left_alone() -> None:
    clean = [Disturbance(1_000_000, index).scale == 0 for index in range(2000)]
    assert 0.22 < np.mean(clean) < 0.28


def test_gripper_faults_invert_the_command_for_their_time_and_end() -> None:
    disturb = next(d for d in (Disturbance(1_000_000, i, 100.0) for i in range(9)) if d.scale)  # certain to happen
    closed = np.array([0, 0, 0, 0, 0, 0, SHUT])
    commands = [disturb.apply(closed)[6] for _ in range(40)]
    assert commands[0] == OPEN and commands.count(OPEN) >= DROP_STEPS[0]
    none = Disturbance(1_000_000, 0, 0.0)
    assert (none.apply(closed) == closed).all()


# ---- one demonstration -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demonstrator(request: pytest.FixtureRequest) -> Demonstrator:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv

    env = PickPlaceEnv(world="builtin", obs_mode="rgb+segmentation")
    request.addfinalizer(env.close)
    return Demonstrator(env, side=32, noise=1.0)


def test_a_demonstration_is_repeatable_and_clean_where_it_says_so(demonstrator: Demonstrator) -> None:
    first, again = demonstrator.run(1_000_000, 4), demonstrator.run(1_000_000, 4)
    for name in ("images", "foreground", "actions", "executed", "states"):
        assert (getattr(first, name) == getattr(again, name)).all(), name
    assert first.success and first.images.shape == (len(first), 32, 32, 3)
    clean = next(index for index in range(20) if Disturbance(1_000_000, index).scale == 0)
    undisturbed = demonstrator.run(1_000_000, clean)
    assert (undisturbed.actions == undisturbed.executed).all()
    assert (first.actions != first.executed).any() or Disturbance(1_000_000, 4).scale == 0


def test_labels_are_readable_from_the_picture(demonstrator: Demonstrator) -> None:
    """The label leads from the *measured* pose: the end effector follows it, and closing takes one frame."""
    clean = next(index for index in range(20) if Disturbance(1_000_000, index).scale == 0)
    demo = demonstrator.run(1_000_000, clean)
    shut = demo.actions[:, 6] < 0
    closing = int(np.flatnonzero(shut)[0])
    assert np.abs(demo.actions[closing, :3]).max() < 1e-6  # stands still while the fingers shut
    assert demo.actions[closing + 1, 2] > 0.003  # and lifts in the next frame, in which they are shut
    assert demo.states[closing + 1, 6] < demo.states[closing, 6] - 0.003


def test_the_driver_takes_turns_and_the_labels_stay_the_experts(demonstrator: Demonstrator) -> None:
    from vla_gen_bench.policies.simple import HoldPolicy

    mixed = Demonstrator(demonstrator.env, 32, driver=HoldPolicy(), horizon=30).run(1_000_000, 2)
    follows = (mixed.actions == mixed.executed).all(axis=1)
    holds = (mixed.executed[:, :6] == 0).all(axis=1)
    assert follows.any() and (holds & ~follows).any() and (follows | holds).all()
    assert np.abs(mixed.actions[~follows, :3]).max() > 0.01


def test_the_expert_sets_out_from_where_the_arm_has_wandered(demonstrator: Demonstrator) -> None:
    usual = demonstrator.run(1_000_000, 3)
    wide = Demonstrator(demonstrator.env, 32, wander=WANDER).run(1_000_000, 3)
    assert np.linalg.norm(wide.states[0, :3] - usual.states[0, :3]) > 0.03
    assert wide.success and demonstrator.env.draws  # and every frame that is kept was drawn
    assert len({image.tobytes() for image in wide.images[:5]}) == 5


def test_where_no_arm_wanders_demonstrations_begin_at_once() -> None:
    assert len(wandering(0.0).moves(1_000_000, 0, 3)) == 0
    assert len(wandering(1.0).moves(1_000_000, 0, 3)) == WANDER.steps


# ---- the files ---------------------------------------------------------------------------------------------


def test_written_demonstrations_are_read_back(tmp_path: Path) -> None:
    items = [demo(0), replace(demo(1), success=False), demo(2)]
    writer = written(tmp_path, items)
    assert (writer.kept, writer.attempts, sum(writer.own["failed"].values())) == (2, 3, 1)
    read = load(tmp_path)
    assert len(read) == 2 and read.starts.tolist() == [0, 4, 8] and read.world == "builtin"
    assert (read.actions[:4] == items[0].actions).all() and (read.executed[4:] == items[2].executed).all()
    assert read.instructions[1] == items[2].spec.instruction and read.tables[1] == items[2].spec.table
    assert np.abs(read.images[4].astype(int) - items[2].images[0]).mean() < 4  # random pixels: the worst case for video
    assert np.abs(read.foreground[0].astype(int) - items[0].foreground[0]).mean() < 2


def test_the_folder_follows_lerobots_layout(tmp_path: Path) -> None:
    import pandas as pd
    import pyarrow.parquet as pq

    written(tmp_path, [demo(0), demo(1)])
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"]) == ("v3.0", 5, 8)
    file = pq.ParquetFile(tmp_path / info["data_path"].format(chunk_index=0, file_index=0))
    assert file.num_row_groups == 2 and set(file.schema_arrow.names) == {
        key for key, feature in info["features"].items() if feature["dtype"] != "video"
    }
    frame = file.read().to_pandas()
    assert frame["index"].tolist() == list(range(8)) and frame["frame_index"].tolist() == [0, 1, 2, 3] * 2
    assert frame["timestamp"].tolist()[:4] == pytest.approx([0, 0.2, 0.4, 0.6])
    tasks = pd.read_parquet(tmp_path / "meta/tasks.parquet")
    episodes = pd.read_parquet(tmp_path / "meta/episodes/chunk-000/file-000.parquet")
    assert tasks.index.name == "task" and list(tasks.index) == sorted({row[0] for row in episodes["tasks"]})
    assert episodes[f"videos/{form.IMAGE}/to_timestamp"].tolist() == pytest.approx([0.8, 1.6])
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    assert stats["action"]["q99"][0] == pytest.approx(0.02) and np.shape(stats[form.IMAGE]["mean"]) == (3, 1, 1)


def test_an_interrupted_collection_goes_on_after_its_last_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla_gen_bench.train.dataset.PART_DEMOS", 2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    written(whole, [demo(index) for index in range(5)])
    first = Writer(broken, SIDE, ORIGIN)
    for index in range(3):  # killed with one demonstration not written yet
        first.add(demo(index))
    second = Writer(broken, SIDE, ORIGIN)
    assert (second.kept, second.attempts) == (2, 2)
    for index in range(2, 5):
        second.add(demo(index))
    second.finish()
    a, b = load(whole), load(broken)
    assert (a.actions == b.actions).all() and (a.images == b.images).all() and a.instructions == b.instructions


def test_a_part_counts_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two files that tell of a part: LeRobot's is repeated from the other one."""
    monkeypatch.setattr("vla_gen_bench.train.dataset.PART_DEMOS", 2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    written(whole, [demo(index) for index in range(6)])
    first = Writer(broken, SIDE, ORIGIN)
    for index in range(2):
        first.add(demo(index))
    before = (broken / form.INFO_FILE).read_bytes()
    for index in (2, 3):
        first.add(demo(index))
    (broken / form.INFO_FILE).write_bytes(before)
    assert len(load(broken)) == 4
    second = Writer(broken, SIDE, ORIGIN)
    assert (second.kept, second.attempts) == (4, 4)
    for index in (4, 5):
        second.add(demo(index))
    second.finish()
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and "cache" not in path.parts)
    for file in files:
        assert (whole / file).read_bytes() == (broken / file).read_bytes(), file


def test_a_full_disk_while_a_part_is_counted_leaves_it_to_be_written_again(tmp_path: Path, monkeypatch) -> None:
    writer = Writer(tmp_path, SIDE, {"world": "builtin"})
    writer.add(demo(0))
    write = form.write_json
    monkeypatch.setattr(form, "write_json", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        writer.flush()
    monkeypatch.setattr(form, "write_json", write)
    writer.finish()
    assert (writer.kept, len(load(tmp_path)), writer.own["parts"]) == (1, 1, 1)


def test_statistics_that_a_kill_left_out_are_caught_up_on(tmp_path: Path) -> None:
    writer = written(tmp_path, [demo(0)])
    assert writer.finished
    (tmp_path / form.STATS_FILE).unlink()
    assert not writer.finished


def test_collecting_into_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(UserError, match="is no data set, and holds recipe.yaml; choose another --out"):
        Writer(tmp_path, SIDE, {"world": "builtin"})


def test_pictures_are_decoded_once_for_a_ladder_of_sizes(tmp_path: Path) -> None:
    written(tmp_path, [demo(index) for index in range(3)])
    assert (load(tmp_path, 1).images == load(tmp_path).images[:4]).all()
    assert len(list((tmp_path / "cache").iterdir())) == 2  # one per camera
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:200])  # cut off
    assert (load(tmp_path, 1).images == load(tmp_path).images[:4]).all()
    assert len(list((tmp_path / "cache").iterdir())) == 2  # the larger took the smaller one's place


def test_a_disk_without_room_for_the_pictures_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is asked for before anything is decoded: a map over a full disk would end the process without a word."""
    from vla_gen_bench.train.guard import sole_writer

    written(tmp_path, [demo(0)])
    [file.unlink() for file in (tmp_path / "cache").iterdir()]

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError, match="No space left on device; what was written stays"), sole_writer(tmp_path):
        load(tmp_path)
    assert not list((tmp_path / "cache").iterdir())


def test_two_cannot_write_at_once(tmp_path: Path) -> None:
    from vla_gen_bench.train.guard import sole_writer

    with sole_writer(tmp_path), pytest.raises(UserError, match="another process is writing there"):
        with sole_writer(tmp_path):
            pass
    with sole_writer(tmp_path):
        pass


def test_a_folder_is_not_continued_with_other_settings(tmp_path: Path) -> None:
    written(tmp_path, [demo(0)])
    with pytest.raises(UserError, match="was collected with noise 1.0, not 0.5; choose another --out"):
        Writer(tmp_path, SIDE, {"world": "builtin", "noise": 0.5})
    Writer(tmp_path, SIDE, {"world": "builtin", "wander": 0.0})  # what there was before --wander
    with pytest.raises(UserError, match="was collected with wander 0.0, not 0.3"):
        Writer(tmp_path, SIDE, {"world": "builtin", "wander": 0.3})


def test_smaller_sets_are_subsets_of_larger_ones(tmp_path: Path) -> None:
    written(tmp_path, [demo(index) for index in range(3)])
    small, large = load(tmp_path, 1), load(tmp_path)
    assert (large.actions[:4] == small.actions).all() and large.instructions[:1] == small.instructions
    with pytest.raises(UserError, match="holds 3 demonstrations, 9 were asked for"):
        load(tmp_path, 9)


def test_joined_sets_are_read_one_after_the_other(tmp_path: Path) -> None:
    first, second = demos_of([(OPEN, SHUT, OPEN), (OPEN,)]), demos_of([(SHUT, SHUT)])
    both = joined([first, second], ["a", "b"])
    assert len(both) == 3 and both.starts.tolist() == [0, 3, 4, 6] and both.episode.tolist() == [0, 0, 0, 1, 2, 2]
    frames = np.array([5, 0, 3, 4])
    for name in ("images", "foreground", "actions", "states"):
        whole = np.concatenate([getattr(first, name), getattr(second, name)])
        assert (getattr(both, name)[frames] == whole[frames]).all(), name
    assert (both.images[4] == second.images[0]).all() and both.images.shape == (6, *first.images.shape[1:])
    assert both.instructions == first.instructions + second.instructions
    with pytest.raises(IndexError):
        both.images[np.array([6])]
    with pytest.raises(UserError, match="b: world rl4vla, that of a is builtin; they cannot be joined"):
        joined([first, replace(second, world="rl4vla")], ["a", "b"])


def test_broken_files_are_named(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    with pytest.raises(UserError, match="not found; is this a folder that 'vgb collect' wrote"):
        load(tmp_path)
    written(tmp_path, [demo(0)])
    video = tmp_path / form.Place(0).file(tmp_path, form.VIDEO_PATH, video_key=form.IMAGE)
    (tmp_path / "cache").exists() and [file.unlink() for file in (tmp_path / "cache").iterdir()]
    video.write_bytes(video.read_bytes()[:200])
    with pytest.raises(UserError, match="file-000.mp4: cannot be decoded"):
        load(tmp_path)
    table = form.Place(0).file(tmp_path, form.DATA_PATH)
    pq.write_table(pq.read_table(table).drop(["action.executed"]), table)
    with pytest.raises(UserError, match="file-000.parquet: no 'action.executed' in it"):
        load(tmp_path)
    table.write_bytes(table.read_bytes()[:100])
    with pytest.raises(UserError, match="file-000.parquet: cannot be read as parquet"):
        load(tmp_path)
    (tmp_path / "meta/vgb.json").write_text('{"origin": {}}')
    with pytest.raises(UserError, match="vgb.json: no 'attempts' in it"):
        load(tmp_path)


@pytest.mark.parametrize("seed", [0, 999_999, 1_200_000, 1_900_000])
def test_demonstrations_keep_off_the_seeds_of_evaluations_and_checks(tmp_path: Path, seed: int) -> None:
    with pytest.raises(UserError, match="demonstrations use training seeds, 1000000 to 1199999"):
        check_request(Request(1, tmp_path, seed=seed))


# ---- what training reads -----------------------------------------------------------------------------------


def test_phases_are_read_off_the_labels() -> None:
    """open, SHUT, shut, OPEN, open: approach, close, carry, release, retreat."""
    single = demos_of([(OPEN, SHUT, SHUT, OPEN, OPEN)])
    kinds = fr.kinds_of(single)
    assert [fr.PHASES[p] for p in kinds.phase] == ["approach", "close", "carry", "release", "retreat"]
    assert kinds.next_close.tolist() == [1, 1, -1, -1, -1] and kinds.next_free.tolist() == [3, 3, 3, 3, -1]


def test_a_dropped_object_is_approached_again() -> None:
    kinds = fr.kinds_of(demos_of([(OPEN, SHUT, OPEN, OPEN, SHUT, OPEN)]))
    assert [fr.PHASES[p] for p in kinds.phase] == ["approach", "close", "release", "approach", "close", "release"]


def demos_of(grippers: list[tuple[float, ...]]) -> Demos:
    items = [demo(index, gripper) for index, gripper in enumerate(grippers)]
    lengths = [len(item) for item in items]
    joined = {
        name: np.concatenate([getattr(item, name) for item in items])
        for name in ("images", "foreground", "actions", "executed", "states")
    }
    return Demos(
        **joined,
        episode=np.repeat(np.arange(len(items)), lengths),
        instructions=[item.spec.instruction for item in items],
        tables=[item.spec.table for item in items],
        targets=[item.spec.target.id for item in items],
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        world="builtin",
    )


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


def test_garbled_prompts_keep_the_template_and_some_words() -> None:
    prompt, words = [1, 414, *range(500, 540), 415], range(3, 448)
    found = [fr.garbled(prompt, (2, 1), 8, words, np.random.default_rng(n)) for n in range(50)]
    assert all(ids[:2] == [1, 414] and ids[-1] == 415 and len(ids) == len(prompt) + 8 for ids in found)
    kept = [[id for id in ids[2:-1] if id >= 500] for ids in found]
    assert all(ids == sorted(ids) for ids in kept)  # in their order
    assert 0.4 < np.mean([len(ids) for ids in kept]) / 40 < 0.6
    assert {id for ids in found for id in ids[2:-1] if id < 500} <= set(words)
    assert fr.garbled([1, 414, 415], (2, 1), 0, words, np.random.default_rng(0)) == [1, 414, 415]


def test_tables_come_from_the_training_pool_alone() -> None:
    from vla_gen_bench.assets.catalog import load_catalog

    catalog = load_catalog("builtin")
    assert set(fr.table_images("builtin", 16)) == set(catalog.ids("tables", "train"))


def test_shifts_move_by_whole_pixels_and_repeat_the_edge() -> None:
    images = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(3, axis=3)
    camera = fr.Camera(
        images, images[..., 0], np.array([0]), np.zeros((1, 8, 8, 3), np.float32), fr.Augment(shift=0.125)
    )
    moved = camera.take(np.array([0]), np.random.default_rng(1))[0, 0].numpy() * 255
    original = images[0, ..., 0]
    rows, columns = np.indices((8, 8))
    shifts = [original[np.clip(rows + dy, 0, 7), np.clip(columns + dx, 0, 7)] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    assert any(np.allclose(moved, shifted, atol=1e-3) for shifted in shifts)


def test_show_tells_counts_and_shares(demos: Demos) -> None:
    facts = describe(demos, {"attempts": 3, "failed": {"pipe": 1}, "origin": {}})
    assert (facts["demonstrations"], facts["frames"], facts["success"]) == (2, 9, pytest.approx(2 / 3))
    assert sum(facts["phases"].values()) == pytest.approx(1) and sum(facts["objects"].values()) == 2


# ---- the commands ------------------------------------------------------------------------------------------


def test_collect_show_and_preview(cli, tmp_path: Path) -> None:
    data = tmp_path / "data"
    result = cli("collect", "--episodes", "2", "--image-size", "32", "--workers", "1", "--out", str(data))
    assert result.exit_code == 0, result.output
    assert "2 demonstrations" in result.stdout and len(load(data)) == 2
    again = cli("collect", "--episodes", "2", "--image-size", "32", "--workers", "1", "--out", str(data), "--json")
    assert json.loads(again.stdout)["demonstrations"] == 2
    shown = cli("data", "show", str(data))
    assert shown.exit_code == 0 and "2 demonstrations" in shown.stdout and "gripper" in shown.stdout
    video = tmp_path / "preview.mp4"
    assert cli("data", "preview", str(data), "--out", str(video), "--episodes", "1").exit_code == 0
    assert video.stat().st_size > 1000
    assert cli("data", "preview", str(data), "--out", str(video)).exit_code == 0  # fewer than the default number


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    """The parent is killed before its child has looked who it is."""
    code = (
        "import os, subprocess, sys, time; from vla_gen_bench.train.guard import end_with\n"
        "if len(sys.argv) > 1: end_with(int(sys.argv[1])); time.sleep(60); os._exit(0)\n"
        "child = subprocess.Popen([sys.executable, __file__, str(os.getpid())]); print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    file = tmp_path / "parent.py"
    file.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True, env=environment)
    assert int(parent.stdout.readline()) > 0
    parent.kill()
    parent.wait()
    began = time.monotonic()
    parent.stdout.read()  # its end comes when the child, which holds the pipe too, is gone
    assert time.monotonic() - began < 40
