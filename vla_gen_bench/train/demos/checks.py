"""What training requires of demonstrations: each violation is an error that names file and field.

Other programs write LeRobotDatasets too, and rewrite those of `vgb collect`. Reordered rows would pair images with
actions of other moments, another rate would change the length of moves, and of a 0/1 gripper no frame would count as
closing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_gen_bench.errors import UserError, shown
from vla_gen_bench.train.demos import lerobot_format as form

GRIPPER = 6
EPISODE_COLUMNS = {
    "episode_index": "int", "length": "int", "dataset_from_index": "int", "dataset_to_index": "int",
    "tasks": "list<string>", "vgb/table": "string", "vgb/target": "string", "vgb/spec": "string",
}  # fmt: skip
OWN_COLUMNS = {key: f"float[{len(names)}]" for key, names in form.OWN_NUMBERS.items()}


def frame_columns(old: bool) -> dict[str, str]:
    """Returns the kinds of the columns of frames."""
    numbers = form.OLD_NUMBERS if old else form.NUMBERS
    floats = {key: f"float[{len(names)}]" for key, names in numbers.items()}
    return {**floats, **dict.fromkeys(form.INDICES, "int")}


def check_info(info: Mapping[str, Any], file: Path) -> int:
    """Returns S, the side of the images in pixels; raises `UserError` if info.json describes other data."""
    if info.get("fps") != form.FPS:
        raise UserError(f"{file}: fps: {shown(info.get('fps'))}; expected {form.FPS}, the rate of control")
    features = info["features"]
    old = form.is_old(features)
    numbers = form.OLD_NUMBERS if old else form.NUMBERS
    cameras = (form.OLD_IMAGE, form.OLD_FOREGROUND) if old else form.cameras(form.WRIST in features)
    for key in (*cameras, *numbers):
        if not isinstance(features.get(key), Mapping):
            raise UserError(f"{file}: features.{key}: missing; is this a folder that 'vgb collect' wrote?")
    for key, names in numbers.items():
        given = features[key].get("names")
        if given != list(names):
            raise UserError(f"{file}: features.{key}.names: {shown(given)}; expected {shown(list(names))}")
    return _side(features, cameras, file)


def _side(features: Mapping[str, Any], cameras: tuple[str, ...], file: Path) -> int:
    shapes = [features[key].get("shape") for key in cameras]
    for key, shape in zip(cameras, shapes, strict=True):
        if not _is_image(shape) or shape[0] != shape[1] or shape != shapes[0]:
            raise UserError(
                f"{file}: features.{key}.shape: {shown(shape)}; expected [S, S, 3], the same for each camera"
            )
    return shapes[0][0]


def check_features(features: Mapping[str, Any], file: Path) -> None:
    """Raises `UserError` for a feature of any data set without a type, or our camera without a shape."""
    for key, feature in features.items():
        if not isinstance(feature, Mapping):
            raise UserError(f"{file}: features.{key}: expected a mapping, got {shown(feature)}")
        if not isinstance(feature.get("dtype"), str):
            raise UserError(f"{file}: features.{key}.dtype: expected a name, got {shown(feature.get('dtype'))}")
    shape = features[form.IMAGE].get("shape") if form.IMAGE in features else [1, 1, 3]
    if not _is_image(shape):
        raise UserError(f"{file}: features.{form.IMAGE}.shape: {shown(shape)}; expected [height, width, 3]")


def _is_image(shape: Any) -> bool:
    whole = isinstance(shape, list) and len(shape) == 3 and all(type(part) is int and part > 0 for part in shape)
    return whole and shape[2] == 3


def check_episodes(rows: Mapping[str, np.ndarray], file: Path, first: int, frame: int) -> None:
    """Raises `UserError` unless a part's episodes are numbered from `first`, their frames from `frame`, in order."""
    lengths = rows["length"]
    _first_bad(file, "length", lengths, lengths < 1, "at least 1")
    ends = frame + np.cumsum(lengths)
    expected = {
        "episode_index": first + np.arange(len(lengths)),
        "dataset_from_index": ends - lengths,
        "dataset_to_index": ends,
    }
    for key, values in expected.items():
        _first_bad(file, key, rows[key], rows[key] != values, "the episodes in order, without gaps")
    for row, tasks in enumerate(rows["tasks"]):
        if not len(tasks) or not str(tasks[0]).strip():
            raise UserError(f"{file}: tasks: row {row} holds no instruction")


def check_frames(rows: Mapping[str, np.ndarray], file: Path, lengths: np.ndarray, first: int, frame: int) -> None:
    """Raises `UserError` unless a part's frames match its episodes, in order, and their numbers are usable."""
    check_order(rows, file, first + np.arange(len(lengths)), lengths, frame)
    for key in [key for key in rows if rows[key].ndim == 2]:
        _first_bad(file, key, rows[key], ~np.isfinite(rows[key]).all(1), "finite numbers")
    gripper = rows["action"][:, GRIPPER]
    _first_bad(file, "action: gripper", gripper, np.abs(gripper) != 1, "1 (open) or -1 (closed)")


def check_order(
    rows: Mapping[str, np.ndarray], file: Path, episodes: np.ndarray, lengths: np.ndarray, frame: int = 0
) -> None:
    """Raises `UserError` unless frames are numbered from `frame` without gaps and belong to `episodes`, in order.

    Args:
        rows: Columns of the frames: index, episode_index and, where the data has it, frame_index.
        episodes, lengths: Numbers of the episodes, and how many frames each has.
    """
    total = int(lengths.sum())
    if len(rows["index"]) != total:
        raise UserError(f"{file}: holds {len(rows['index'])} frames, the episodes' lengths tell of {total}")
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    expected = {
        "index": frame + np.arange(total),
        "episode_index": np.repeat(episodes, lengths),
        "frame_index": np.arange(total) - starts,
    }
    for key in [key for key in expected if key in rows]:
        _first_bad(file, key, rows[key], rows[key] != expected[key], "the frames in the order of the videos")


def _first_bad(file: Path, key: str, values: np.ndarray, bad: np.ndarray, expected: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise UserError(f"{file}: {key}: row {row} is {shown(values[row].tolist())}; expected {expected}")
