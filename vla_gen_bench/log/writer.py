"""`LogWriter` appends rows, and repairs a log that a crash or a second writer left inconsistent."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla_gen_bench.data import gzipped, replace_file
from vla_gen_bench.errors import UserError
from vla_gen_bench.log.files import ACTIONS_FILE, EPISODES_FILE, RUN_FILE, read_lines
from vla_gen_bench.log.folder import UNFINISHED, EvalLog, by_key, gather, parse_actions, refusal
from vla_gen_bench.log.guard import check_held
from vla_gen_bench.log.rows import Key, Row, key_of


class LogWriter:
    """Writes a log. Each row is on disk before the next episode's row is accepted. Every error names the folder.

    Files that would not change are not rewritten, so a complete log may be on a read-only disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = EvalLog(folder)

    def write_header(self, header: dict[str, Any]) -> None:
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_file(self.folder / RUN_FILE, header_text(header))

    def restore(self, run: str | None = None) -> tuple[dict[Key, Row], list[str]]:
        """Drops an unfinished last line, repeated rows, and rows of episodes that must run again.

        Episodes run again if they errored or if their rows contradict each other.

        Args:
            run: `Header.run`.

        Returns:
            The rows that stay, and sentences on what was dropped other than errors.

        Raises:
            UserError: A line is malformed, or a row is of another run.
        """
        lines = [line for line in self.log.lines() if line.problem != UNFINISHED]
        bad = next((line for line in lines if line.data is None), None)
        if bad:
            raise refusal(bad)
        reading = gather(iter(lines), run)
        strange = [problem for problem in reading.problems if "another run" in problem]
        if strange:
            raise UserError(f"{strange[0]}; give another folder with --out, or --fresh to move the log aside")
        kept = {key: row for key, row in reading.rows.items() if row.ok and key not in reading.disputed}
        self._rewrite([line.text for line in by_key(lines, kept).values()])
        self._drop_actions(kept)
        return kept, _notes(len(reading.repeated), len(reading.disputed))

    def _drop_actions(self, kept: dict[Key, Row]) -> None:
        path = self.folder / ACTIONS_FILE
        if path.exists():
            found = ((parse_actions(line), line) for line in read_lines(path))
            last = {key_of(data): line for data, line in found if data and key_of(data) in kept}
            self._write(path, list(last.values()))

    def append(self, row: dict[str, Any], actions: str | None = None) -> None:
        with _writing(self.folder):
            if actions is not None:
                named = {name: row[name] for name in ("scenario", "seed", "index")}
                _append(self.folder / ACTIONS_FILE, {**named, "actions": actions})
            _append(self.folder / EPISODES_FILE, row)

    def clear(self) -> None:
        """Empties rows and actions, for a log without a complete row."""
        for name in (EPISODES_FILE, ACTIONS_FILE):
            if (self.folder / name).exists():
                with _writing(self.folder):
                    replace_file(self.folder / name, b"")

    def unpack(self) -> None:
        """Decompresses a gzipped log, since only a plain one can be appended to."""
        for path in (self.folder / ACTIONS_FILE, self.folder / EPISODES_FILE):
            if gzipped(path).exists() and not path.exists():
                lines = list(read_lines(path))
                with _writing(self.folder):
                    replace_file(path, b"".join(lines))

    def sort(self, scenarios: Sequence[str]) -> dict[Key, Row]:
        """Puts the rows in the order of `scenarios`, others after them, and returns them.

        This makes a finished log independent of which worker was faster.
        """
        rank = {scenario: position for position, scenario in enumerate(scenarios)}
        lines = list(self.log.lines())
        bad = next((line for line in lines if line.data is None), None)
        if bad:
            raise refusal(bad)
        rows = gather(iter(lines), None).rows
        order = sorted(rows, key=lambda key: (rank.get(key[0], len(rank)), *key))
        first = by_key(lines, rows)
        self._rewrite([first[key].text for key in order])
        return {key: rows[key] for key in order}

    def _rewrite(self, lines: list[bytes]) -> None:
        self._write(self.folder / EPISODES_FILE, lines)

    def _write(self, path: Path, lines: list[bytes]) -> None:
        if lines == list(read_lines(path)):
            return
        with _writing(self.folder):
            replace_file(path, b"".join(lines))

    def move_aside(self) -> Path:
        """Moves the log into a new sibling folder, `run.json` last, and returns that folder.

        The folder itself stays, since the lock of `vla_gen_bench.log.guard` is on it, and so do other logs below it,
        such as shards: a log that is merged again must not move its own sources.
        """
        with _writing(self.folder):
            target = _new_folder(self.folder.with_name(f"{self.folder.name}.{time.strftime('%Y%m%d-%H%M%S')}"))
            if (self.folder / RUN_FILE).exists():  # rows are never without their header
                shutil.copy2(self.folder / RUN_FILE, target / RUN_FILE)
            own = [path for path in self.folder.iterdir() if not (path / RUN_FILE).exists()]
            for path in sorted(own, key=lambda path: path.name == RUN_FILE):
                path.rename(target / path.name)
        return target


def header_text(header: Mapping[str, Any]) -> str:
    """Formats the content of `run.json`."""
    return json.dumps(header, indent=1, allow_nan=False) + "\n"


def _notes(repeats: int, disputed: int) -> list[str]:
    notes = [f"{repeats} rows that repeated an episode were dropped"] if repeats else []
    if disputed:
        notes.append(f"{disputed} episodes had rows that contradict each other, of two runs at once; they run again")
    return notes


def _new_folder(path: Path) -> Path:
    for number in range(1, 1000):
        name = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            name.mkdir()
            return name
        except FileExistsError:
            continue
    raise UserError(f"{path}: too many logs were moved aside there; remove some")


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("ab") as file:
        file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


class _writing:
    """Turns a removed folder, a full disk or a missing permission into a `UserError`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        check_held(self._folder)

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError):
            what = error.strerror or str(error)
            raise UserError(f"{self._folder}: cannot write the log ({what}); give another folder with --out") from error
