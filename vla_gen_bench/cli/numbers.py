"""Numbers given on the command line: whole or finite, always between two bounds that a message can name."""

from __future__ import annotations

import math
from typing import Any

import click


class Whole(click.IntRange):
    """A whole number from `low` to `high`, both included."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__(low, high)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, str) and len(value) > 40:  # Python refuses to read, or to print, very long ones
            self.fail(f"a number of {len(value)} characters is not in the range {self._describe_range()}.", param, ctx)
        return super().convert(value, param, ctx)


class Real(click.FloatRange):
    """A finite number from `low` to `high`; `min_open` and `max_open` leave the bounds themselves out."""

    def __init__(self, low: float, high: float, min_open: bool = False, max_open: bool = False) -> None:
        super().__init__(low, high, min_open, max_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):  # NaN passes every comparison
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


EPISODES = Whole(1, 100_000)
WORKERS = Whole(1, 1024)
SEED = Whole(0, 2**31 - 1)
INDEX = Whole(0, 10_000_000)
