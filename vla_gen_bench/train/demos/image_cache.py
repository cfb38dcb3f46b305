"""Images of demonstrations, decoded once into FOLDER/cache and memory-mapped from there.

If that folder is not writable, as on a read-only share, they go to this package's cache ($VGB_CACHE).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vla_gen_bench.assets.pack import cache_dir
from vla_gen_bench.errors import UserError
from vla_gen_bench.train.demos import lerobot_format as form

CACHE = "cache"  # may be deleted at any time


def cached_pictures(folder: Path, parts: Sequence[form.Place], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the images of one camera, mapped from the cache; decodes them into it first if needed.

    Raises:
        UserError: A video is broken, or no cache folder is writable.
    """
    videos = [form.video_file(folder, place, key) for place in parts]
    places = _places(folder)
    for place in places:
        cached = _cached(place, videos, key, shape)
        if cached is not None:
            return cached
    place = next((place for place in places if _writable(place)), None)
    if place is None:
        raise UserError(f"{folder}: no room for decoded images: {places[-1]} cannot be written; set VGB_CACHE")
    return _decoded(folder, place, videos, key, shape)


def _places(folder: Path) -> tuple[Path, Path]:
    """Returns candidate cache folders, best first; the second one's name depends on the data's path."""
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return folder / CACHE, cache_dir() / "demos" / name


def _writable(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(place, os.W_OK)


def _decoded(folder: Path, place: Path, videos: Sequence[Path], key: str, shape: tuple[int, ...]) -> np.ndarray:
    file = place / f"{key}-{shape[0]}.npy"
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        pictures = np.lib.format.open_memmap(draft, "w+", np.uint8, shape)
        with draft.open("r+b") as opened:  # allocate now: a disk that fills up under a memory map kills the process
            os.posix_fallocate(opened.fileno(), 0, draft.stat().st_size)
        _decode(folder, videos, key, pictures)
        pictures.flush()
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    for other in set(place.glob(f"{key}-*.npy")) - {file}:
        other.unlink(missing_ok=True)  # smaller or truncated; processes that mapped it keep it
    return np.load(file, mmap_mode="r")


def _cached(place: Path, videos: Sequence[Path], key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns the first images of a cache that has at least as many and is not older than the videos, else None."""
    newest = max((video.stat().st_mtime_ns for video in videos if video.exists()), default=0)
    for file in sorted(place.glob(f"{key}-*.npy")):
        try:
            pictures = np.load(file, mmap_mode="r")
        except (OSError, ValueError):  # truncated
            continue
        fits = len(pictures) >= shape[0] and pictures.shape[1:] == shape[1:] and pictures.dtype == np.uint8
        if fits and file.stat().st_mtime_ns >= newest:
            return pictures[: shape[0]]
    return None


def _decode(folder: Path, videos: Sequence[Path], key: str, pictures: np.ndarray) -> None:
    """Fills `pictures` [F, S, S(, 3)] from the videos of one camera."""
    filled = 0
    for video in videos:
        for picture in form.read_video(video, grey=pictures.ndim == 3):
            if filled == len(pictures):
                return
            if picture.shape != pictures.shape[1:]:
                height, width = picture.shape[:2]
                raise UserError(
                    f"{video}: frames of {width}x{height}; info.json tells of {pictures.shape[1]} px squares"
                )
            pictures[filled] = picture
            filled += 1
    if filled < len(pictures):
        raise UserError(f"{folder}: {key} has {filled} frames, the tables tell of {len(pictures)}; collect it again")
