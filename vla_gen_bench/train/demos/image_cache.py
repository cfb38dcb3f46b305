"""Pictures of demonstrations, decoded once into FOLDER/cache and mapped into memory from there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vla_gen_bench.errors import UserError
from vla_gen_bench.train.demos import lerobot_format as form

CACHE = "cache"  # may be deleted at any time


def cached_pictures(folder: Path, parts: Sequence[form.Place], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the pictures of one camera, mapped from the cache; decodes them into it first if need be."""
    cached = _cached(folder, key, shape)
    if cached is not None:
        return cached
    file = folder / CACHE / f"{key}-{shape[0]}.npy"
    file.parent.mkdir(exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        pictures = np.lib.format.open_memmap(draft, "w+", np.uint8, shape)
        with draft.open("r+b") as opened:  # taken now: a disk that fills up under a map kills the process
            os.posix_fallocate(opened.fileno(), 0, draft.stat().st_size)
        _decode(folder, parts, key, pictures)
        pictures.flush()
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    for other in set(folder.glob(f"{CACHE}/{key}-*.npy")) - {file}:
        other.unlink(missing_ok=True)  # smaller, or cut off; who has it mapped keeps it
    return np.load(file, mmap_mode="r")


def _cached(folder: Path, key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns the first pictures of a cache that holds as many or more, None if there is none."""
    for file in sorted((folder / CACHE).glob(f"{key}-*.npy")):
        try:
            pictures = np.load(file, mmap_mode="r")
        except (OSError, ValueError):  # cut off
            continue
        if len(pictures) >= shape[0] and pictures.shape[1:] == shape[1:]:
            return pictures[: shape[0]]
    return None


def _decode(folder: Path, parts: Sequence[form.Place], key: str, pictures: np.ndarray) -> None:
    """Fills `pictures` [F, S, S(, 3)] from the videos of one camera."""
    filled = 0
    for place in parts:
        path = form.video_file(folder, place, key)
        for picture in form.read_video(path, grey=pictures.ndim == 3):
            if filled == len(pictures):
                return
            pictures[filled] = picture
            filled += 1
    if filled < len(pictures):
        raise UserError(f"{folder}: {key} has {filled} frames, the tables tell of {len(pictures)}; collect it again")
