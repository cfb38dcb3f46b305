"""A leaderboard folder: `entries/*.json` and `logs/<id>/` in; `leaderboard.csv` and `site/index.html` out."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_gen_bench.assets.generated import KNOWN
from vla_gen_bench.data import gzipped, replace_file
from vla_gen_bench.episodes.suite import Suite
from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.leaderboard import rank
from vla_gen_bench.leaderboard.derive import Log, read_log, suite_of
from vla_gen_bench.leaderboard.entry import Entry, entry_text, is_url, read_entry
from vla_gen_bench.leaderboard.listing import OOD, Group, Listing, Study
from vla_gen_bench.leaderboard.page import page
from vla_gen_bench.leaderboard.rank import Mean, Place
from vla_gen_bench.leaderboard.sheet import sheet
from vla_gen_bench.leaderboard.validation import PAPER_SUITE, flags, problems
from vla_gen_bench.log.files import EPISODES_FILE, RUN_FILE, read_lines

USUAL_ASSETS = {world: known.stated for world, known in KNOWN.items()}
USUAL_ASSETS["rl4vla"] = "79b9167e2e663f2c"  # without the three visuals that no public copy has
CSV_FILE, PAGE_FILE = "leaderboard.csv", "site/index.html"


class Board:
    """Reads a folder's entries at once, and their logs when needed; raises `UserError` for an invalid file."""

    def __init__(self, folder: Path, logs: Mapping[str, Path] | None = None) -> None:
        self.folder = folder
        self._elsewhere = dict(logs or {})
        self._studies: dict[str, Study | None] = {}
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; name a leaderboard with --folder")
        self.entries = {path.stem: read_entry(path) for path in sorted((folder / "entries").glob("*.json"))}
        for id in self._elsewhere:
            self.entry(id)

    def entry(self, id: str) -> Entry:
        """Returns an entry; raises `UserError` for an unknown id."""
        if id not in self.entries:
            raise UserError(f"{self.folder / 'entries'}: no entry '{id}'{suggest(id, self.entries)}")
        return self.entries[id]

    def path(self, id: str) -> Path:
        return self.folder / "entries" / f"{id}.json"

    def at_hand(self, id: str) -> bool:
        """Whether an entry's log is in this folder: not for a paper's row, nor for a log behind a URL."""
        where = self.entry(id).trust.log
        return id in self._elsewhere or not (where is None or is_url(where))

    def study(self, id: str) -> Study | None:
        """Returns what an entry's log shows, read once and then released; None if the log is not available."""
        if id not in self._studies:
            self._studies[id] = self._study(self.entry(id)) if self.at_hand(id) else None
        return self._studies[id]

    def _study(self, entry: Entry) -> Study:
        log = read_log(self._elsewhere.get(entry.id) or self.folder / str(entry.trust.log))
        found = tuple(problems(entry, log))
        try:
            suite = suite_of(entry.suite.id, log.header)
        except UserError:  # already listed among the problems
            return Study(found, {}, {})
        return Study(found, dimensions_of(suite), outcomes(log, suite, entry.protocol.metric))

    def problems(self, ids: Iterable[str]) -> list[str]:
        """Returns all faults of the entries, one per line, each with its file."""
        found = []
        for id in ids:
            entry = self.entry(id)
            try:
                study = self.study(id)
                wrong = study.problems if study else problems(entry, None)
                found += [f"{self.path(id)}: {one}" for one in wrong]
            except UserError as error:
                found.append(f"{self.path(id)}: trust.log: {error}")
        return found

    def groups(self) -> dict[Group, list[Listing]]:
        """Returns the listings, best first; measured entries before those of papers."""
        groups: dict[Group, list[Listing]] = {}
        for entry in self.entries.values():
            suite = entry.suite
            key = Group(
                suite.world,
                suite.world_version,
                suite.id,
                suite.digest or "",
                entry.protocol.preset,
                describe_sensors(entry.protocol.sensors),
                describe_assets(suite.world, suite.pack or ""),
            )
            groups.setdefault(key, []).append(self._listing(entry))
        return {key: self._ranked(groups[key]) for key in sorted(groups, key=lambda key: key.order)}

    def _listing(self, entry: Entry) -> Listing:
        study = self.study(entry.id)
        suite = "table1" if entry.suite.id == PAPER_SUITE else entry.suite.id
        dimensions = study.dimensions if study else dimensions_of(suite_of(suite))
        means = {name: self._mean(entry, rows) for name, rows in rows_by_dimension(dimensions).items()}
        found = flags(entry)
        return Listing(entry, dimensions, means, self._standing(entry, means, found), found)

    def _mean(self, entry: Entry, rows: list[str]) -> Mean | None:
        cells = [entry.results[row] for row in rows if row in entry.results]
        if len(cells) < len(rows) or any(cell.n < cell.planned or cell.errors for cell in cells):
            return None
        study = self.study(entry.id)
        if len(cells) == 1:
            return Mean(cells[0].rate, cells[0].low, cells[0].high, cells[0].n, entry.interval.method)
        if study is None:
            return rank.mean_of_counts([(getattr(cell, entry.protocol.metric), cell.n) for cell in cells])
        return rank.mean_over_rows(study.of(rows))

    def _standing(self, entry: Entry, means: dict[str, Mean | None], found: list[str]) -> str:
        ranked = means.get(OOD)
        later = self._superseded_by(entry)
        reasons = {
            "paper": not entry.measured,
            f"superseded by {later}": later is not None,
            "flagged": bool(found),
            "incomplete": ranked is None,
            "too few episodes": min(cell.n for cell in entry.results.values()) < rank.MIN_LISTED
            or (ranked is not None and ranked.episodes < rank.MIN_RANKED),
            "log elsewhere": not self.at_hand(entry.id),
        }
        return next((reason for reason, holds in reasons.items() if holds), "ranked")

    def _superseded_by(self, entry: Entry) -> str | None:
        """The newest entry of the same checkpoint, suite, world, preset and source, if it is a different entry."""
        same = [other for other in self.entries.values() if _identity(other) == _identity(entry)]
        newest = max(same, key=lambda other: (other.trust.date, other.id))
        return None if newest.id == entry.id or not entry.measured else newest.id

    def _ranked(self, listings: list[Listing]) -> list[Listing]:
        per_id = {
            listing.entry.id: study.of(rows_by_dimension(listing.dimensions)[OOD]).mean(axis=0)
            for listing in listings
            if listing.standing == "ranked" and (study := self.study(listing.entry.id))
        }
        places = rank.places(per_id)
        placed = [_placed(listing, places.get(listing.entry.id)) for listing in listings]
        return sorted(placed, key=_order)

    def build(self) -> dict[Path, str]:
        """Returns the files generated from the entries: path -> content."""
        groups = self.groups()
        return {self.folder / CSV_FILE: sheet(groups), self.folder / PAGE_FILE: page(groups)}


def describe_assets(world: str, pack: str) -> str:
    """Returns the digest of an entry's assets; "" for those of the published logs."""
    return "" if pack == USUAL_ASSETS.get(world) else pack


def describe_sensors(sensors: Mapping[str, Any]) -> str:
    """Returns "external + wrist, state, 256x256" for an entry's sensors, "" for the default ones."""
    parts = [" + ".join(sensors["cameras"])] if "cameras" in sensors else []
    parts += ["state"] if sensors.get("state") else []
    parts += ["x".join(map(str, sensors["image_size"]))] if "image_size" in sensors else []
    unit = "control steps" if sensors.get("chunk_frames") else "decisions"
    parts += [f"{sensors['history']} {unit} of history"] if "history" in sensors else []
    return ", ".join(parts)


def _identity(entry: Entry) -> tuple:
    """Returns the fields that a newer entry must share to replace this one."""
    policy = entry.policy
    what = policy.digest, policy.checkpoint, policy.options
    seen = describe_sensors(entry.protocol.sensors)
    return (*what, entry.suite, entry.protocol.preset, seen, entry.trust.source, entry.measured)


def _placed(listing: Listing, place: Place | None) -> Listing:
    return Listing(**{**vars(listing), "place": place})


def _order(listing: Listing) -> tuple:
    mean = listing.means.get(OOD)
    rank_ = listing.place.rank if listing.place else np.inf
    return rank_, -(mean.value if mean else -1.0), listing.entry.id


def dimensions_of(suite: Suite) -> dict[str, str]:
    """Returns scenario id -> dimension, in table order."""
    return {scenario.id: scenario.dimension for scenario in suite.scenarios.values()}


def rows_by_dimension(dimensions: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the scenarios of each dimension, and under "ood" all except IND and controls."""
    rows: dict[str, list[str]] = {}
    for scenario, dimension in dimensions.items():
        rows.setdefault(dimension, []).append(scenario)
    shifted = [scenario for scenario, dimension in dimensions.items() if dimension not in ("ind", "control")]
    return {**rows, OOD: shifted} if shifted else rows


def outcomes(log: Log, suite: Suite, metric: str) -> dict[str, np.ndarray]:
    """Returns scenario -> bool [ids], finished episodes by (seed, index); complete logs have all."""
    keys = sorted(key for key, row in log.rows.items() if row.ok)
    return {
        scenario: np.array([getattr(log.rows[key], metric) for key in keys if key[0] == scenario], bool)
        for scenario in suite.scenarios
    }


def write_files(files: Mapping[Path, str | bytes]) -> None:
    """Writes files that differ, creating their folders; raises `UserError` if that fails."""
    for path, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        try:
            if path.is_file() and path.read_bytes() == data:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, data)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def add_entry(folder: Path, entry: Entry, run: Path) -> Path:
    """Writes an entry, and its log unless the log is behind a URL; returns the entry's path.

    The rows are gzipped with a fixed time stamp: the same log gives the same bytes.
    """
    path = folder / "entries" / f"{entry.id}.json"
    if path.exists():
        raise UserError(f"{path}: there is such an entry already; give another --id, or remove it first")
    files: dict[Path, str | bytes] = {}
    if entry.trust.log and not is_url(entry.trust.log):
        target = folder / entry.trust.log
        files[gzipped(target / EPISODES_FILE)] = gzip.compress(b"".join(read_lines(run / EPISODES_FILE)), mtime=0)
        files[target / RUN_FILE] = (run / RUN_FILE).read_bytes()
    write_files({**files, path: entry_text(entry)})  # the entry last: it is never without its log
    return path
