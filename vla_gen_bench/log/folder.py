"""`EvalLog` reads a log folder. `run.json` states what ran; `episodes.jsonl` holds one line per episode.

Reports and the leaderboard read nothing else. `actions.jsonl`, in the same folder, holds the actions, from which any
episode can be replayed without the policy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vla_gen_bench.data import parse_line
from vla_gen_bench.errors import UserError
from vla_gen_bench.log.counts import Counts, count_by_scenario
from vla_gen_bench.log.files import ACTIONS_FILE, EPISODES_FILE, RUN_FILE, read_lines
from vla_gen_bench.log.header import Header, read_header
from vla_gen_bench.log.rows import Key, Row, fault_of, key_of, row_of

if TYPE_CHECKING:
    import pandas

UNFINISHED = "the last line is unfinished"


class Line(NamedTuple):
    """A line of the log: its place (`file:number`), its text, and the JSON object or what is wrong with it."""

    where: str
    text: bytes
    data: dict[str, Any] | None
    problem: str = ""


@dataclass(frozen=True)
class Reading:
    """What the rows of a log add up to.

    Attributes:
        rows: One per episode, in file order: its first row that is not an error, else its first row.
        problems: Invalid lines, which are not counted, each as `file:line: what is wrong`.
        repeated: The episode of each line that repeats another line.
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
        """The content of `run.json`; raises `UserError` if it is missing or malformed."""
        return read_header(self.folder)

    def lines(self, feed: Callable[[bytes], None] = lambda line: None) -> Iterator[Line]:
        """Yields the lines of `episodes.jsonl` or `episodes.jsonl.gz`, valid or not; nothing if there is no file.

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
        """Reads every row once; invalid lines are reported and left out.

        Args:
            run: `Header.run`: a row of another run is an invalid line.
            feed: See `lines`.
        """
        return gather(self.lines(feed), run)

    def rows(self, *, forgive_last: bool = False, settled: bool = False) -> list[dict[str, Any]]:
        """Returns the row of every episode that `read` counts, as the JSON object that was written.

        Args:
            forgive_last: Leave out an unfinished last line, which a killed process may leave.
            settled: Leave out episodes with rows that contradict each other.

        Raises:
            UserError: A line is malformed, or of another run; the message names file and line.
        """
        run = self.header.run if (self.folder / RUN_FILE).exists() else None
        lines = [line for line in self.lines() if not (forgive_last and line.problem == UNFINISHED)]
        for line in lines:
            problem = line.problem or foreign(line, run)
            if problem:
                raise refusal(line._replace(problem=problem))
        reading = gather(iter(lines), None)
        chosen = by_key(lines, reading.rows)
        return [line.data for key, line in chosen.items() if line.data and not (settled and key in reading.disputed)]

    def frame(self) -> pandas.DataFrame:
        """Returns the rows as a data frame, one row per episode; raises like `rows`."""
        import pandas

        return pandas.DataFrame(self.rows())

    def counts(self) -> dict[str, Counts]:
        """Returns episodes, errors and successes of each scenario, in log order; invalid lines are left out."""
        return count_by_scenario(self.read(self.header.run).rows.values())

    def actions(self, key: Key) -> str | None:
        """Returns the packed actions of an episode, None if they were not kept."""
        return self.actions_of({key}).get(key)

    def actions_of(self, keys: Container[Key]) -> dict[Key, str]:
        """Returns the packed actions of episodes; those that were not kept are missing."""
        parsed = (parse_actions(line) for line in read_lines(self.folder / ACTIONS_FILE))
        return {key_of(data): data["actions"] for data in parsed if data and key_of(data) in keys}


def read_log(folder: str | os.PathLike[str]) -> EvalLog:
    """Returns the log in a folder that `vgb eval` or `vgb.evaluate` wrote; raises `UserError` if there is none."""
    log = EvalLog(Path(folder))
    log.header  # noqa: B018  # raises if the folder holds no log
    return log


def gather(lines: Iterator[Line], run: str | None) -> Reading:
    """Collects the rows and the faults of lines; see `EvalLog.read`."""
    rows: dict[Key, Row] = {}
    problems, repeated, disputed = [], [], {}
    for line in lines:
        if line.data is None:
            problems.append(f"{line.where}: {line.problem}")
            continue
        row = row_of(line.data)
        first = rows.get(row.key)
        if other := foreign(line, run):
            problems.append(f"{line.where}: {other}")
        elif first is None or (row.ok and not first.ok):
            rows[row.key] = row
        elif not row.ok or row.agrees(first):
            repeated.append(row.key)
        else:
            disputed[row.key] = None
            problems.append(f"{line.where}: episode {row.name} is there twice, with another end; the first counts")
    return Reading(rows, tuple(problems), tuple(repeated), tuple(disputed))


def foreign(line: Line, run: str | None) -> str:
    """Returns what is wrong with a valid line that is not of the run, "" if nothing; older logs' rows name no run."""
    other = line.data.get("run") if line.data else None
    return f"a row of another run ({other}; run.json is of {run})" if other and run and other != run else ""


def by_key(lines: Iterable[Line], rows: Mapping[Key, Row]) -> dict[Key, Line]:
    """Returns the line of each row that `gather` chose: the episode's first one with the row's status."""
    found: dict[Key, Line] = {}
    for line in lines:
        if line.data is not None:
            key = key_of(line.data)
            if key in rows and line.data["status"] == rows[key].status:
                found.setdefault(key, line)
    return found


def parse_actions(text: bytes) -> dict[str, Any] | None:
    """Returns a parsed line of `actions.jsonl`; None if a crash cut it short or it is damaged."""
    data = parse_line(0, text).value
    named = isinstance(data, dict) and {"scenario", "seed", "index"} <= {*data}
    return data if named and isinstance(data.get("actions"), str) else None


def refusal(line: Line) -> UserError:
    """Returns the error for an invalid line, for callers that accept none."""
    fix = "; 'vgb eval' with the same options completes it" if line.problem == UNFINISHED else ""
    return UserError(f"{line.where}: {line.problem}{fix}")
