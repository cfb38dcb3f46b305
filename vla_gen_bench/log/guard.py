"""One writer at a time: the lock on every folder that a command fills."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vla_gen_bench.errors import UserError

_HELD: dict[Path, int] = {}  # the folders this process has locked, and the descriptor of each


@contextmanager
def locked(folder: Path, failure: str = "{where}: cannot write there ({what}); give another --out") -> Iterator[None]:
    """Holds a lock on a folder. Creates the folder if needed, and removes it again if nothing was written to it.

    The operating system releases the lock when the process ends, however it ends.

    Args:
        folder: May be on a read-only disk if it exists.
        failure: The message if the folder cannot be created or opened.

    Raises:
        UserError: Another process is writing there, or the file system refuses the folder.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        held = _hold(folder)
    except OSError as error:
        raise UserError(failure.format(where=folder, what=error.strerror or error)) from error
    own = folder.absolute()
    _HELD[own] = held
    try:
        yield
    finally:
        _HELD.pop(own, None)  # on a file system without locks a folder may be held twice
        if _same(held, folder):
            with suppress(OSError):  # not empty: something was written
                for path in made:
                    path.rmdir()
        os.close(held)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Like `locked`, and also turns file system errors raised in the body into a `UserError`.

    Raises:
        UserError: Another process is writing there, or the file system refuses an operation.
    """
    refused = "{where}: {what}; what was written stays: resolve that and give the same command again"
    try:
        with locked(folder, refused):
            yield
    except OSError as error:
        where, what = error.filename or folder, error.strerror or error
        raise UserError(refused.format(where=where, what=what)) from error


def check_held(folder: Path) -> None:
    """Makes sure that a folder this process has locked was not removed or replaced since; others pass.

    Call it before writing: a second command may have begun to write to a new folder of the same name.

    Raises:
        UserError: Another folder has this name now, or none has.
    """
    held = _HELD.get(folder.absolute())
    if held is not None and not _same(held, folder):
        raise UserError(f"{folder}: was removed while this command wrote there; nothing more is written to that name")


def is_held(folder: Path) -> bool:
    """Whether a process holds the lock on a folder now; it need not exist."""
    if not folder.is_dir():
        return False
    try:
        with locked(folder):
            return False
    except UserError:
        return True


def _hold(folder: Path) -> int:
    """Returns the locked descriptor of the folder that has this name now."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
        try:
            _lock(held, folder)
            if _same(held, folder):
                return held
        except BaseException:
            os.close(held)
            raise
        os.close(held)  # the previous holder removed the folder because it was empty


def _same(held: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held), os.stat(folder))
    except FileNotFoundError:
        return False


def _lock(held: int, folder: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{folder}: another process is writing there; wait for it, or name another folder") from None
    except OSError:
        pass  # the file system has no locks, so the folder is not guarded
