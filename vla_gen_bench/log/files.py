"""File names in a log folder, and access to its lines: plain, or gzipped as published logs are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from vla_gen_bench.data import gzipped, read_byte_lines

RUN_FILE, EPISODES_FILE, ACTIONS_FILE, VIDEOS = "run.json", "episodes.jsonl", "actions.jsonl", "videos"


def present(path: Path) -> bool:
    """Whether a file exists, plain or gzipped."""
    return path.exists() or gzipped(path).exists()


def read_lines(path: Path, feed: Callable[[bytes], None] = lambda line: None) -> Iterator[bytes]:
    """Yields the lines of a file, plain or gzipped, each with its line end; nothing if there is no file.

    Args:
        path: Without `.gz`.
        feed: Called with each line, for a digest of the file.

    Raises:
        UserError: The path is not a regular file, or reading fails before its end.
    """
    for _, line in read_byte_lines(path) if present(path) else ():
        feed(line)
        yield line
