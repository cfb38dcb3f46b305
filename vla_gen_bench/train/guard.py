"""Guards of a folder in which a run or a collection grows: one writer at a time, disk errors named."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vla_gen_bench.errors import UserError

INFO_FILE = "meta/info.json"  # by it a folder of demonstrations is known


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Holds the lock on a folder, which is made if need be; the lock goes with the process, however that ends.

    Raises:
        UserError: Another process writes there, or the file system refuses something meanwhile.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
        try:
            _lock(held, folder)
            yield
        finally:
            os.close(held)
    except OSError as error:
        where, what = error.filename or folder, error.strerror or error
        message = f"{where}: {what}; what was written stays: mend that and give the same command again"
        raise UserError(message) from error


def _lock(held: int, folder: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{folder}: another process is writing there; wait for it, or choose another --out") from None
    except OSError:
        pass  # a file system without locks: nothing is guarded there
