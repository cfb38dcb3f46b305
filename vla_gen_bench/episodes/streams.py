"""Random numbers that never change: each is read directly from a SHA-256 of its purpose.

No library generator is involved, so a new version of numpy or Python draws the same episodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")

POOLS_VERSION = "1"
"""Keys the axes that no catalogue describes (layout, yaw, phrasing, joint offset); raise it when one changes."""


class Stream(NamedTuple):
    """The random numbers of one axis of one episode.

    The key contains no suite, scenario or world. The same axis drawn from the same pool therefore has the same value
    in every scenario, which makes scenarios comparable episode by episode.

    Attributes:
        version: Version of the catalogue or of the pools the axis draws from.
        seed, index: Key of the episode.
        axis: The purpose of the numbers, for example "object" or "distractor_object.position".
    """

    version: str
    seed: int
    index: int
    axis: str

    def below(self, n: int, draw: int = 0) -> int:
        """Returns an integer in [0, n), uniform up to 2**-200 for any n used here; `draw` numbers repeated draws."""
        key = f"{self.version}:{self.seed}:{self.index}:{self.axis}:{draw}"
        return int.from_bytes(hashlib.sha256(key.encode()).digest(), "big") % n

    def choice(self, items: Sequence[Item], draw: int = 0) -> Item:
        """Returns one of `items`, each equally likely."""
        return items[self.below(len(items), draw)]
