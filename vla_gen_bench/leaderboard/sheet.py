"""`leaderboard.csv`: one line per entry and row, and per entry and mean over rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vla_gen_bench.leaderboard.entry import Entry
from vla_gen_bench.leaderboard.listing import OOD, Group, Listing
from vla_gen_bench.report.formats import plain_cells

RESULT = (
    "id", "cell", "dimension", "n_planned", "n_done", "n_errors", "k_success_end", "k_success_once", "sr", "sr_lo",
    "sr_hi", "ci_method", "ci_level", "rank", "letters", "standing", "flags",
)  # fmt: skip


def sheet(groups: Mapping[Group, Sequence[Listing]]) -> str:
    """Returns the CSV: the columns of `RESULT`, then every field of the entry, dotted; lists and mappings as JSON.

    Rank and letters are in the line that they belong to, the mean over all shifted rows.
    """
    lines = [line for listings in groups.values() for listing in listings for line in _lines(listing)]
    about = list(dict.fromkeys(name for line in lines for name in line if name not in RESULT))
    out = io.StringIO()
    writer = csv.DictWriter(out, [*RESULT, *about], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(plain_cells, lines))
    return out.getvalue()


def _lines(listing: Listing) -> Iterator[dict[str, Any]]:
    entry, place = listing.entry, listing.place
    shown = {
        "standing": listing.standing, "flags": "; ".join(listing.flags), "ci_level": entry.interval.level,
    }  # fmt: skip
    about = {**{"id": entry.id}, **shown, **fields(entry)}
    for scenario, cell in entry.results.items():
        counts = {
            "n_planned": cell.planned, "n_done": cell.n, "n_errors": cell.errors,
            "k_success_end": cell.success_at_end, "k_success_once": cell.success_once,
            "sr": cell.rate, "sr_lo": cell.low, "sr_hi": cell.high, "ci_method": entry.interval.method,
        }  # fmt: skip
        yield {**about, "cell": scenario, "dimension": listing.dimensions[scenario], **counts}
    for name, mean in listing.means.items():
        if mean and name != "ind":
            values = {"sr": round(mean.value, 6), "sr_lo": round(mean.low, 6), "sr_hi": round(mean.high, 6)}
            ranked = {"rank": place.rank, "letters": place.letters} if place and name == OOD else {}
            row = {"cell": f"mean_{name}", "dimension": name, "n_done": mean.episodes, **values, **ranked}
            yield {**about, **row, "ci_method": mean.method}


def fields(entry: Entry) -> dict[str, Any]:
    """Returns the fields of an entry except results and interval, flattened: {"policy.name": ...}."""
    tree = entry.model_dump(mode="json", exclude={"id", "results", "interval"})
    flat: dict[str, Any] = {}
    for section, values in tree.items():
        for name, value in values.items():
            if (section, name) == ("protocol", "sensors") and not value:
                continue  # add a column only if some row needs it
            flat[f"{section}.{name}"] = json.dumps(value) if isinstance(value, list | dict | bool) else value
    return flat
