"""The evaluation log: `run.json` (what was run, where, with which versions) and `episodes.jsonl` (one line each).

It is the only input of reports and of the leaderboard. `actions.jsonl` beside it holds the actions, so that any
episode can be replayed without the policy; nothing else needs it.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_gen_bench.errors import UserError

if TYPE_CHECKING:
    import pandas

RUN_FILE, EPISODES_FILE, ACTIONS_FILE = "run.json", "episodes.jsonl", "actions.jsonl"
REQUIRED = ("scenario", "seed", "index", "spec_digest", "status", "success_at_end", "success_once", "steps")
Key = tuple[str, int, int]


def key_of(row: dict[str, Any]) -> Key:
    """Returns (scenario, seed, index), which names an episode within a log."""
    return row["scenario"], row["seed"], row["index"]


@dataclass(frozen=True)
class EvalLog:
    """A log folder. Rows are dicts exactly as written."""

    folder: Path

    @property
    def header(self) -> dict[str, Any]:
        """The content of `run.json`; raises `UserError` where it is missing or no JSON."""
        path = self.folder / RUN_FILE
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            raise UserError(f"{self.folder}: no evaluation log there ({RUN_FILE} not found)") from None
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None

    def rows(self, *, forgive_last: bool = False) -> list[dict[str, Any]]:
        """Returns all episode rows, of `episodes.jsonl` or `episodes.jsonl.gz`.

        Args:
            forgive_last: Leave out an unfinished last line, as a killed process may have left it.

        Raises:
            UserError: A line is malformed, named by file and line.
        """
        path = self.folder / EPISODES_FILE
        return list(_read_lines(path, forgive_last)) if path.exists() or packed(path).exists() else []

    def frame(self) -> pandas.DataFrame:
        """Returns the rows as a table, one per episode, for work in a notebook; raises as `rows`."""
        import pandas

        return pandas.DataFrame(self.rows())

    def actions(self, key: Key) -> str | None:
        """Returns the packed actions of an episode, None where they were not kept."""
        path = self.folder / ACTIONS_FILE
        if not path.exists():
            return None
        found = [row for row in _read_lines(path, True, ("actions",)) if key_of(row) == key]
        return found[-1]["actions"] if found else None


def packed(path: Path) -> Path:
    """Returns the name of a gzipped file: published logs are kept so."""
    return path.with_name(path.name + ".gz")


def read_text(path: Path) -> str:
    """Returns the text of a file, or of its gzipped form where only that is there."""
    if path.exists() or not packed(path).exists():
        return path.read_text(encoding="utf-8")
    return gzip.decompress(packed(path).read_bytes()).decode()


def _read_lines(path: Path, forgive_last: bool, required: Iterable[str] = REQUIRED) -> Iterator[dict[str, Any]]:
    lines = read_text(path).split("\n")
    unfinished = lines.pop()
    if unfinished and not forgive_last:
        raise UserError(
            f"{path}:{len(lines) + 1}: the last line is unfinished; 'vgb eval' with the same options mends it"
        )
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            missing = [name for name in required if name not in row]
        except (json.JSONDecodeError, TypeError) as error:
            raise UserError(f"{path}:{number}: not a JSON object ({error})") from None
        if missing:
            raise UserError(f"{path}:{number}: no field '{missing[0]}'")
        yield row


class LogWriter:
    """Appends rows; each is on disk before the next episode's is taken. Every error names the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = EvalLog(folder)

    def write_header(self, header: dict[str, Any]) -> None:
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            _replace(self.folder / RUN_FILE, json.dumps(header, indent=1) + "\n")

    def mend(self) -> list[dict[str, Any]]:
        """Drops an unfinished last line and errored rows, which are to be run again; returns the rows that stay."""
        kept = [row for row in self.log.rows(forgive_last=True) if row["status"] == "ok"]
        self._rewrite(kept)
        path = self.folder / ACTIONS_FILE
        if path.exists():
            done = {key_of(row) for row in kept}
            lines = [row for row in _read_lines(path, True, ("actions",)) if key_of(row) in done]
            with _writing(self.folder):
                _replace(path, "".join(_line(row) for row in lines))
        return kept

    def append(self, row: dict[str, Any], actions: str | None = None) -> None:
        with _writing(self.folder):
            if actions is not None:
                named = {name: row[name] for name in ("scenario", "seed", "index")}
                _append(self.folder / ACTIONS_FILE, {**named, "actions": actions})
            _append(self.folder / EPISODES_FILE, row)

    def sort(self, scenarios: Sequence[str]) -> list[dict[str, Any]]:
        """Rewrites the rows in the order of `scenarios`, others after them, and returns them.

        So a finished log does not depend on which worker was faster.
        """
        rank = {scenario: position for position, scenario in enumerate(scenarios)}
        rows = self.log.rows()
        rows.sort(key=lambda row: (rank.get(row["scenario"], len(rank)), *key_of(row)))
        self._rewrite(rows)
        return rows

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        with _writing(self.folder):
            _replace(self.folder / EPISODES_FILE, "".join(_line(row) for row in rows))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(_line(row))
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, text: str) -> None:
    """Writes atomically: the old content stays until the new one is whole."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class _writing:
    """Turns a full disk or a missing permission into a `UserError`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None: ...

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError):
            what = error.strerror or str(error)
            raise UserError(f"{self._folder}: cannot write the log ({what}); give another folder with --out") from error
