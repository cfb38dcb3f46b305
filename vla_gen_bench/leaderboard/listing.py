"""Entries as they are shown: grouped by what can be compared, with means, standing and place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vla_gen_bench.assets.world import world_label
from vla_gen_bench.leaderboard.entry import Entry
from vla_gen_bench.leaderboard.rank import Mean, Place

OOD = "ood"


class Group(NamedTuple):
    """Entries that can be compared: one suite, by its digest, in one version of a world, through the same sensors."""

    world: str
    version: str
    suite: str
    digest: str
    preset: str
    sensors: str = ""

    @property
    def place(self) -> str:
        """The world as it is shown: "builtin v2"."""
        return world_label(self.world, self.version)

    @property
    def order(self) -> tuple:
        """Sorts a paper's numbers last, and the newest version of a world first."""
        where = self.world, -int(self.version), self.suite, self.digest
        return self.preset == "paper", *where, self.preset, self.sensors


class Study(NamedTuple):
    """What an entry's log shows, small enough to keep of every entry at once.

    Attributes:
        problems: What is wrong with the entry, given its log.
        dimensions: Scenario -> dimension, in the order of the table.
        outcomes: Scenario -> bool [ids].
    """

    problems: tuple[str, ...]
    dimensions: dict[str, str]
    outcomes: dict[str, np.ndarray]

    def of(self, rows: list[str]) -> np.ndarray:
        """Returns float [rows, ids] of 0 and 1."""
        return np.array([self.outcomes[row] for row in rows], float)


@dataclass(frozen=True)
class Listing:
    """An entry as it is shown.

    Attributes:
        means: Dimension, or "ood" for all rows but IND -> mean; None where a row is incomplete.
        standing: "ranked", or why not.
        flags: What of the held-out parts it was trained on.
        place: Rank and letters of a ranked entry.
    """

    entry: Entry
    dimensions: dict[str, str]
    means: dict[str, Mean | None]
    standing: str
    flags: list[str]
    place: Place | None = None
