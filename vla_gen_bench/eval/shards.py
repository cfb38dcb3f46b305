"""Shards split the episodes of one run among several commands, on one machine or many; the logs are merged later."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from vla_gen_bench.errors import UserError, shown

T = TypeVar("T")
MOST_SHARDS = 100_000


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder(self) -> str:
        """Default name of its log folder; names sort by number."""
        return f"shard-{self.number:0{len(str(self.count))}d}-of-{self.count}"

    def deal(self, items: Sequence[T]) -> list[T]:
        """Returns this shard's items: dealt like cards, so every shard has a share of every scenario."""
        return list(items[self.number - 1 :: self.count])


def parse_shard(text: str) -> Shard:
    """Turns "2/8" into a shard; raises `UserError` unless 1 <= 2 <= 8."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if not found:
        raise UserError(f"--shard {shown(text)}: expected NUMBER/COUNT, such as 1/4")
    number, count = map(int, found.groups())
    if not 1 <= count <= MOST_SHARDS:
        raise UserError(f"--shard {text}: expected 1 to {MOST_SHARDS} shards")
    if not 1 <= number <= count:
        raise UserError(f"--shard {text}: there are shards 1/{count} to {count}/{count}")
    return Shard(number, count)
