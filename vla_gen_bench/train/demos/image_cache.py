"""Images of a data set, decoded once into FOLDER/cache and memory-mapped from there.

If that folder is not writable, as on a read-only share, they go to this package's cache ($VGB_CACHE). A cache is named
after its sources, KEY-COUNT-STAMP.npy: if their names, sizes or times change, it is made again. Earlier versions wrote
KEY-COUNT.npy, which cannot be checked; it is replaced.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vla_gen_bench.assets.folders import cache_dir
from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.errors import UserError
from vla_gen_bench.train.demos import lerobot_format as form

CACHE = "cache"  # may be deleted at any time
STAMP = re.compile(r"-[0-9a-f]{16}(?=\.npy$)")


def cached_pictures(folder: Path, parts: Sequence[form.Place], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the images of one camera, mapped from the cache; decodes them into it first if needed.

    Raises:
        UserError: A video is broken, or no cache folder is writable.
    """
    videos = [form.video_file(folder, place, key) for place in parts]
    return cached_images(folder, videos, key, shape, lambda pictures: _decode(folder, videos, key, pictures))


def cached_images(
    folder: Path, sources: Sequence[Path], key: str, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]
) -> np.ndarray:
    """Returns uint8 images of `shape`, mapped from the cache; makes them first if needed.

    Args:
        sources: The files they come from; a longer cache of the same files serves a shorter `shape`.
        key: Name of the images in the cache.
        fill: Decodes them into an array of that shape.

    Raises:
        UserError: As `fill`; or no cache folder is writable.
    """
    stamp = _stamp(folder, sources)
    places = _places(folder)
    for place in places:
        cached = _cached(place, key, stamp, shape)
        if cached is not None:
            return cached
    place = next((place for place in places if _writable(place)), None)
    if place is None:
        raise UserError(f"{folder}: no room for decoded images: {places[-1]} cannot be written; set VGB_CACHE")
    return _made(place, key, stamp, shape, fill)


def unstamped(name: str) -> str:
    """Returns a cache's name as earlier versions wrote it; other names unchanged."""
    return STAMP.sub("", name)


def _stamp(folder: Path, sources: Sequence[Path]) -> str:
    """Returns 16 hex digits of a digest of names, sizes and times; a missing source has neither size nor time."""
    looks = [(file.relative_to(folder).as_posix(), file.stat() if file.exists() else None) for file in sources]
    return digest_of([[name, *((look.st_size, look.st_mtime_ns) if look else ())] for name, look in looks])


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


def _made(place: Path, key: str, stamp: str, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]) -> np.ndarray:
    file = place / f"{key}-{shape[0]}-{stamp}.npy"
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    try:
        pictures = np.lib.format.open_memmap(draft, "w+", np.uint8, shape)
        with draft.open("r+b") as opened:  # allocate now: a disk that fills up under a memory map kills the process
            os.posix_fallocate(opened.fileno(), 0, draft.stat().st_size)
        fill(pictures)
        pictures.flush()
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    for other in set(place.glob(f"{key}-*.npy")) - {file}:
        other.unlink(missing_ok=True)  # smaller, truncated or of other sources; processes that mapped it keep it
    return np.load(file, mmap_mode="r")


def _cached(place: Path, key: str, stamp: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns the first images of a cache of the same sources that has at least as many, else None."""
    for file in sorted(place.glob(f"{key}-*-{stamp}.npy")):
        try:
            pictures = np.load(file, mmap_mode="r")
        except (OSError, ValueError, EOFError):  # truncated
            continue
        if len(pictures) >= shape[0] and pictures.shape[1:] == shape[1:] and pictures.dtype == np.uint8:
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
