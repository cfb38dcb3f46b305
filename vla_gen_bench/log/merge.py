"""Merges several logs of one run, such as shards from many machines, into one log.

Rows keep their bytes. A separate process surveys each source (parses every line, checks every row); then the
rows are copied in the order in which a single run would have left them.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from multiprocessing import get_context
from operator import or_
from pathlib import Path
from typing import Any, NamedTuple

from vla_gen_bench.data import replace_file, sync_folder
from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.errors import UserError, shown
from vla_gen_bench.log.files import ACTIONS_FILE, EPISODES_FILE, RUN_FILE, VIDEOS, present, read_lines
from vla_gen_bench.log.folder import UNFINISHED, EvalLog
from vla_gen_bench.log.guard import locked, sole_writer
from vla_gen_bench.log.header import Manifest, Planned, read_header
from vla_gen_bench.log.rows import Key, row_of
from vla_gen_bench.log.writer import LogWriter, header_text
from vla_gen_bench.runtime import allow_open_files, usable_cores

# What sources may differ in: when and where they ran, what files were called, what does not identify the run.
FREE = ("started", "sessions", "merged", "suite sources", "suite definition", "policy params")
MANY_BYTES = 20_000_000  # above this, processes repay their start-up time
PIECE_BYTES = 8 << 20


class Place(NamedTuple):
    """A row's location: the bytes from `start` to `end` of a source's rows."""

    source: int
    start: int
    end: int


@dataclass(frozen=True)
class Survey:
    """What a source holds.

    Attributes:
        folder: The log folder.
        header: The JSON object of its `run.json`.
        planned: The episodes that its sessions planned.
        last: The plan of the last session.
        rows: Key -> (start, end, whether it has an outcome, the content that equal episodes share).
        unfinished: Whether its last line was cut off, as happens when a process is killed.
    """

    folder: Path
    header: dict[str, Any]
    planned: Planned
    last: Manifest
    rows: dict[Key, tuple[int, int, bool, tuple]]
    unfinished: bool = False


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    Attributes:
        rows: Episodes in the merged log.
        repeated: Rows left out because they repeat another.
        missing: Planned episodes without a row, by scenario.
        errored: Episodes whose row is an error, by scenario.
        notes: Sentences on the sources, for the user.
    """

    rows: int
    repeated: int
    missing: Counter[str]
    errored: Counter[str]
    notes: tuple[str, ...] = field(default=())

    @property
    def complete(self) -> bool:
        return not self.missing and not self.errored


def merge(folders: Sequence[Path], out: Path, fresh: bool = False) -> Merged:
    """Merges the logs in `folders` into one log in `out`.

    Of equal rows of an episode one is kept; an outcome replaces an error.

    Args:
        fresh: Move an existing log in `out` aside.

    Raises:
        UserError: A process is writing one of the logs, they are of different runs, a row is damaged, two rows of one
            episode contradict each other, or `out` already holds a log. Nothing is written in these cases.
    """
    _check_folders(folders, out)
    allow_open_files(5 * len(folders) + 100)  # each is locked, opened and mapped
    with ExitStack() as held:
        for folder in filter(Path.is_dir, folders):  # rows are found by their places: nobody may write meanwhile
            held.enter_context(locked(folder, "{where}: cannot be read ({what})"))
        return _merge(folders, out, fresh)


def _merge(folders: Sequence[Path], out: Path, fresh: bool) -> Merged:
    surveys = _surveys(folders)
    for other in surveys[1:]:
        _check_same(surveys[0], other)
    places, repeated = _gather(surveys)
    order = _ordered(places, surveys[0].header)
    _check_manifests(surveys, places)
    with sole_writer(out):
        if any(present(out / name) for name in (RUN_FILE, EPISODES_FILE, ACTIONS_FILE)):
            if not fresh:
                raise UserError(f"{out}: holds a log already; choose another --out, or --fresh to move it aside")
            LogWriter(out).move_aside()
        _write_rows(out / EPISODES_FILE, surveys, [places[key] for key in order])
        _join_actions(out / ACTIONS_FILE, folders)
        _gather_videos(out / VIDEOS, folders)
        replace_file(out / RUN_FILE, header_text(_header(surveys)))
    return _outcome(surveys, places, repeated)


def _check_folders(folders: Sequence[Path], out: Path) -> None:
    places = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"{folder}: given twice; leave one out")
        if place == out.resolve():
            raise UserError(f"{folder}: is --out itself; choose another --out")


# ---- surveying ---------------------------------------------------------------------------------------------


def _surveys(folders: Sequence[Path]) -> list[Survey]:
    size = sum(path.stat().st_size for folder in folders for path in folder.glob(f"{EPISODES_FILE}*"))
    count = min(len(folders), usable_cores())
    if size < MANY_BYTES or count < 2:
        return [survey(folder) for folder in folders]
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        return list(pool.map(survey, folders))


def survey(folder: Path) -> Survey:
    """Reads a log's header and checks each row; raises `UserError` for a damaged one."""
    header = read_header(folder)
    rows: dict[Key, tuple[int, int, bool, tuple]] = {}
    unfinished, start = False, 0
    for line in EvalLog(folder).lines():
        end = start + len(line.text)
        if line.problem == UNFINISHED:
            unfinished = True
        elif line.data is None:
            raise UserError(f"{line.where}: {line.problem}")
        else:
            _take(rows, header.run, line.where, row_of(line.data), start, end)
        start = end
    return Survey(folder, dict(header.raw), header.planned(), header.last.manifest or Manifest(), rows, unfinished)


def _take(rows: dict, run: str | None, where: str, row: Any, start: int, end: int) -> None:
    if row.run and run and row.run != run:
        raise UserError(f"{where}: a row of another run ({row.run}; {RUN_FILE} is of {run})")
    found = (start, end, row.ok, (row.spec_digest, row.trace, row.success_at_end, row.success_once, row.steps))
    before = rows.get(row.key)
    if before is None or (row.ok and not before[2]):
        rows[row.key] = found
    elif row.ok and not _agree(before[3], found[3]):
        raise UserError(f"{where}: episode {row.name} is there twice, with another end; 'vgb eval' runs it again")


def _agree(one: tuple, other: tuple) -> bool:
    """Whether two rows are equal runs of one episode; if both have a trace, the traces decide."""
    return one == other if one[1] and other[1] else one[:1] + one[2:] == other[:1] + other[2:]


def _check_same(first: Survey, other: Survey) -> None:
    """Raises `UserError` unless both logs are of one run: suite, policy, world, pack, simulator and so on."""
    ours, theirs = _identity(first.header), _identity(other.header)
    for name in [*ours, *(theirs.keys() - ours.keys())]:
        if ours.get(name) != theirs.get(name):
            sides = f"{first.folder} has {shown(ours.get(name))}, {other.folder} has {shown(theirs.get(name))}"
            raise UserError(f"logs of different runs cannot be merged: {name}: {sides}")


def _identity(header: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in header.items():
        flat |= {f"{name} {key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return {name: value for name, value in flat.items() if name not in FREE}


# ---- joining -----------------------------------------------------------------------------------------------


def _gather(surveys: Sequence[Survey]) -> tuple[dict[Key, Place], int]:
    """Returns the row that counts for each episode, and the number of repeated rows."""
    found: dict[Key, tuple[Place, bool, tuple]] = {}
    repeated = 0
    for source, survey_ in enumerate(surveys):
        for key, (start, end, ok, what) in survey_.rows.items():
            before = found.get(key)
            if before is None or (ok and not before[1]):
                found[key] = (Place(source, start, end), ok, what)
            elif not ok or _agree(before[2], what):
                repeated += 1
            else:
                _refuse(surveys[before[0].source], survey_, key, before[2], what)
    return {key: place for key, (place, _, _) in found.items()}, repeated


def _refuse(first: Survey, other: Survey, key: Key, ours: tuple, theirs: tuple) -> None:
    name = "/".join(map(str, key))
    drawn = "was drawn differently" if ours[0] != theirs[0] else "ended differently"
    raise UserError(f"episode {name} {drawn} in {first.folder} and {other.folder}; merge only one of them")


def _check_manifests(surveys: Sequence[Survey], places: Mapping[Key, Place]) -> None:
    """Checks the drawn episodes against the digest in each source's plan, if all rows of that plan are present."""
    plans = {survey_.last.digest: (survey_.folder, survey_.last) for survey_ in surveys if survey_.last.seeds}
    for folder, plan in plans.values():
        each = plan.episodes // max(1, len(plan.scenarios) * len(plan.seeds))
        keys = [(id, seed, index) for id in plan.scenarios for seed in plan.seeds for index in range(each)]
        if not all(key in places for key in keys):
            continue
        drawn = [[*key, surveys[places[key].source].rows[key][3][0]] for key in keys]
        if digest_of(drawn) != plan.digest:
            raise UserError(f"{folder}: {RUN_FILE} is of other draws than the rows ({plan.digest}): a row was changed")


def _ordered(places: Mapping[Key, Place], header: Mapping[str, Any]) -> list[Key]:
    """Returns the keys in the order of a single run: by scenario in suite order, then seed, then index."""
    suite: Mapping[str, Any] = header["suite"].get("definition") or {}
    scenarios: list[str] = list(suite.get("scenarios") or ())
    manifests = (session.get("manifest") or {"scenarios": ()} for session in header.get("sessions") or ())
    for manifest in manifests:
        scenarios += manifest["scenarios"]
    rank = {scenario: place for place, scenario in reversed(list(enumerate(scenarios)))}
    return sorted(places, key=lambda key: (rank.get(key[0], len(scenarios)), *key))


def _write_rows(path: Path, surveys: Sequence[Survey], places: Sequence[Place]) -> None:
    with ExitStack() as opened:
        contents = [opened.enter_context(_content(survey_.folder)) for survey_ in surveys]
        _write(path, (contents[place.source][place.start : place.end] for place in places))


@contextmanager
def _content(folder: Path) -> Iterator[Any]:
    """Yields the decompressed bytes of a log's rows; plain files are read from disk only when needed."""
    path = folder / EPISODES_FILE
    if not path.exists() or not path.stat().st_size:
        yield b"".join(read_lines(path))
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


def _join_actions(path: Path, folders: Sequence[Path]) -> None:
    """Concatenates the actions of all sources; if an episode repeats, the last actions count, and all are equal."""
    sources = [folder / ACTIONS_FILE for folder in folders if present(folder / ACTIONS_FILE)]
    if sources:
        _write(path, (line for source in sources for line in read_lines(source) if line.endswith(b"\n")))


def _write(path: Path, pieces: Iterator[bytes]) -> None:
    draft = path.with_name(path.name + ".tmp")
    try:
        with draft.open("wb", buffering=PIECE_BYTES) as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())  # before the rename, so a crash leaves either no file or a complete one
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def _gather_videos(target: Path, folders: Sequence[Path]) -> None:
    for video in sorted(video for folder in folders for video in (folder / VIDEOS).glob("*.mp4")):
        if video.is_symlink() or video.name.startswith("."):  # a link may lead to any file; a draft of a killed run
            continue
        target.mkdir(exist_ok=True)
        place = target / video.name
        if not place.exists():
            try:
                os.link(video, place)
            except OSError:  # the folders are on different file systems
                shutil.copyfile(video, place)


def _header(surveys: Sequence[Survey]) -> dict[str, Any]:
    sessions = [session for survey_ in surveys for session in survey_.header.get("sessions", ())]
    began = [survey_.header["started"] for survey_ in surveys if survey_.header.get("started")]
    merged = [{"folder": survey_.folder.name, "rows": len(survey_.rows)} for survey_ in surveys]
    head = {**surveys[0].header, "sessions": sorted(sessions, key=lambda session: session.get("started", ""))}
    return head | {"merged": merged} | ({"started": min(began)} if began else {})


def _outcome(surveys: Sequence[Survey], places: Mapping[Key, Place], repeated: int) -> Merged:
    planned = reduce(or_, (survey_.planned for survey_ in surveys))
    bad = Counter(key[0] for key, place in places.items() if not surveys[place.source].rows[key][2])
    notes = tuple(
        f"{survey_.folder}: its last line was cut off, and is left out" for survey_ in surveys if survey_.unfinished
    )
    return Merged(len(places), repeated, planned.missing(places), bad, notes)
