"""Whether processes have ended, for tests that end them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def alive(process: int | str) -> bool:
    """Whether a process of this id runs; one that has ended and whose parent has not asked yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def waited(condition: Callable[[], object], seconds: float = 120) -> bool:
    """Waits until the condition holds, for at most `seconds`; returns whether it does."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return bool(condition())
