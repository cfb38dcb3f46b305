"""Derived folders in the cache: verified before use and rebuilt if they differ.

A shader or a model changed by a user or a crash would change every image without any trace in the log.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from vla_gen_bench.data import sync_folder

DAY_S = 86_400
TRIES = 10
TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
_seen: dict[Path, tuple[tuple[int, int, int], ...]] = {}  # folder -> file stats at the last comparison


def ensure_folder(root: Path, files: Mapping[Path, bytes]) -> None:
    """Ensures that `root` contains `files`, relative path -> content; other processes see all of them or none.

    Existing files are read and compared once per process, and again when a file's time or size changes.

    Raises:
        OSError: The folder differs and cannot be written.
    """
    looks = _looks(root, files)
    if looks and _seen.get(root) == looks:
        return
    if not looks or not _same(root, files):
        _replace(root, files)
    _seen[root] = _looks(root, files)


def _looks(root: Path, files: Mapping[Path, bytes]) -> tuple[tuple[int, int, int], ...]:
    """Returns time, size and inode number of each file; empty if one is missing."""
    try:
        found = [(root / path).stat() for path in files]
    except OSError:
        return ()
    return tuple((file.st_mtime_ns, file.st_size, file.st_ino) for file in found)


def _same(root: Path, files: Mapping[Path, bytes]) -> bool:
    try:
        there = {path.relative_to(root) for path in root.rglob("*") if not path.is_dir()}
        return there == set(files) and all((root / path).read_bytes() == content for path, content in files.items())
    except OSError:
        return False


def _replace(root: Path, files: Mapping[Path, bytes]) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    work = draft_folder(root)
    try:
        for path, content in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_bytes(content)
        put_in_place(work, root, lambda: _same(root, files))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def draft_folder(root: Path) -> Path:
    """Makes an empty folder next to `root`, with the umask's permissions (mkdtemp's would be private).

    Drafts of processes that were killed a day ago or more are removed.
    """
    for left in root.parent.glob(f".{glob.escape(root.name)}.draft-{'[0-9a-f]' * 32}"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > DAY_S:
                shutil.rmtree(left, ignore_errors=True)
    work = root.parent / f".{root.name}.draft-{uuid.uuid4().hex}"
    work.mkdir()
    return work


def put_in_place(work: Path, root: Path, good: Callable[[], bool]) -> None:
    """Renames `work` to `root` durably; replaces an existing folder unless `good()` accepts it.

    Raises:
        OSError: The folder cannot be replaced and is not accepted.
    """
    _sync_tree(work)
    aside = root.parent / f".{root.name}.old-{uuid.uuid4().hex}"
    try:
        for _ in range(TRIES):
            if _renamed(work, root) or good():  # good: another process was faster
                break
            with suppress(FileNotFoundError):  # another process has just set it aside
                shutil.rmtree(aside, ignore_errors=True)
                root.rename(aside)
        else:
            raise FileExistsError(errno.EEXIST, "other processes replace it at the same time", str(root))
    except OSError:
        if aside.exists() and not root.exists():
            aside.rename(root)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sync_folder(root.parent)


def _renamed(work: Path, root: Path) -> bool:
    """Renames `work`; returns whether `root` was free."""
    try:
        work.rename(root)
        return True
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        else:
            sync_folder(path)
    sync_folder(folder)
