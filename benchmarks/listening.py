"""Whether a policy grasps the named object: `.venv/bin/python benchmarks/listening.py RUN...` on log folders.

Over the episodes with several objects in which exactly one was grasped: the share that grasped the named one, with a
Wilson interval. With two objects, chance is one half.
"""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

from vla_gen_bench.log.counts import wilson
from vla_gen_bench.log.folder import EvalLog

SCENARIOS = ("multi_object_ind", "multi_object_ood", "two_objects", "two_other_objects")  # with one distractor object


def listening(rows: list[dict]) -> dict[str, float]:
    """Returns counts and the share for one scenario of one log."""
    rows = [row for row in rows if row["status"] == "ok"]
    one_only = [row for row in rows if row["grasped_ever"] != row["wrong_grasped"]]
    named = sum(row["grasped_ever"] for row in one_only)
    low, high = wilson(named, len(one_only)) if one_only else (float("nan"),) * 2
    return {"episodes": len(rows), "one_only": len(one_only), "named": named,
            "share": named / len(one_only) if one_only else float("nan"), "low": low, "high": high}  # fmt: skip


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--scenario", "scenarios", multiple=True, default=SCENARIOS, show_default=True)
def main(runs: tuple[Path, ...], scenarios: tuple[str, ...]) -> None:
    """See the top of the file."""
    found = []
    for run in runs:
        rows = EvalLog(run).rows(forgive_last=True)
        for scenario in scenarios:
            chosen = [row for row in rows if row["scenario"] == scenario]
            found += [{"run": str(run), "scenario": scenario, **listening(chosen)}] if chosen else []
    click.echo(pd.DataFrame(found).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
