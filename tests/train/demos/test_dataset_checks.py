"""Demonstrations that are not as `vgb collect` writes them are refused by file and field, not learned from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from demos import ORIGIN, SIDE, demo, written

from vla_gen_bench.errors import UserError
from vla_gen_bench.study.inputs import data_digest
from vla_gen_bench.train.demos import dataset
from vla_gen_bench.train.demos import lerobot_format as form
from vla_gen_bench.train.demos.dataset import load

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    kept, dataset.PART_DEMOS = dataset.PART_DEMOS, 2
    try:
        written(folder, [demo(index) for index in range(3)])  # two parts
    finally:
        dataset.PART_DEMOS = kept
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "demos", ignore=shutil.ignore_patterns("cache"))
    return tmp_path / "demos"


def info(change: Callable[[dict], Any]) -> Change:
    return lambda folder: edit(folder / "meta/info.json", change)


def own(change: Callable[[dict], Any]) -> Change:
    return lambda folder: edit(folder / "meta/vgb.json", change)


def edit(file: Path, change: Callable[[dict], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def episodes(column: str, value: Any) -> Change:
    def change(folder: Path) -> None:
        file = form.Place(0).path(folder, form.EPISODES_PATH)
        table = pd.read_parquet(file)
        table[column] = [value] * len(table)
        table.to_parquet(file)

    return change


def frames(change: Callable[[pa.Table], pa.Table], part: int = 0) -> Change:
    def apply(folder: Path) -> None:
        file = form.Place(part).path(folder, form.DATA_PATH)
        pq.write_table(change(pq.read_table(file)), file)

    return apply


def number(column: str, row: int, place: int, value: float) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        field = table.schema.field(column)
        values = np.stack(table[column].to_pylist()).astype(np.float32)
        values[row, place] = value
        return table.set_column(table.schema.get_field_index(column), field, pa.array(list(values), field.type))

    return change


def gripper_of_zero_and_one(table: pa.Table) -> pa.Table:
    for row, values in enumerate(table["action"].to_pylist()):
        table = number("action", row, 6, float(values[6] > 0))(table)
    return table


def by_pandas(folder: Path) -> None:
    file = form.Place(0).path(folder, form.DATA_PATH)
    pd.read_parquet(file).to_parquet(file)


CASES = {
    "features null": (info(lambda x: x.update(features=None)), "info.json: features: expected a mapping"),
    "camera missing": (info(lambda x: x["features"].pop(form.IMAGE)), f"info.json: features.{form.IMAGE}: missing"),
    "channels first": (
        info(lambda x: x["features"][form.IMAGE].update(shape=[3, 32, 32])),
        r"info.json: .*shape: \[3, 32, 32\]",
    ),
    "shape null": (info(lambda x: x["features"][form.IMAGE].update(shape=None)), "info.json: .*shape: None"),
    "not square": (info(lambda x: x["features"][form.IMAGE].update(shape=[16, 32, 3])), "info.json: .*shape"),
    "another size than the videos": (
        info(lambda x: [x["features"][key].update(shape=[16, 16, 3]) for key in form.cameras(False)]),
        "file-000.mp4: frames of 32x32; info.json tells of 16 px",
    ),
    "other columns": (
        info(lambda x: x["features"]["action"].update(names=["x", "y", "z", "qx", "qy", "qz", "g"])),
        "info.json: features.action.names",
    ),
    "another rate": (info(lambda x: x.update(fps=10)), "info.json: fps: 10; expected 5"),
    "parts as text": (own(lambda x: x.update(parts="1")), "vgb.json: parts: expected a whole number, got '1'"),
    "totals as text": (own(lambda x: x["totals"].update(total_episodes="3")), "vgb.json: totals.total_episodes"),
    "origin null": (own(lambda x: x.update(origin=None)), "vgb.json: origin: expected a mapping"),
    "rewritten by pandas": (by_pandas, r"file-000.parquet: action: is .*; expected float\[7\]"),
    "length NaN": (episodes("length", float("nan")), "file-000.parquet: length: is double; expected int"),
    "length -1": (episodes("length", -1), "file-000.parquet: length: row 0 is -1; expected at least 1"),
    "length too short": (episodes("length", 3), "file-000.parquet: dataset_from_index: row 1 is 4"),
    "length as text": (episodes("length", "4"), "file-000.parquet: length: is .*string; expected int"),
    "tasks empty": (episodes("tasks", []), "file-000.parquet: tasks"),
    "a task of spaces": (episodes("tasks", [" "]), "file-000.parquet: tasks: row 0 holds no instruction"),
    "tasks as text": (episodes("tasks", "put a on b"), r"file-000.parquet: tasks: is .*; expected list<string>"),
    "table missing": (episodes("vgb/table", None), "file-000.parquet: vgb/table"),
    "an episode without anything": (episodes("vgb/spec", "{}"), "vgb/spec: is no episode: '{}'; collect it again"),
    "rows in another order": (
        frames(lambda table: table.take(np.arange(len(table))[::-1])),
        "file-000.parquet: index: row 0 is 7; expected the frames in the order of the videos",
    ),
    "rows in another order, renumbered": (
        frames(
            lambda table: table.take([4, 5, 6, 7, 0, 1, 2, 3]).set_column(
                table.schema.get_field_index("index"), table.schema.field("index"), pa.array(np.arange(8))
            )
        ),
        "file-000.parquet: episode_index: row 0 is 1",
    ),
    "the second part": (frames(lambda table: table.slice(1), 1), "file-001.parquet: holds 3 frames, .* tell of 4"),
    "a row twice": (frames(lambda table: pa.concat_tables([table, table.slice(7)])), "holds 9 frames, .* tell of 8"),
    "gripper 0 and 1": (
        frames(gripper_of_zero_and_one),
        r"file-000.parquet: action: gripper: row 1 is 0.0; expected 1 \(open\) or -1 \(closed\)",
    ),
    "NaN in an action": (
        frames(number("action", 3, 0, np.nan)),
        r"action: row 3 is \[nan, .*; expected finite numbers",
    ),
    "infinite state": (frames(number("observation.state", 2, 1, np.inf)), "observation.state: row 2 is .*inf"),
}


@pytest.mark.parametrize("name", CASES)
def test_odd_demonstrations_are_refused_by_file_and_field(folder: Path, name: str) -> None:
    change, message = CASES[name]
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (info(lambda x: x.update(total_episodes="3")), "info.json: total_episodes: expected a whole number, got '3'"),
        (own(lambda x: x["origin"].pop("noise")), "vgb.json: origin.noise: expected a number, got None"),
        (own(lambda x: x["origin"].update(policy=None)), "vgb.json: origin.policy: expected a name, got None"),
    ],
)
def test_data_commands_name_what_is_damaged(cli, folder: Path, change: Change, message: str) -> None:
    change(folder)
    command = "preview" if "total" in message else "show"
    ran = cli("data", command, folder, *(["--out", folder / "p.mp4"] if command == "preview" else []))
    assert ran.exit_code == 2 and message in ran.stderr


def test_a_preview_of_no_known_format_is_refused_before_any_work(cli, tmp_path: Path) -> None:
    for given in ("p.txt", "p"):
        ran = cli("data", "preview", tmp_path / "anything", "--out", tmp_path / given)
        assert ran.exit_code == 2 and f"{given}: its name must end in .mp4 or .mkv or .mov; give another" in ran.stderr


def test_a_collection_is_not_continued_over_damaged_files(folder: Path) -> None:
    own(lambda x: x["totals"].update(total_tasks=None))(folder)
    with pytest.raises(UserError, match="vgb.json: totals.total_tasks: expected a whole number"):
        dataset.Writer(folder, SIDE, ORIGIN)
    own(lambda x: x.pop("totals"))(folder)
    info(lambda x: x.pop("total_frames"))(folder)
    with pytest.raises(UserError, match="info.json: total_frames: expected a whole number, got None"):
        dataset.Writer(folder, SIDE, ORIGIN)
    (folder / form.STATS_FILE).write_text("{}")
    info(lambda x: x.update(total_frames=12))(folder)
    assert not dataset.Writer(folder, SIDE, ORIGIN).finished
    (folder / form.TASKS_FILE).write_bytes(b"cut off")
    writer = dataset.Writer(folder, SIDE, ORIGIN)
    writer.add(demo(3))
    with pytest.raises(UserError, match="tasks.parquet: cannot be read as parquet"):
        writer.flush()


def test_sound_demonstrations_of_several_parts_are_read(folder: Path) -> None:
    read = load(folder)
    assert len(read) == 3 and read.starts.tolist() == [0, 4, 8, 12] and read.images.shape == (12, 32, 32, 3)
    assert len(load(folder, 1).actions) == 4


def test_a_folder_that_cannot_be_written_is_read_through_the_cache_of_the_package(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.array(load(folder).images)
    shutil.rmtree(folder / "cache")
    (folder / "cache").write_text("")  # as root nothing else keeps a folder from being made here
    monkeypatch.setenv("VGB_CACHE", str(tmp_path / "elsewhere"))
    assert np.array_equal(load(folder).images, expected)
    assert len(list(tmp_path.glob("elsewhere/demos/*/*.npy"))) == 2
    monkeypatch.setenv("VGB_CACHE", str(folder / "cache/below a file"))
    with pytest.raises(UserError, match="no room for decoded images.*set VGB_CACHE"):
        load(folder)


def test_videos_that_changed_are_decoded_again(folder: Path) -> None:
    """Whatever their new time: one from a backup is older than the cache."""
    before = load(folder).images
    video = form.video_file(folder, form.Place(0), form.IMAGE)
    form.write_video(video, np.zeros((8, SIDE, SIDE, 3), np.uint8))
    os.utime(video, (1e9, 1e9))
    after = load(folder).images
    assert before[:8].any() and not after[:8].any() and (after[8:] == before[8:]).all()
    assert len(list(folder.glob(f"cache/{form.IMAGE}-12-*.npy"))) == 1


def test_a_cache_of_an_earlier_version_is_not_trusted(folder: Path) -> None:
    """KEY-COUNT.npy does not tell which videos it was made from."""
    expected = np.array(load(folder).images)
    (cache,) = folder.glob(f"cache/{form.IMAGE}-*.npy")
    old = cache.rename(folder / "cache" / f"{form.IMAGE}-12.npy")
    np.save(old, np.zeros_like(expected))
    assert np.array_equal(load(folder).images, expected) and not old.exists()


def test_a_digest_of_data_does_not_change_with_the_name_of_a_cache(folder: Path) -> None:
    """Studies of earlier versions recorded it with KEY-COUNT.npy."""
    load(folder)
    now = data_digest(folder, everything=True)
    for cache in folder.glob("cache/*.npy"):
        cache.rename(cache.with_name(f"{cache.name.rpartition('-')[0]}.npy"))
    assert {file.name for file in folder.glob("cache/*")} == {f"{form.IMAGE}-12.npy", "foreground-12.npy"}
    assert data_digest(folder, everything=True) == now
