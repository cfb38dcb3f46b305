"""SHA-256 of the files that make up a policy.

Every byte counts, of files of any size. The digest of a large file is remembered in the cache while the file's name,
size, times and inode stay the same, so a 7B checkpoint is read once and not in every run.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from vla_gen_bench.assets.folders import cache_dir
from vla_gen_bench.data import replace_file

READ_BYTES = 1 << 22
REMEMBERED_BYTES = 1 << 26  # of smaller files, reading is as quick as remembering
SETTLED_S = 2.0  # a file younger than the clock's grain could change again and keep its times
UNRELATED = (".git", ".cache")  # of a cloned or downloaded checkpoint: they change while its files stay the same
PROSE = frozenset("readme.md readme.rst readme.txt license license.md license.txt changelog.md".split())
OUTPUTS = ("run.json", "episodes.jsonl", "pyvenv.cfg")  # a folder with one of these is a log or an environment
OUTPUT_FOLDERS = ("__pycache__", "runs", "wandb", "mlruns")
OUTPUT_FILES = (".pyc", ".log", ".lock", ".tmp")


def file_digests(path: Path) -> dict[str, str]:
    """Returns relative name -> SHA-256 of a file, or of every file below a folder; links to folders are followed."""
    files = [path] if path.is_file() else sorted(_everything(path))
    return {file.relative_to(path.parent).as_posix(): sha256_of(file) for file in files}


def parts_below(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder that make up a policy, sorted within each folder.

    Hidden files, prose, compiled Python, logs, virtual environments and outputs of training are excluded: they can
    change while the policy stays the same.
    """
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(name for name in folders if _is_part(here / name))
        for name in sorted(files):
            file = here / name
            hidden = name.startswith(".") or name.lower() in PROSE or name.startswith("events.out.tfevents")
            if not hidden and file.suffix not in OUTPUT_FILES and file.is_file():
                yield file


def sha256_of(file: Path) -> str:
    """Returns the SHA-256 of a file's bytes, 64 hex digits; raises `OSError` if it cannot be read."""
    with file.open("rb") as stream:
        looks = os.fstat(stream.fileno())
        if looks.st_size < REMEMBERED_BYTES:
            return _read(iter(lambda: stream.read(READ_BYTES), b""))
        times = looks.st_mtime_ns, looks.st_ctime_ns
        key = repr((str(file.resolve()), looks.st_size, *times, looks.st_dev, looks.st_ino))
        memory = cache_dir() / "digests" / hashlib.sha256(key.encode()).hexdigest()
        with suppress(OSError, UnicodeDecodeError):
            known = memory.read_text()
            if len(known) == 64:
                return known
        digest = _read(iter(lambda: stream.read(READ_BYTES), b""))
    if time.time() - max(times) / 1e9 > SETTLED_S:
        with suppress(OSError):  # without a writable cache it is read again
            memory.parent.mkdir(parents=True, exist_ok=True)
            replace_file(memory, digest)
    return digest


def _read(blocks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _everything(folder: Path) -> Iterator[Path]:
    seen: set[Path] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place)
        real = here.resolve()
        if real in seen:  # a link to a folder above itself
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if name not in UNRELATED]
        yield from (here / name for name in files if (here / name).is_file())


def _is_part(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in OUTPUT_FOLDERS:
        return False
    return not any((folder / name).exists() for name in OUTPUTS)
