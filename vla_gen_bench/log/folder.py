"""`EvalLog`: a log folder, read. `run.json` says what was run, `episodes.jsonl` holds one line for each episode.

It is the only input of reports and of the leaderboard. `actions.jsonl` beside it holds the actions, so that any
episode can be replayed without the policy; nothing else needs it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vla_gen_bench.data import parse_line
from vla_gen_bench.errors import UserError
from vla_gen_bench.log.counts import Counts, count_by_scenario
from vla_gen_bench.log.files import ACTIONS_FILE, EPISODES_FILE, read_lines
from vla_gen_bench.log.header import Header, read_header
from vla_gen_bench.log.rows import Key, Row, fault_of, key_of, row_of

if TYPE_CHECKING:
    import pandas

UNFINISHED = "the last line is unfinished"


class Line(NamedTuple):
    """A line of the log: where (`file:number`), its text, and the JSON object or what is wrong with it."""

    where: str
    text: bytes
    data: dict[str, Any] | None
    problem: str = ""


@dataclass(frozen=True)
class Reading:
    """All that a log's rows say.

    Attributes:
        rows: One for each episode, in the order of the file: the first that is no error, else the first.
        problems: Lines that do not count, each as `file:line: what is wrong`.
        repeated: The episode of each line that says again what another line says.
        disputed: Episodes with lines that contradict each other.
    """

    rows: dict[Key, Row]
    problems: tuple[str, ...] = ()
    repeated: tuple[Key, ...] = ()
    disputed: tuple[Key, ...] = ()


@dataclass(frozen=True)
class EvalLog:
    """A log folder."""

    folder: Path

    @property
    def header(self) -> Header:
        """The content of `run.json`; raises `UserError` where it is missing or malformed."""
        return read_header(self.folder)

    def lines(self, feed: Callable[[bytes], None] = lambda line: None) -> Iterator[Line]:
        """Yields the lines of `episodes.jsonl` or `episodes.jsonl.gz`, good and bad; nothing where there is none.

        Args:
            feed: Called with the bytes of each line.

        Raises:
            UserError: The file cannot be read to its end.
        """
        path = self.folder / EPISODES_FILE
        for number, text in enumerate(read_lines(path, feed), 1):
            value, problem = parse_line(number, text)[1:]
            problem = problem or fault_of(value)
            yield Line(f"{path}:{number}", text, None if problem else value, problem)

    def read(self, run: str | None = None, feed: Callable[[bytes], None] = lambda line: None) -> Reading:
        """Reads every row once; bad lines are named and left out.

        Args:
            run: `Header.run`: a row that names another run is a bad line.
            feed: As in `lines`.
        """
        return gather(self.lines(feed), run)

    def rows(self, *, forgive_last: bool = False) -> list[dict[str, Any]]:
        """Returns the first row of every episode, as the JSON objects that were written.

        Args:
            forgive_last: Leave out an unfinished last line, as a killed process may have left it.

        Raises:
            UserError: A line is malformed, named by file and line.
        """
        found: dict[Key, dict[str, Any]] = {}
        for line in self.lines():
            if line.data is not None:
                found.setdefault(key_of(line.data), line.data)
            elif not (forgive_last and line.problem == UNFINISHED):
                raise refusal(line)
        return list(found.values())

    def frame(self) -> pandas.DataFrame:
        """Returns the rows as a table, one per episode, for work in a notebook; raises as `rows`."""
        import pandas

        return pandas.DataFrame(self.rows())

    def counts(self) -> dict[str, Counts]:
        """Returns episodes, errors and successes of each scenario, in the order of the log; bad lines are left out."""
        return count_by_scenario(self.read(self.header.run).rows.values())

    def actions(self, key: Key) -> str | None:
        """Returns the packed actions of an episode, None where they were not kept."""
        found = None
        for line in read_lines(self.folder / ACTIONS_FILE):
            data = parse_actions(line)
            if data and key_of(data) == key:
                found = data["actions"]
        return found


def read_log(folder: str | os.PathLike[str]) -> EvalLog:
    """Returns the log in a folder that `vgb eval` or `vgb.evaluate` wrote; raises `UserError` where none lies."""
    log = EvalLog(Path(folder))
    log.header  # noqa: B018  # names a folder that holds none
    return log


def gather(lines: Iterator[Line], run: str | None) -> Reading:
    """Returns what lines say; see `EvalLog.read`."""
    rows: dict[Key, Row] = {}
    problems, repeated, disputed = [], [], {}
    for line in lines:
        if line.data is None:
            problems.append(f"{line.where}: {line.problem}")
            continue
        row = row_of(line.data)
        first = rows.get(row.key)
        if row.run and run and row.run != run:
            problems.append(f"{line.where}: a row of another run ({row.run}; run.json is of {run})")
        elif first is None or (row.ok and not first.ok):
            rows[row.key] = row
        elif not row.ok or row.agrees(first):
            repeated.append(row.key)
        else:
            disputed[row.key] = None
            problems.append(f"{line.where}: episode {row.name} is there twice, with another end; the first counts")
    return Reading(rows, tuple(problems), tuple(repeated), tuple(disputed))


def parse_actions(text: bytes) -> dict[str, Any] | None:
    """Returns a line of `actions.jsonl`; None for one that a crash cut short or something spoiled."""
    data = parse_line(0, text).value
    named = isinstance(data, dict) and {"scenario", "seed", "index"} <= {*data}
    return data if named and isinstance(data.get("actions"), str) else None


def refusal(line: Line) -> UserError:
    """Returns the error for a bad line where every line counts."""
    fix = "; 'vgb eval' with the same options completes it" if line.problem == UNFINISHED else ""
    return UserError(f"{line.where}: {line.problem}{fix}")
