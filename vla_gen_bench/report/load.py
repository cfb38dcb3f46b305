"""Reads log folders as `Run`s. An invalid line is reported and left out; everything else still counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vla_gen_bench.errors import UserError, printable
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.log.header import Header, Planned, read_header
from vla_gen_bench.log.rows import Key, Row
from vla_gen_bench.runtime import collection_paused

WORLD_PARTS = ("name", "version", "catalog", "pack")


@dataclass(frozen=True)
class Run:
    """An evaluation log in memory.

    Attributes:
        label: Its column name, unique within a report.
        folder: Its path.
        header: The content of `run.json`.
        episodes: One row for each (scenario, seed, index), in file order.
        planned: The episodes that its sessions planned, if the header has them.
        problems: Invalid lines, each as `file:line: what is wrong`.
        repeats: Number of lines that repeat another line of their episode; they do not count.
    """

    label: str
    folder: Path
    header: Header
    episodes: dict[Key, Row]
    planned: Planned
    problems: tuple[str, ...]
    repeats: int = 0

    @property
    def policy(self) -> str:
        return self.header.policy.name

    @cached_property
    def by_scenario(self) -> dict[str, dict[tuple[int, int], Row]]:
        """Scenario -> (seed, index) -> row."""
        found: dict[str, dict[tuple[int, int], Row]] = {}
        for (scenario, seed, index), row in self.episodes.items():
            found.setdefault(scenario, {})[seed, index] = row
        return found

    def missing(self) -> Counter[str]:
        """Returns the number of planned episodes without a row, by scenario; complete scenarios are left out."""
        return self.planned.missing(self.episodes)

    def errored(self) -> Counter[str]:
        """Returns the number of errored episodes, by scenario."""
        return Counter(row.scenario for row in self.episodes.values() if not row.ok)

    def defect(self) -> str:
        """Describes what is missing from the run; empty if it is complete."""
        counts = (
            (self.missing().total(), "missing"),
            (self.errored().total(), "errored"),
            (len(self.problems), "bad lines"),
        )
        return ", ".join(f"{count} {what}" for count, what in counts if count)


def load_runs(names: Sequence[str], *, repeat_labels: bool = False) -> list[Run]:
    """Reads the runs of a report.

    Args:
        names: Log folders; `LABEL=FOLDER` names the column.
        repeat_labels: Runs may share a label; otherwise what differs between their folders is added to it.

    Raises:
        UserError: A folder holds no log, or two names are the same folder.
    """
    return load_labelled([_parted(name) for name in names], repeat_labels=repeat_labels)


@collection_paused()
def load_labelled(parted: Sequence[tuple[str, Path]], *, repeat_labels: bool = False) -> list[Run]:
    """Like `load_runs`, of (label, folder); an empty label stands for the policy's name."""
    folders = [folder.resolve() for _, folder in parted]
    twice = [folder for folder in folders if folders.count(folder) > 1]
    if twice:
        raise UserError(f"{twice[0]}: this run is given twice; leave one out")
    headers = [read_header(folder) for _, folder in parted]
    names = [printable(label or header.policy.name) for (label, _), header in zip(parted, headers)]
    labels = names if repeat_labels else _distinct(names, [folder for _, folder in parted])
    return [_run(label, folder, header) for label, (_, folder), header in zip(labels, parted, headers)]


def _parted(name: str) -> tuple[str, Path]:
    label, equals, folder = name.partition("=")
    return (label, Path(folder)) if equals and not Path(name).exists() else ("", Path(name))


def _distinct(names: list[str], folders: list[Path]) -> list[str]:
    """Returns the names; runs that share one are distinguished by the parts of their folders that differ."""
    shared = [folder.resolve().parts for name, folder in zip(names, folders) if names.count(name) > 1]
    head, tail = _common(shared), _common([parts[::-1] for parts in shared])
    labels = []
    for name, folder in zip(names, folders):
        parts = folder.resolve().parts
        own = printable("/".join(parts[head : len(parts) - tail]) or folder)
        labels.append(f"{name} ({own})" if names.count(name) > 1 else name)
    return labels


def _common(rows: Sequence[Sequence[str]]) -> int:
    """Returns the number of leading entries that all rows share."""
    return next((depth for depth, column in enumerate(zip(*rows)) if len(set(column)) > 1), 0)


def _run(label: str, folder: Path, header: Header) -> Run:
    reading = EvalLog(folder).read(header.run)
    return Run(label, folder, header, reading.rows, header.planned(), reading.problems, len(reading.repeated))


def scenario_ids(runs: Sequence[Run]) -> set[str]:
    """Returns the ids of all scenarios that the runs planned or ran."""
    return {name for run in runs for name in (*run.planned.scenarios, *(key[0] for key in run.episodes))}


def check_comparable(runs: Sequence[Run], allow_partial: bool) -> None:
    """Raises `UserError` if runs differ in suite, world or a sampled episode, or are incomplete and may not be."""
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
    ours, theirs = getattr(first.header, part), getattr(other.header, part)
    for field in fields:
        if getattr(ours, field, None) != getattr(theirs, field, None):
            name = "id" if part == "suite" else "name"
            sides = (
                f"{run.folder} is on {getattr(side, name)} ({field} {getattr(side, field, None)})"
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
