"""Log folders in, `Run`s out. A bad line is named and left out; everything else still counts."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vla_gen_bench.errors import UserError
from vla_gen_bench.log.log import EPISODES_FILE, REQUIRED, EvalLog, Key, key_of, packed

WORLD_PARTS = ("name", "catalog", "pack")


class Episode(NamedTuple):
    """What a table needs of an episode; the two successes are None where it errored."""

    spec_digest: str
    success_at_end: bool | None
    success_once: bool | None
    stage: str | None


@dataclass(frozen=True)
class Run:
    """One evaluation log, read.

    Attributes:
        label: Its column's name, unique within a report.
        folder: Where it lies.
        header: The content of `run.json`.
        episodes: By (scenario, seed, index), in the order of the file.
        planned: Episodes each scenario was to have, as far as the header says.
        problems: Bad lines, each as `file:line: what is wrong`.
    """

    label: str
    folder: Path
    header: dict[str, Any]
    episodes: dict[Key, Episode]
    planned: dict[str, int]
    problems: tuple[str, ...]

    @property
    def policy(self) -> str:
        return self.header["policy"]["name"]

    def missing(self) -> Counter[str]:
        """Returns how many planned episodes have no row, by scenario; complete ones are left out."""
        return +(Counter(self.planned) - Counter(scenario for scenario, _, _ in self.episodes))

    def errored(self) -> Counter[str]:
        """Returns how many episodes errored, by scenario."""
        return Counter(key[0] for key, episode in self.episodes.items() if episode.success_at_end is None)

    def defect(self) -> str:
        """Returns what the run lacks, as a phrase; empty for a complete one."""
        counts = (
            (self.missing().total(), "missing"),
            (self.errored().total(), "errored"),
            (len(self.problems), "bad lines"),
        )
        return ", ".join(f"{count} {what}" for count, what in counts if count)


def load_runs(names: Sequence[str]) -> list[Run]:
    """Reads the runs of a report.

    Args:
        names: Log folders; `LABEL=FOLDER` names the column.

    Raises:
        UserError: A folder holds no log, or two names are the same folder.
    """
    parted = [_parted(name) for name in names]
    folders = [folder.resolve() for _, folder in parted]
    twice = [folder for folder in folders if folders.count(folder) > 1]
    if twice:
        raise UserError(f"{twice[0]}: this run is given twice; leave one out")
    headers = [read_header(folder) for _, folder in parted]
    labels = _labels([label for label, _ in parted], headers, [folder for _, folder in parted])
    return [_run(label, folder, header) for label, (_, folder), header in zip(labels, parted, headers)]


def _parted(name: str) -> tuple[str, Path]:
    label, equals, folder = name.partition("=")
    return (label, Path(folder)) if equals and not Path(name).exists() else ("", Path(name))


def _labels(given: list[str], headers: list[dict], folders: list[Path]) -> list[str]:
    """The policy's name; where several runs share it, what is different in their folders tells them apart."""
    names = [label or header["policy"]["name"] for label, header in zip(given, headers)]
    shared = [folder.resolve().parts for name, folder in zip(names, folders) if names.count(name) > 1]
    head, tail = _common(shared), _common([parts[::-1] for parts in shared])
    labels = []
    for name, folder in zip(names, folders):
        parts = folder.resolve().parts
        own = "/".join(parts[head : len(parts) - tail]) or str(folder)
        labels.append(f"{name} ({own})" if names.count(name) > 1 else name)
    return labels


def _common(rows: Sequence[Sequence[str]]) -> int:
    """Returns how many leading entries all rows share."""
    return next((depth for depth, column in enumerate(zip(*rows)) if len(set(column)) > 1), 0)


def read_header(folder: Path) -> dict[str, Any]:
    """Returns the content of `run.json`; raises `UserError` where a part that reports need is not there."""
    header = EvalLog(folder).header
    for part, field in (("suite", "digest"), ("suite", "id"), ("world", "name"), ("policy", "name")):
        if not isinstance(header, dict) or not isinstance(header.get(part), dict) or field not in header[part]:
            raise UserError(
                f"{folder / 'run.json'}: no field '{part}.{field}'; not a log of this version of 'vgb eval'"
            )
    return header


def _run(label: str, folder: Path, header: dict[str, Any]) -> Run:
    episodes: dict[Key, Episode] = {}
    problems = []
    for where, row in read_rows(folder):
        if isinstance(row, str):
            problems.append(f"{where}: {row}")
        elif key_of(row) in episodes:
            problems.append(f"{where}: episode {'/'.join(map(str, key_of(row)))} is there twice; the first counts")
        else:
            episodes[key_of(row)] = _episode(row)
    return Run(label, folder, header, episodes, planned_episodes(header), tuple(problems))


def _episode(row: dict[str, Any]) -> Episode:
    outcome = (row["success_at_end"], row["success_once"]) if row["status"] == "ok" else (None, None)
    return Episode(row["spec_digest"], *outcome, row.get("stage"))


def read_rows(folder: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Yields (`file:line`, row) for each line of the log; for a bad line, what is wrong instead of the row."""
    path = folder / EPISODES_FILE
    lines = _text(path).split("\n")
    unfinished = lines.pop()
    for number, line in enumerate(lines, 1):
        yield f"{path}:{number}", _parse(line)
    if unfinished:
        yield f"{path}:{len(lines) + 1}", "the last line is unfinished"


def _text(path: Path) -> str:
    """Returns the text of a log, plain or gzipped, "" where there is none; a byte that is no text spoils its line."""
    try:
        if path.exists():
            data = path.read_bytes()
        else:
            data = gzip.decompress(packed(path).read_bytes()) if packed(path).exists() else b""
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    return data.decode("utf-8", errors="replace")


def _parse(line: str) -> dict[str, Any] | str:
    try:
        row = json.loads(line)
        for name in REQUIRED:
            row[name]
    except KeyError as error:
        return f"no field {error}"
    except (ValueError, TypeError, IndexError):
        return "not a JSON object"
    return row if _sound(row) else "a field is of the wrong type"


def _sound(row: dict[str, Any]) -> bool:
    outcome = row["success_at_end"], row["success_once"]
    fine = row["status"] == "error" or (row["status"] == "ok" and all(type(value) is bool for value in outcome))
    return fine and type(row["scenario"]) is str and type(row["seed"]) is int and type(row["index"]) is int


def planned_episodes(header: dict[str, Any]) -> dict[str, int]:
    """Returns how many episodes each scenario was to have: the most that any session planned for it."""
    planned: dict[str, int] = {}
    for session in header.get("sessions", ()):
        manifest = session.get("manifest") or {"scenarios": ()}
        for scenario in manifest["scenarios"]:
            each = manifest["episodes"] // len(manifest["scenarios"])
            planned[scenario] = max(planned.get(scenario, 0), each)
    return planned


def check_comparable(runs: Sequence[Run], allow_partial: bool) -> None:
    """Raises `UserError` where runs differ in suite, world or an episode's draw, or are incomplete and may not be."""
    first = runs[0]
    for other in runs[1:]:
        _check_same(first, other, "suite", ("digest",), "evaluate both on one suite")
        _check_same(first, other, "world", WORLD_PARTS, "their numbers are never mixed")
        _check_draws(first, other)
    for run in runs:
        if run.defect() and not allow_partial:
            fix = "the same 'vgb eval' command finishes it, or give --allow-partial"
            raise UserError(f"{run.folder}: not all episodes are there ({run.defect()}); {fix}")
        if not run.episodes:
            raise UserError(f"{run.folder}: no episodes there; run 'vgb eval' first")


def _check_same(first: Run, other: Run, part: str, fields: Sequence[str], fix: str) -> None:
    ours, theirs = first.header[part], other.header[part]
    for field in fields:
        if ours.get(field) != theirs.get(field):
            name = "id" if part == "suite" else "name"
            sides = (
                f"{run.folder} is on {side[name]} ({field} {side.get(field)})"
                for run, side in ((first, ours), (other, theirs))
            )
            raise UserError(f"the runs differ in {part}: {', '.join(sides)}; {fix}")


def _check_draws(first: Run, other: Run) -> None:
    for key in first.episodes.keys() & other.episodes.keys():
        if first.episodes[key].spec_digest != other.episodes[key].spec_digest:
            name = "/".join(map(str, key))
            raise UserError(
                f"episode {name} was drawn differently in {first.folder} and {other.folder}; evaluate both again "
                "with one version of vla-gen-bench"
            )
