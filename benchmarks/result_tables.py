"""Tables under docs/experiments/data, to which the benchmark scripts add rows per checkpoint."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

TABLES = Path(__file__).resolve().parents[1] / "docs" / "experiments" / "data"


def add(file: str, rows: list[dict[str, object]], keys: tuple[str, ...]) -> None:
    """Writes rows into a table; each replaces the rows that agree with it in all of `keys`."""
    path, new = TABLES / file, pd.DataFrame(rows)
    old = pd.read_csv(path) if path.exists() else new[:0]
    replaced = pd.MultiIndex.from_frame(old[list(keys)]).isin(pd.MultiIndex.from_frame(new[list(keys)]))
    pd.concat([old[~replaced], new]).to_csv(path, index=False)
