"""Several sets of demonstrations as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from vla_gen_bench.errors import UserError
from vla_gen_bench.train.demos.dataset import Demos


class Stacked:
    """Image arrays in sequence, each still mapped from its own file; read like one array.

    Args:
        parts: [F, ...] each, equal except for F.
    """

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = parts
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.shape = (int(self._starts[-1]), *parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frames: np.ndarray | int) -> np.ndarray:
        """Returns the images of frame numbers [B], or of a single one."""
        chosen = np.atleast_1d(frames)
        if len(chosen) and not 0 <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"frames {chosen.min()} to {chosen.max()} of {len(self)}")
        out = np.empty((len(chosen), *self.shape[1:]), self._parts[0].dtype)
        home = np.searchsorted(self._starts, chosen, side="right") - 1
        for number in np.unique(home):
            rows = home == number
            out[rows] = self._parts[number][chosen[rows] - self._starts[number]]
        return out if np.ndim(frames) else out[0]


def joined(sets: Sequence[Demos], names: Sequence[str]) -> Demos:
    """Joins the demonstrations of all sets in order; images stay in their files.

    Args:
        names: Names of the sets in errors.

    Raises:
        UserError: The sets differ in world or image size.
    """
    if len(sets) == 1:
        return sets[0]
    for other, name in zip(sets[1:], names[1:], strict=True):
        for what, ours, theirs in (
            ("world", sets[0].world, other.world),
            ("image size", sets[0].images.shape[1:3], other.images.shape[1:3]),
        ):
            if ours != theirs:
                raise UserError(f"{name}: {what} {theirs}, that of {names[0]} is {ours}; they cannot be joined")
    columns = {field.name: [getattr(item, field.name) for item in sets] for field in fields(Demos)}
    lengths = np.concatenate([np.diff(starts) for starts in columns["starts"]])
    everywhere = {name: all(part is not None for part in columns[name]) for name in ("observed", "wrist")}
    columns |= {
        "images": Stacked(columns["images"]),
        "foreground": Stacked(columns["foreground"]),
        "wrist": Stacked(columns["wrist"]) if everywhere["wrist"] else None,
        "observed": np.concatenate(columns["observed"]) if everywhere["observed"] else None,
        "episode": np.repeat(np.arange(len(lengths)), lengths),
        "starts": np.concatenate([[0], np.cumsum(lengths)]),
        "world": sets[0].world,
    }
    columns |= {name: np.concatenate(columns[name]) for name in ("actions", "executed", "states")}
    columns |= {name: sum(columns[name], []) for name in ("instructions", "tables", "targets", "decisive")}
    return Demos(**columns)
