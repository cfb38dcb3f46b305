"""Reads any LeRobotDataset v3.0 with an action and a camera: others' data, and ours after LeRobot's tools edited it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.errors import UserError, one_line, shown, suggest
from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.converters import parse_adapter
from vla_gen_bench.protocol import ACTION_DIMS
from vla_gen_bench.train.demos import checks
from vla_gen_bench.train.demos import lerobot_format as form
from vla_gen_bench.train.guard import INFO_FILE
from vla_gen_bench.train.resize import squashed

EPISODES = "meta/episodes"
ROWS_AT_ONCE = 64  # of images: a file may hold gigabytes of them
GRIPPER_ROUNDING = 1e-3  # a gripper command may miss 1 by as much
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(@[0-9a-fA-F]{7,40})?$")


class DataMap(Frozen):
    """How a data set's features become demonstrations.

    Attributes:
        image: Feature of the camera; None = ours, or the only camera.
        action: Feature of the action, [7] after the adapter: the benchmark's convention.
        adapter: Converters of the actions, see `policies.converters`; those that read the state or images do not work.
        side: Side of the images in memory, pixels; resized like the model's processor does.
        fps: Frames a second that data may have besides the benchmark's five. Each frame is learned as one control
            step, so another rate has to be stated.
    """

    image: str | None = None
    action: str = "action"
    adapter: tuple[str | dict[str, Any], ...] = ()
    side: int = Field(96, ge=16, le=1024)
    fps: float = Field(form.FPS, gt=0, le=1000)

    @model_serializer(mode="wrap")
    def _without_default_rate(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves the rate out unless it is stated: runs from before the field continue."""
        return {key: value for key, value in plain(self).items() if key != "fps" or value != form.FPS}


@dataclass(frozen=True)
class Table:
    """The frames of a data set, without its images.

    Attributes:
        columns: By feature, in the order of the index.
        episodes: One row per episode, in order; their lengths match the frames.
        places: int64 [F], the index of each frame in the order of the files.
    """

    info: dict[str, Any]
    columns: dict[str, np.ndarray]
    episodes: list[dict[str, Any]]
    places: np.ndarray


def local_folder(name: str) -> Path:
    """Returns the folder of a data set; one on the hub, `owner/name` or `owner/name@commit`, is downloaded."""
    folder = Path(name)
    if folder.exists() or not HUB_ID.match(name):
        return folder
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(f"{name}: no such folder; a data set on the hub needs: pip install huggingface_hub") from None
    repo, _, commit = name.partition("@")
    try:
        return Path(snapshot_download(repo, repo_type="dataset", revision=commit or None))
    except Exception as error:  # the hub raises many types
        raise UserError(f"{name}: no such folder, and not on the hub ({type(error).__name__})") from None


def read_table(folder: Path, keys: list[str]) -> Table:
    """Reads the numbers of all frames, in the order of the index.

    Raises:
        UserError: Any are missing or broken, or the frames do not match the episodes' lengths.
    """
    info = form.read_info(folder)
    rows = sorted(_episodes(folder), key=lambda row: row["episode_index"])
    wanted = list(dict.fromkeys([*keys, "index", "episode_index", "task_index"]))
    files = _data_files(folder)
    if not files or not rows:
        raise UserError(f"{folder}: holds no frames (data/*/*.parquet) or no episodes ({EPISODES}/*/*.parquet)")
    parts = [_columns(file, wanted) for file in files]
    columns = {key: np.concatenate([part[key] for part in parts]) for key in wanted}
    places = columns["index"]
    order = np.argsort(places, kind="stable")
    columns = {key: values[order] for key, values in columns.items()}
    episodes, lengths = (np.array([row[key] for row in rows]) for key in ("episode_index", "length"))
    if (twice := episodes[1:][np.diff(episodes) == 0]).size:
        raise UserError(f"{folder / EPISODES}: episode_index: {twice[0]} is there twice")
    checks.check_order(columns, folder / "data", episodes, lengths)
    return Table(info, columns, rows, places)


def _data_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("data/*/*.parquet"))


def _columns(file: Path, keys: list[str]) -> dict[str, np.ndarray]:
    """Reads columns of numbers, or of lists of them; raises `UserError` if one is missing, ragged or something else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        form.need_keys(pq.read_schema(file).names, keys, file)
        table = pq.read_table(file, columns=keys)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file}: cannot be read as parquet: {str(error).splitlines()[0]}") from None
    try:
        columns = {key: np.array(table.column(key).to_pylist()) for key in keys}
    except ValueError:
        raise UserError(f"{file}: lists of differing lengths in one of {', '.join(keys)}") from None
    for key, values in columns.items():
        index = key in form.INDICES
        if values.dtype.kind not in ("iu" if index else "iuf") or (index and values.ndim != 1):
            what = "a whole number" if index else "numbers"
            raise UserError(f"{file}: {key}: expected {what} in every row, got {table.column(key).type}")
    return columns


def _episodes(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for file in sorted(folder.glob(f"{EPISODES}/*/*.parquet")):
        found = form.read_frame(file).to_dict("records")
        for number, row in enumerate(found):
            form.check_whole(row, ("episode_index", "length"), f"{file}: row {number}: ")
            if not row["length"]:
                raise UserError(f"{file}: row {number}: length: 0; expected at least 1")
        rows += found
    return rows


def camera_of(info: dict[str, Any], mapping: DataMap, folder: Path) -> str:
    """Returns the key of the camera; raises `UserError` if the mapping names none and several exist."""
    features = info["features"]
    found = [key for key, feature in features.items() if feature["dtype"] in ("video", "image")]
    if mapping.image is not None:
        if mapping.image not in found:
            raise UserError(f"{folder}: data_map.image: no camera '{mapping.image}'{suggest(mapping.image, found)}")
        return mapping.image
    if form.IMAGE in found:
        return form.IMAGE
    if len(found) != 1:
        listed = ", ".join(found) or "none"
        raise UserError(f"{folder}: which camera? It has {listed}; say so in the recipe: data_map: {{image: ...}}")
    return found[0]


def check_rate(info: Mapping[str, Any], mapping: DataMap, folder: Path) -> None:
    """Raises `UserError` unless the data have the stated number of frames a second."""
    if info.get("fps") not in (form.FPS, mapping.fps):
        rate = shown(info.get("fps"))
        raise UserError(
            f"{folder}: {rate} frames a second, and the benchmark acts at {form.FPS}. Resample it, or learn its frames "
            f"as control steps all the same with data_map.fps: {rate}"
        )


def converted(actions: np.ndarray, mapping: DataMap, folder: Path) -> np.ndarray:
    """Returns float32 [F, 7] in the benchmark's convention; raises `UserError` if the adapter's output differs.

    A gripper that is neither 1 nor -1 differs: frames before a grasp would not be recognised, and from -1 to 0 the
    policy would only ever close.
    """
    values = np.asarray(actions, np.float64).reshape(len(actions), 1, -1)
    try:
        for converter in parse_adapter(mapping.adapter, "data_map.adapter", folder):
            converter.reset(len(values), 1)
            values = converter.convert(values, example_observation(1))
    except ValueError as error:
        raise UserError(f"{folder}: data_map.adapter: {error}") from None
    if values.shape[1:] != (1, ACTION_DIMS):
        raise UserError(f"{folder}: '{mapping.action}' has {values.shape[-1]} numbers; data_map.adapter must make it 7")
    if not np.isfinite(values).all():
        raise UserError(f"{folder}: '{mapping.action}' has NaN or infinity in it")
    gripper = values[..., -1]
    if (np.abs(np.abs(gripper) - 1) > GRIPPER_ROUNDING).any():
        raise UserError(
            f"{folder}: '{mapping.action}' has a gripper from {gripper.min():g} to {gripper.max():g}; here it is 1 "
            "(open) or -1 (closed). Convert it, for example with "
            "data_map.adapter: [{gripper: {closed: 0, open: 1, binarise: true}}]"
        )
    return values[:, 0].astype(np.float32)


def instructions(folder: Path, table: Table) -> list[str]:
    """Returns one sentence per episode; raises `UserError` if neither episodes nor tasks have one."""
    own = [_first_text(row.get("tasks")) for row in table.episodes]
    if all(own):
        return own
    file = folder / form.TASKS_FILE
    tasks = form.read_frame(file)
    form.need_keys(tasks.columns, ("task_index",), file)
    names = dict(zip(tasks["task_index"], tasks["task"] if "task" in tasks else tasks.index, strict=True))
    first = np.searchsorted(table.columns["episode_index"], [row["episode_index"] for row in table.episodes])
    wanted = table.columns["task_index"][first].tolist()
    for row, task in zip(table.episodes, wanted, strict=True):
        if not isinstance(names.get(task), str):
            raise UserError(f"{file}: task_index {task}, that of episode {row['episode_index']}, has no sentence")
    return [names[task] for task in wanted]


def _first_text(tasks: Any) -> str:
    """Returns the first sentence of an episode, "" if it has none."""
    there = isinstance(tasks, (list, np.ndarray)) and len(tasks)
    return tasks[0] if there and isinstance(tasks[0], str) else ""


def pictures(folder: Path, table: Table, key: str, side: int, frames: int) -> np.ndarray:
    """Returns uint8 [frames, S, S, 3] of a camera in the order of the index, stored as video or within the table."""
    images = np.empty((frames, side, side, 3), np.uint8)
    if table.info["features"][key]["dtype"] == "image":
        source = _from_table(folder, table, key, frames)
    else:
        source = enumerate(_from_videos(folder, table, key))
    count = 0
    for place, image in islice(source, frames):
        images[place] = squashed(image, side)
        count += 1
    if count < frames:
        raise UserError(f"{folder}: {key} has {count} frames, the tables tell of {frames}")
    return images


def _from_table(folder: Path, table: Table, key: str, frames: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the images of the first `frames` frames, each with its index, in the order of the files."""
    import pyarrow.parquet as pq

    places = iter(table.places.tolist())
    for file in _data_files(folder):
        for batch in pq.ParquetFile(file).iter_batches(ROWS_AT_ONCE, columns=[key]):
            for cell in batch.column(key).to_pylist():
                place = next(places)
                if place < frames:
                    yield place, _image_in(cell, folder, f"{file}: {key}: index {place}")


def _image_in(cell: Any, folder: Path, where: str) -> np.ndarray:
    """Returns uint8 [H, W, 3] from a cell, which holds an encoded image or names its file."""
    from PIL import Image

    try:
        data = cell["bytes"] if cell.get("bytes") else (folder / cell["path"]).read_bytes()
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except Exception as error:  # Pillow raises many types
        raise UserError(f"{where}: is no image: {one_line(error)}") from None


def _from_videos(folder: Path, table: Table, key: str) -> Iterator[np.ndarray]:
    """Yields the frames of all episodes in order; the episodes' rows hold their locations."""
    opened: tuple[Path, Iterator[np.ndarray], int] | None = None
    for row in table.episodes:
        video, first = _place_of(folder, table.info, row, key)
        if opened is None or opened[0] != video or first < opened[2]:
            opened = video, form.read_video(video), 0
        _, frames, at = opened
        for _ in range(first - at):
            next(frames, None)
        for _ in range(row["length"]):
            frame = next(frames, None)
            if frame is None:
                raise UserError(f"{folder}: {key}: the video of episode {row['episode_index']} ends early")
            yield frame
        opened = video, frames, first + row["length"]


def _place_of(folder: Path, info: Mapping[str, Any], row: Mapping[str, Any], key: str) -> tuple[Path, int]:
    """Returns the video of an episode and its first frame there; raises `UserError` if the metadata lacks either."""
    numbers, begin = [f"videos/{key}/{name}" for name in ("chunk_index", "file_index")], f"videos/{key}/from_timestamp"
    where = f"{folder / EPISODES}: episode {row['episode_index']}: "
    form.check_whole(row, numbers, where)
    seconds = row.get(begin)
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < float("inf"):
        raise UserError(f"{where}{begin}: expected seconds, got {shown(seconds)}")
    chunk, file = (row[name] for name in numbers)
    try:
        path = info["video_path"].format(video_key=key, chunk_index=chunk, file_index=file)
    except (AttributeError, KeyError, IndexError, ValueError):
        raise UserError(
            f"{folder / INFO_FILE}: video_path: expected a pattern like {form.VIDEO_PATH}, got "
            f"{shown(info.get('video_path'))}"
        ) from None
    return folder / path, round(seconds * info["fps"])
