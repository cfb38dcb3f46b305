"""Entries as displayed: grouped by comparability, with means, standing and place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vla_gen_bench.assets.world import world_label
from vla_gen_bench.leaderboard.entry import Entry
from vla_gen_bench.leaderboard.rank import Mean, Place

OOD = "ood"


class Group(NamedTuple):
    """Entries that can be compared: same suite (by digest), same version of a world, same sensors, same assets.

    `assets` is the digest of the asset files; "" stands for those of the published logs.
    """

    world: str
    version: str
    suite: str
    digest: str
    preset: str
    sensors: str = ""
    assets: str = ""

    @property
    def place(self) -> str:
        """The world as displayed: "builtin v2"."""
        return world_label(self.world, self.version)

    @property
    def order(self) -> tuple:
        """Sort key: papers' numbers last, the newest version of a world first."""
        where = self.world, -int(self.version), self.suite, self.digest
        return self.preset == "paper", *where, self.preset, self.sensors, self.assets


class Study(NamedTuple):
    """What an entry's log shows, small enough to keep for every entry at once.

    Attributes:
        problems: Faults of the entry, given its log.
        dimensions: Scenario -> dimension, in table order.
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
    """An entry as displayed.

    Attributes:
        means: Dimension, or "ood" for all rows except IND -> mean; None if a row is incomplete.
        standing: "ranked", or the reason why not.
        flags: Held-out parts that it was trained on.
        place: Rank and letters, if it is ranked.
    """

    entry: Entry
    dimensions: dict[str, str]
    means: dict[str, Mean | None]
    standing: str
    flags: list[str]
    place: Place | None = None
