"""Number types for the command line: integers or finite floats, always with two bounds that a message can name."""

from __future__ import annotations

import math
from typing import Any

import click

from vla_gen_bench import bounds


class Whole(click.IntRange):
    """An integer from `low` to `high`, inclusive."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__(low, high)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, str) and len(value) > 40:  # Python refuses to parse, or to print, very long integers
            self.fail(f"a number of {len(value)} characters is not in the range {self._describe_range()}.", param, ctx)
        return super().convert(value, param, ctx)


class Real(click.FloatRange):
    """A finite number from `low` to `high`; `min_open` and `max_open` exclude the bounds themselves."""

    def __init__(self, low: float, high: float, min_open: bool = False, max_open: bool = False) -> None:
        super().__init__(low, high, min_open, max_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):  # a bounds check alone lets NaN through
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


EPISODES = Whole(*bounds.EPISODES)
WORKERS = Whole(*bounds.WORKERS)
NUM_ENVS = Whole(*bounds.NUM_ENVS)
SEED = Whole(0, 2**31 - 1)
INDEX = Whole(0, 10_000_000)
