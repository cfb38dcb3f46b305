"""Bounds of what users give: the same on the command line, from Python, in suites and in studies."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

from vla_gen_bench.errors import UserError, shown


class Bounds(NamedTuple):
    """The smallest and the largest allowed value."""

    low: int
    high: int


EPISODES = Bounds(1, 100_000)  # per scenario and seed
EVALUATION_SEED = Bounds(0, 999_999)
MOST_SEEDS = 1000
IMAGE_SIDE = Bounds(32, 2048)  # pixels, of the images that a policy receives
WORKERS = Bounds(1, 1024)
NUM_ENVS = Bounds(1, 65_536)
VIDEOS_KEPT = ("none", "all", "failures")


def whole(value: Any, bounds: Bounds, name: str) -> int:
    """Returns a whole number as an `int`; those of numpy count, booleans do not.

    Raises:
        UserError: Not a whole number, or out of bounds; the message begins with `name`.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not bounds.low <= number <= bounds.high:
        raise UserError(f"{name} {shown(value)}: expected a whole number from {bounds.low} to {bounds.high}")
    return number


def evaluation_seeds(values: Any, name: str) -> tuple[int, ...]:
    """Returns evaluation seeds as a tuple of distinct `int`.

    Raises:
        UserError: No numbers, too many, out of bounds, or one is given twice; the message begins with `name`.
    """
    seeds = tuple(_evaluation_seed(value, name) for value in listed(values, name, "seeds"))
    if len(seeds) > MOST_SEEDS:
        raise UserError(f"{name}: {len(seeds)} seeds; expected at most {MOST_SEEDS}")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"{name}: a seed is given twice in {shown(list(seeds))}")
    return seeds


def _evaluation_seed(value: Any, name: str) -> int:
    try:
        return whole(value, EVALUATION_SEED, name)
    except UserError:
        low, high = EVALUATION_SEED
        raise UserError(f"{name}: {shown(value)}; evaluation seeds are {low} to {high}") from None


def listed(values: Any, name: str, items: str) -> tuple[Any, ...]:
    """Returns a list's items; raises `UserError` for a single text, for nothing, and for what is no list."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise UserError(f"{name}: {shown(values)}; expected a list of {items}")
    found = tuple(values)
    if not found:
        raise UserError(f"{name}: an empty list; expected at least one")
    return found
