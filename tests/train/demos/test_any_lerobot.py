"""What `vgb collect` writes holds only what a policy may see, and any LeRobotDataset v3.0 can be trained on."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from demos import OPEN, ORIGIN, SHUT, SIDE, demo, written
from PIL import Image

from vla_gen_bench.errors import UserError
from vla_gen_bench.protocol import STATE_NAMES
from vla_gen_bench.train.demos import lerobot_format as form
from vla_gen_bench.train.demos.dataset import Writer, load
from vla_gen_bench.train.demos.lerobot_reader import DataMap, converted, local_folder


def observed(item, wrist: bool = False):
    """The demonstration with the state and the wrist camera of a real one."""
    states = np.zeros((len(item), 17), np.float32)
    states[:, 0], states[:, 3], states[:, 16] = item.states[:, 0], 1.0, 0.5
    return replace(item, observed=states, wrist=255 - item.images if wrist else None)


def foreign(folder: Path, *items) -> Path:
    """A data set as LeRobot's tools leave ours after an edit: no files of our own."""
    written(folder, [observed(item) for item in items])
    shutil.rmtree(folder / form.OWN_FOLDER)
    (folder / "meta" / "vgb.json").unlink()
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return folder


def test_features_hold_only_what_a_policy_may_see(tmp_path):
    writer = Writer(tmp_path, SIDE, ORIGIN, wrist=True)
    writer.add(observed(demo(0), wrist=True))
    writer.finish()
    info = json.loads((tmp_path / "meta/info.json").read_text())
    cameras = {key for key, feature in info["features"].items() if feature["dtype"] == "video"}
    assert cameras == {"observation.images.external", "observation.images.wrist"}
    assert {key for key in info["features"] if key.startswith(("action", "observation.state"))} == {
        "action", "observation.state",
    }  # fmt: skip
    assert info["features"]["observation.state"]["names"] == list(STATE_NAMES)
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    assert set(stats) == {"action", "observation.state", *cameras}
    read = load(tmp_path)
    assert (read.executed == demo(0).executed).all() and read.foreground.std() > 0  # training here still has them


def test_an_edited_data_set_is_read_without_what_only_we_know(tmp_path):
    read = load(foreign(tmp_path, demo(0), demo(1, (OPEN, SHUT, OPEN))), world="builtin")
    assert len(read) == 2 and read.starts.tolist() == [0, 4, 7] and read.world == "builtin"
    assert (read.actions[:4] == demo(0).actions).all() and (read.executed == read.actions).all()
    assert (read.foreground == 255).all() and read.tables == ["", ""]
    assert np.allclose(read.states[:, 0], [0, 0.01, 0.02, 0.03, 0, 0.01, 0.02])  # read off the state
    assert np.allclose(read.states[:, 6], 0.026)
    assert np.abs(read.images[4].astype(int) - demo(1).images[0]).mean() < 4
    assert read.instructions[1] == demo(1).spec.instruction


def test_fewer_episodes_than_we_wrote_is_an_edit(tmp_path):
    """LeRobot's tools rewrite its own files and leave ours, which no longer fit."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    written(whole, [observed(demo(index)) for index in range(3)])
    written(part, [observed(demo(index)) for index in (0, 1)])
    for name in ("vgb", "meta/vgb.json"):
        target = part / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        (shutil.copytree if (whole / name).is_dir() else shutil.copy)(whole / name, target)
    assert len(load(part, world="builtin")) == 2


def renamed(folder: Path) -> Path:
    """Somebody else's data set: other names, images within the table, a gripper that says 1 for closed."""
    foreign(folder, demo(0), demo(1))
    file = form.Place(0).file(folder, form.DATA_PATH)
    table = pq.read_table(file)
    pictures = list(form.read_video(form.video_file(folder, form.Place(0), form.IMAGE)))
    cells = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    actions = np.stack(table.column("action").to_pylist())
    actions[:, 6] = (1 - actions[:, 6]) / 2
    columns = {name: table.column(name) for name in table.column_names if name not in ("action", "observation.state")}
    columns |= {"top": pa.array(cells), "act": form._column(actions.astype(np.float32))}
    pq.write_table(pa.table(columns), file)
    shutil.rmtree(folder / "videos")
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"] = {
        "top": {"dtype": "image", "shape": [SIDE, SIDE, 3], "names": None},
        "act": {"dtype": "float32", "shape": [7], "names": None},
    }
    (folder / "meta/info.json").write_text(json.dumps(info))
    return folder


def test_a_mapping_reads_others_data(tmp_path):
    mapping = DataMap(image="top", action="act", adapter=({"gripper": {"closed": 1, "open": 0}},), side=48)
    read = load(renamed(tmp_path), mapping=mapping, world="builtin")
    assert read.images.shape == (8, 48, 48, 3) and not read.states.any()
    assert (read.actions[:4] == demo(0).actions).all()


def change_frames(folder: Path, change) -> None:
    file = form.Place(0).file(folder, form.DATA_PATH)
    pq.write_table(change(pq.read_table(file)), file)


def change_episodes(folder: Path, change) -> None:
    file = form.Place(0).file(folder, form.EPISODES_PATH)
    change(pd.read_parquet(file)).to_parquet(file, index=False)


@pytest.mark.parametrize("episodes", [1, None])
def test_images_within_the_table_stay_with_their_actions_whatever_the_order_of_rows(tmp_path, episodes):
    """Numbers are sorted by `index`; images came in the order of the file."""
    mapping = DataMap(image="top", action="act", adapter=({"gripper": {"closed": 1, "open": 0}},), side=SIDE)
    folder = renamed(tmp_path)
    before = load(folder, episodes, mapping=mapping, world="builtin")
    change_frames(folder, lambda table: table.take([5, 0, 7, 2, 1, 6, 3, 4]))
    after = load(folder, episodes, mapping=mapping, world="builtin")
    assert (after.actions == before.actions).all() and (after.images == before.images).all()


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([5, 3], "data: episode_index: row 4 is 1; expected the frames in the order of the videos"),
        ([3, 3], "data: holds 8 frames, the episodes' lengths tell of 6"),
    ],
)
def test_lengths_that_do_not_match_the_frames_are_refused(tmp_path, lengths, message):
    """Actions of one episode would be paired with the images of the next."""
    folder = foreign(tmp_path, demo(0), demo(1))
    change_episodes(folder, lambda rows: rows.assign(length=lengths))
    with pytest.raises(UserError, match=message):
        load(folder, world="builtin")


def test_a_frame_that_is_missing_or_there_twice_is_refused(tmp_path):
    folder = foreign(tmp_path, demo(0), demo(1))
    change_frames(folder, lambda table: table.take([0, 1, 2, 3, 4, 5, 6, 6]))
    with pytest.raises(UserError, match="data: index: row 7 is 6"):
        load(folder, world="builtin")


def change_info(folder: Path, change) -> None:
    file = folder / "meta/info.json"
    info = json.loads(file.read_text())
    change(info)
    file.write_text(json.dumps(info))


def without_tasks(folder: Path, tasks: pd.DataFrame | None) -> None:
    """Episodes without sentences of their own, and another tasks.parquet, or none."""
    change_episodes(folder, lambda rows: rows.drop(columns=["tasks"]))
    (folder / form.TASKS_FILE).unlink()
    if tasks is not None:
        tasks.to_parquet(folder / form.TASKS_FILE)


def test_sentences_come_from_the_tasks_where_episodes_have_none(tmp_path):
    folder = foreign(tmp_path, demo(0), demo(1))
    tasks = pd.read_parquet(folder / form.TASKS_FILE)
    expected = [demo(0).spec.instruction, demo(1).spec.instruction]
    for table in (tasks, tasks.reset_index()):
        shutil.copytree(folder, copy := tmp_path / f"copy{len(table.columns)}")
        without_tasks(copy, table)
        assert load(copy, world="builtin").instructions == expected


def test_a_cell_that_is_no_image_is_named(tmp_path):
    mapping = DataMap(image="top", action="act", adapter=({"gripper": {"closed": 1, "open": 0}},))
    for name, cell in (("text", {"bytes": b"text", "path": None}), ("none", {"bytes": None, "path": "gone.png"})):
        folder = renamed(tmp_path / name)
        change_frames(folder, lambda table: table.drop(["top"]).append_column("top", pa.array([cell] * 8)))  # noqa: B023
        with pytest.raises(UserError, match="file-000.parquet: top: index 0: is no image"):
            load(folder, mapping=mapping, world="builtin")


CAMERA = "observation.images.external"
DAMAGED = {
    "features a list": (
        lambda folder: change_info(folder, lambda x: x.update(features=[])),
        r"info.json: features: expected a mapping, got \[\]",
    ),
    "a feature as number": (
        lambda folder: change_info(folder, lambda x: x["features"].update(action=3)),
        "info.json: features.action: expected a mapping, got 3",
    ),
    "a feature without dtype": (
        lambda folder: change_info(folder, lambda x: x["features"][CAMERA].pop("dtype")),
        f"info.json: features.{CAMERA}.dtype: expected a name, got None",
    ),
    "a camera without shape": (
        lambda folder: change_info(folder, lambda x: x["features"][CAMERA].pop("shape")),
        rf"info.json: features.{CAMERA}.shape: None; expected \[height, width, 3\]",
    ),
    "a count as text": (
        lambda folder: change_info(folder, lambda x: x.update(total_episodes="2")),
        "info.json: total_episodes: expected a whole number, got '2'",
    ),
    "no pattern of videos": (
        lambda folder: change_info(folder, lambda x: x.pop("video_path")),
        "info.json: video_path: expected a pattern like videos/.*, got None",
    ),
    "another pattern of videos": (
        lambda folder: change_info(folder, lambda x: x.update(video_path="{episode}.mp4")),
        "info.json: video_path: expected a pattern like",
    ),
    "no lengths": (
        lambda folder: change_episodes(folder, lambda rows: rows.drop(columns=["length"])),
        "file-000.parquet: row 0: length: expected a whole number, got None",
    ),
    "a length of 0": (
        lambda folder: change_episodes(folder, lambda rows: rows.assign(length=[4, 0])),
        "file-000.parquet: row 1: length: 0; expected at least 1",
    ),
    "no numbers of episodes": (
        lambda folder: change_episodes(folder, lambda rows: rows.drop(columns=["episode_index"])),
        "file-000.parquet: row 0: episode_index: expected a whole number",
    ),
    "an episode twice": (
        lambda folder: change_episodes(folder, lambda rows: rows.assign(episode_index=[0, 0])),
        "meta/episodes: episode_index: 0 is there twice",
    ),
    "no places in videos": (
        lambda folder: change_episodes(folder, lambda rows: rows.drop(columns=[c for c in rows if "chunk_index" in c])),
        f"meta/episodes: episode 0: videos/{CAMERA}/chunk_index: expected a whole number, got None",
    ),
    "no times in videos": (
        lambda folder: change_episodes(folder, lambda rows: rows.assign(**{f"videos/{CAMERA}/from_timestamp": np.nan})),
        f"meta/episodes: episode 0: videos/{CAMERA}/from_timestamp: expected seconds, got nan",
    ),
    "no tasks at all": (lambda folder: without_tasks(folder, None), "tasks.parquet: cannot be read as parquet"),
    "tasks without numbers": (
        lambda folder: without_tasks(folder, pd.DataFrame({"x": [1]})),
        "tasks.parquet: no 'task_index' in it",
    ),
    "tasks without sentences": (
        lambda folder: without_tasks(folder, pd.DataFrame({"task_index": [0, 1]})),
        "tasks.parquet: task_index 0, that of episode 0, has no sentence",
    ),
    "actions of text": (
        lambda folder: change_frames(
            folder, lambda table: table.drop(["action"]).append_column("action", pa.array(["x"] * 8))
        ),
        "file-000.parquet: action: expected numbers in every row, got string",
    ),
    "an index with holes": (
        lambda folder: change_frames(
            folder, lambda table: table.drop(["index"]).append_column("index", pa.array([None, *range(7)]))
        ),
        "file-000.parquet: index: expected a whole number in every row",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_metadata_is_named_by_file_and_field(tmp_path, name):
    change, message = DAMAGED[name]
    change(foreign(tmp_path, demo(0), demo(1)))
    with pytest.raises(UserError, match=message):
        load(tmp_path, world="builtin")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (DataMap(image="topp", action="act"), "data_map.image: no camera 'topp'; did you mean 'top'"),
        (DataMap(image="top", action="actt"), "data_map.action: no 'actt'; did you mean 'act'"),
        (
            DataMap(action="act", adapter=({"select": {"dims": [0, 1]}},)),
            "has 2 numbers; data_map.adapter must make it 7",
        ),
        (DataMap(action="act", adapter=({"rotation": {"given": "rot6d"}},)), "rotation: actions have 7 numbers"),
    ],
)
def test_a_mapping_that_does_not_fit_is_named(tmp_path, mapping, message):
    with pytest.raises(UserError, match=message):
        load(renamed(tmp_path), mapping=mapping, world="builtin")


def test_another_frame_rate_has_to_be_stated(tmp_path):
    """At 15 frames a second an action learned as a control step is a third of the motion."""
    folder = foreign(tmp_path, demo(0))
    info = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps(info | {"fps": 15}))
    with pytest.raises(UserError, match="15 frames a second, and the benchmark acts at 5.*data_map.fps: 15"):
        load(folder, mapping=DataMap(), world="builtin")
    assert len(load(folder, mapping=DataMap(fps=15), world="builtin")) == 1


def test_data_at_both_rates_are_learned_together(tmp_path):
    """A recipe has one `data_map` for all its data: ours at five frames a second and others'."""
    ours = foreign(tmp_path / "ours", demo(0))
    assert len(load(ours, mapping=DataMap(fps=15), world="builtin")) == 1


def test_a_rate_that_is_not_stated_leaves_a_recipe_as_it_was():
    """Runs from before the field resume: their recipes equal today's."""
    assert "fps" not in DataMap(image="top").model_dump() and DataMap(fps=15).model_dump()["fps"] == 15


@pytest.mark.parametrize(
    ("gripper", "fine"),
    [
        ([1, -1, 1, 1], True),
        ([1, 1, 1, 1], True),
        ([-1, -1, -1, -1], True),
        ([1 - 1e-7, -1 + 1e-7, 1, 1], True),
        ([0, 1, 0, 1], False),
        ([-1e-7, 1, 0, 1], False),
        ([-0.02, 0.5, 1, 1], False),
        ([-1, 0, 0, -1], False),
        ([2, -2, 2, 2], False),
    ],
)
def test_a_gripper_is_1_or_minus_1(tmp_path, gripper, fine):
    actions = np.zeros((4, 7))
    actions[:, 6] = gripper
    if fine:
        assert converted(actions, DataMap(), tmp_path).shape == (4, 7)
    else:
        with pytest.raises(UserError, match=r"has a gripper from .*; here it is 1 \(open\) or -1 \(closed\)"):
            converted(actions, DataMap(), tmp_path)


def test_several_cameras_need_a_mapping(tmp_path):
    folder = renamed(tmp_path)
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"]["side"] = info["features"]["top"]
    (folder / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"which camera\? It has top, side; say so in the recipe"):
        load(folder, mapping=DataMap(action="act"), world="builtin")


def test_a_folder_of_the_hub_is_downloaded(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *args, **kwargs: asked.append((args, kwargs)) or str(tmp_path)
    )
    assert local_folder("lab/bridge_demos@0123abc") == tmp_path
    assert asked == [(("lab/bridge_demos",), {"repo_type": "dataset", "revision": "0123abc"})]
    assert local_folder(str(tmp_path)) == tmp_path and len(asked) == 1


def test_data_of_earlier_versions_is_still_read(tmp_path):
    """Until 2026-11-29 the mask was a camera and executed actions a feature."""
    written(tmp_path, [demo(0), demo(1)])
    place = form.Place(0)
    own = pq.read_table(place.file(tmp_path, form.OWN_DATA_PATH))
    file = place.file(tmp_path, form.DATA_PATH)
    table = pq.read_table(file).drop(["observation.state"])
    table = table.append_column("action.executed", own.column("executed")).append_column(
        "observation.state", own.column("pose")
    )
    pq.write_table(table, file)
    videos = tmp_path / "videos"
    shutil.move(videos / form.IMAGE, videos / form.OLD_IMAGE)
    shutil.move(tmp_path / "vgb/videos/foreground", videos / form.OLD_FOREGROUND)
    shutil.rmtree(tmp_path / "vgb")
    shutil.rmtree(tmp_path / "cache")
    info = json.loads((tmp_path / "meta/info.json").read_text())
    camera = info["features"].pop(form.IMAGE)
    executed = {"names": list(form.ACTION_NAMES)}
    info["features"] |= {form.OLD_IMAGE: camera, form.OLD_FOREGROUND: camera, form.OLD_EXECUTED: executed}
    info["features"]["observation.state"]["names"] = list(form.POSE_NAMES)
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    read = load(tmp_path)
    assert (read.executed[:4] == demo(0).executed).all() and (read.states[:4] == demo(0).states).all()
    assert read.foreground.std() > 0 and read.tables[0] == demo(0).spec.table
    with pytest.raises(UserError, match="was collected by an earlier version; choose another --out"):
        Writer(tmp_path, SIDE, ORIGIN)


def test_tables_of_the_episodes_fit_what_pandas_reads(tmp_path):
    written(tmp_path, [observed(demo(0))])
    row = pd.read_parquet(tmp_path / "meta/episodes/chunk-000/file-000.parquet").iloc[0]
    assert not [name for name in row.index if "foreground" in name] and f"videos/{form.IMAGE}/from_timestamp" in row
