"""The files of demonstrations: what is written, read back, resumed and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from demos import OPEN, ORIGIN, SHUT, SIDE, demo, demos_of, written

from vla_gen_bench.errors import UserError
from vla_gen_bench.train.demos import lerobot_format as form
from vla_gen_bench.train.demos.collect import Request, check_request
from vla_gen_bench.train.demos.dataset import Writer, load
from vla_gen_bench.train.demos.joined import joined


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
    monkeypatch.setattr("vla_gen_bench.train.demos.dataset.PART_DEMOS", 2)
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
    monkeypatch.setattr("vla_gen_bench.train.demos.dataset.PART_DEMOS", 2)
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


def test_pictures_are_decoded_once_for_a_ladder_of_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, [demo(index) for index in range(3)])
    assert (load(tmp_path, 1).images == load(tmp_path).images[:4]).all()
    with monkeypatch.context() as patched:
        patched.setattr("vla_gen_bench.train.demos.image_cache._decode", lambda *_: pytest.fail("decoded again"))
        assert (load(tmp_path, 1).images == load(tmp_path).images[:4]).all()
    assert len(list((tmp_path / "cache").iterdir())) == 2  # one per camera
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:200])  # cut off
    assert (load(tmp_path, 1).images == load(tmp_path).images[:4]).all()
    assert len(list((tmp_path / "cache").iterdir())) == 2  # the larger took the smaller one's place


def test_a_disk_without_room_for_the_pictures_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is asked for before anything is decoded: a map over a full disk would end the process without a word."""
    from vla_gen_bench.log.guard import sole_writer

    written(tmp_path, [demo(0)])
    [file.unlink() for file in (tmp_path / "cache").iterdir()]

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError, match="No space left on device; what was written stays"), sole_writer(tmp_path):
        load(tmp_path)
    assert not list((tmp_path / "cache").iterdir())


def test_two_cannot_write_at_once(tmp_path: Path) -> None:
    from vla_gen_bench.log.guard import sole_writer

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
    pq.write_table(pq.read_table(table).drop(["action"]), table)
    with pytest.raises(UserError, match="file-000.parquet: no 'action' in it"):
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
