"""The files of a LeRobotDataset v3.0: parquet tables, mp4 videos and their metadata.

Data is written in parts. A part is one parquet file of frames, one mp4 per camera, one parquet file of episodes, and
counts once `meta/info.json` lists it. A process killed at any moment loses only the unfinished part.
Layout after huggingface/lerobot 0.6 (`lerobot/datasets`): fps, row groups of one episode, scalars for shape (1,).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_gen_bench import data
from vla_gen_bench.errors import UserError, one_line, shown
from vla_gen_bench.protocol import STATE_NAMES
from vla_gen_bench.train.guard import INFO_FILE

if TYPE_CHECKING:
    import pandas as pd

VERSION = "v3.0"
FPS = 5
PARTS_PER_CHUNK = 1000
IMAGE, WRIST = "observation.images.external", "observation.images.wrist"  # policy inputs
FOREGROUND = "foreground"  # used only by this project's training: not a feature, stored in separate files
POSE_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "finger")
ACTION_NAMES = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
NUMBERS = {"action": ACTION_NAMES, "observation.state": STATE_NAMES}
OWN_NUMBERS = {"executed": ACTION_NAMES, "pose": POSE_NAMES}
# Data sets collected before 2026-11-29 store the simulator's mask as a camera and executed actions as a feature.
OLD_IMAGE, OLD_FOREGROUND, OLD_EXECUTED = "observation.images.main", "observation.images.foreground", "action.executed"
OLD_NUMBERS = {"action": ACTION_NAMES, OLD_EXECUTED: ACTION_NAMES, "observation.state": POSE_NAMES}
INDICES = ("frame_index", "episode_index", "index", "task_index")
QUALITY = {"crf": "8", "preset": "veryfast"}  # x264 constant rate factor: about 2 kB a frame of 96 px, almost lossless
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
STATS_FILE, TASKS_FILE = "meta/stats.json", "meta/tasks.parquet"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
OWN_FOLDER = "vgb"
OWN_DATA_PATH = "vgb/data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
OWN_VIDEO_PATH = "vgb/videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


@dataclass(frozen=True)
class Place:
    """The paths of a part's files."""

    part: int

    @property
    def numbers(self) -> dict[str, int]:
        return {"chunk_index": self.part // PARTS_PER_CHUNK, "file_index": self.part % PARTS_PER_CHUNK}

    def path(self, folder: Path, pattern: str, **more: str) -> Path:
        """Returns the path of one of the `*_PATH` patterns."""
        return folder / pattern.format(**self.numbers, **more)

    def file(self, folder: Path, pattern: str, **more: str) -> Path:
        """Returns the path of one of the `*_PATH` patterns, for writing; creates its folder."""
        path = self.path(folder, pattern, **more)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def is_old(features: Mapping[str, Any]) -> bool:
    """Whether the data set was collected before 2026-11-29."""
    return isinstance(features, Mapping) and OLD_FOREGROUND in features


def cameras(wrist: bool) -> tuple[str, ...]:
    """Returns the keys of a data set's cameras."""
    return (IMAGE, WRIST) if wrist else (IMAGE,)


def video_file(folder: Path, place: Place, key: str) -> Path:
    """Returns the path of a part's camera or foreground video."""
    return place.path(folder, OWN_VIDEO_PATH if key == FOREGROUND else VIDEO_PATH, video_key=key)


def features(side: int, wrist: bool = False) -> dict[str, Any]:
    """Returns the `features` of info.json for S x S images: policy inputs and the action."""
    video = {"video.fps": FPS, "video.codec": "h264", "video.is_depth_map": False, "has_audio": False}
    pictures = {
        key: {"dtype": "video", "shape": [side, side, 3], "names": ["height", "width", "channels"], "info": video}
        for key in cameras(wrist)
    }
    numbers = {key: {"dtype": "float32", "shape": [len(names)], "names": list(names)} for key, names in NUMBERS.items()}
    indices = {key: {"dtype": "int64", "shape": [1], "names": None} for key in INDICES}
    return {**pictures, **numbers, "timestamp": {"dtype": "float32", "shape": [1], "names": None}, **indices}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replaces a JSON file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.replace_file(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: Missing or malformed.
    """
    if not path.exists():
        raise UserError(f"{path}: not found; is this a folder that 'vgb collect' wrote?")
    return data.read_json(path, dict[str, Any])


def read_info(folder: Path) -> dict[str, Any]:
    """Reads meta/info.json; raises `UserError` for another format version, or without features or a count."""
    file = folder / INFO_FILE
    info = read_json(file)
    if info.get("codebase_version") != VERSION:
        raise UserError(f"{folder}: a LeRobotDataset {info.get('codebase_version')}; this reads {VERSION}")
    need_keys(info, ("total_episodes", "features"), file)
    check_whole(info, ("total_episodes",), f"{file}: ")
    if not isinstance(info["features"], dict):
        raise UserError(f"{file}: features: expected a mapping, got {shown(info['features'])}")
    return info


def need_keys(there: Iterable[str], keys: Sequence[str], path: Path) -> None:
    """Raises `UserError` for the first of `keys` that is missing."""
    for key in keys:
        if key not in there:
            raise UserError(f"{path}: no '{key}' in it; is this a folder that 'vgb collect' wrote?")


def check_whole(given: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """Raises `UserError` for the first of `keys` that is not an integer >= 0."""
    for key in keys:
        if type(given.get(key)) is not int or given[key] < 0:
            raise UserError(f"{where}{key}: expected a whole number, got {shown(given.get(key))}")


def write_frames(path: Path, episodes: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Writes the frames of a part, one row group per episode; columns are [T] or [T, 7]."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pa.table({key: _column(value) for key, value in episode.items()}) for episode in episodes]
    with pq.ParquetWriter(path, tables[0].schema, compression="snappy") as writer:
        for table in tables:
            writer.write_table(table, row_group_size=len(table))


def _column(values: np.ndarray) -> Any:
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def read_frame(path: Path) -> pd.DataFrame:
    """Reads a parquet file of metadata; raises `UserError` if it is missing or broken."""
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except Exception as error:  # pyarrow raises many types
        raise UserError(f"{path}: cannot be read as parquet: {one_line(error)}") from None


def count_rows(path: Path) -> int:
    """Returns the rows of a parquet file, 0 if it is missing or broken."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (pa.ArrowInvalid, OSError):
        return 0


def read_columns(path: Path, kinds: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Reads columns of a parquet file: float32 [F, n] for "float[n]", [F] for the others.

    Args:
        kinds: Column -> "float[n]", "int", "string" or "list<string>".

    Raises:
        UserError: Missing, truncated, without these columns, or with columns of another kind or with nulls.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        need_keys(pq.read_schema(path).names, list(kinds), path)
        table = pq.read_table(path, columns=list(kinds))
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read as parquet: {one_line(error)}") from None
    for key, kind in kinds.items():
        column = table.column(key)
        if not _is_kind(column.type, kind):
            raise UserError(f"{path}: {key}: is {column.type}; expected {kind}; has another program rewritten it?")
        if column.null_count:
            raise UserError(f"{path}: {key}: {column.null_count} rows hold nothing")
    return {key: _array(table.column(key).combine_chunks()) for key in kinds}


def _is_kind(found: Any, kind: str) -> bool:
    from pyarrow import types

    text = types.is_string(found) or types.is_large_string(found)
    if kind.startswith("float["):
        fits = types.is_fixed_size_list(found) and f"float[{found.list_size}]" == kind
        return fits and types.is_float32(found.value_type)
    if kind == "list<string>":
        lists = types.is_list(found) or types.is_large_list(found)
        return lists and (types.is_string(found.value_type) or types.is_large_string(found.value_type))
    return text if kind == "string" else types.is_signed_integer(found)


def _array(column: Any) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy().reshape(-1, column.type.list_size)
    return column.to_numpy(zero_copy_only=False)


def write_video(path: Path, frames: np.ndarray) -> None:
    """Writes uint8 [F, S, S, 3], or [F, S, S] as greyscale, as H.264 without any chroma subsampling."""
    import av

    try:
        _encode(path, frames)
    except av.FFmpegError as error:  # not always an OSError
        raise OSError(error.errno, error.strerror, str(path)) from error


def _encode(path: Path, frames: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(FPS), options={**QUALITY, "g": "32"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv444p"
        convert = av.video.reformatter.VideoReformatter()
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24" if picture.ndim == 3 else "gray")
            for packet in stream.encode(convert.reformat(frame, format="yuv444p")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


def read_video(path: Path, grey: bool = False) -> Iterator[np.ndarray]:
    """Yields uint8 [S, S, 3] RGB, or [S, S] greyscale, frame by frame.

    Raises:
        UserError: Missing or truncated.
    """
    import av

    try:
        with av.open(str(path)) as file:
            convert = av.video.reformatter.VideoReformatter()  # shared: creating it costs more than using it
            for frame in file.decode(video=0):
                yield convert.reformat(frame, format="gray" if grey else "rgb24").to_ndarray()
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path}: cannot be decoded: {error}") from None


def numeric_stats(values: np.ndarray) -> dict[str, list]:
    """Returns the entry of stats.json for [F, n] or [F] numbers, with the quantiles q01 to q99."""
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    entry = {name: getattr(values, name)(axis=0).tolist() for name in ("min", "max", "mean", "std")}
    quantiles = {name: np.quantile(values, part, axis=0).tolist() for name, part in QUANTILES.items()}
    return {**entry, "count": [len(values)], **quantiles}


def image_stats(frames: np.ndarray) -> dict[str, list]:
    """Returns the entry of stats.json for uint8 [F, S, S, 3]: per channel in [0, 1], shape [3, 1, 1] like LeRobot's."""
    pixels = numeric_stats(frames.reshape(-1, 3) / 255.0)
    shaped = {name: np.reshape(value, (3, 1, 1)).tolist() for name, value in pixels.items() if name != "count"}
    return {**shaped, "count": [len(frames)]}
