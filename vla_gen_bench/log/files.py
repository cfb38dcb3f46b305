"""Names of what lies in a log folder, and how its text is read: plain or gzipped, line by line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from vla_gen_bench.errors import UserError

RUN_FILE, EPISODES_FILE, ACTIONS_FILE, VIDEOS = "run.json", "episodes.jsonl", "actions.jsonl", "videos"


def packed(path: Path) -> Path:
    """Returns the name of a gzipped file: published logs are kept so."""
    return path.with_name(path.name + ".gz")


def present(path: Path) -> Path | None:
    """Returns the file or, where only that is there, its gzipped form; None where neither is."""
    return next((found for found in (path, packed(path)) if found.exists()), None)


def read_lines(path: Path, feed: Callable[[bytes], None] = lambda line: None) -> Iterator[bytes]:
    """Yields the lines of a file, plain or gzipped, each with its line end; nothing where there is no file.

    Args:
        path: Without `.gz`.
        feed: Called with each line, for a digest over the whole.

    Raises:
        UserError: No regular file, or it cannot be read to its end.
    """
    found = present(path)
    if found is None:
        return
    if not found.is_file():
        raise UserError(f"{found}: cannot be read: not a regular file")
    try:
        with _open(found) as file:
            for line in file:
                feed(line)
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{found}: cannot be read: {error}") from None


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
