"""`vgb merge`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vla_gen_bench.errors import printable

if TYPE_CHECKING:
    from vla_gen_bench.log.merge import Merged


@click.command()
@click.argument("logs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder of the new log.")
@click.option("--fresh", is_flag=True, help="Move a log in that folder aside.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def merge(logs: tuple[Path, ...], out: Path, fresh: bool, as_json: bool) -> None:
    """Merge LOGS of one run, as written by 'vgb eval --shard I/N', into one.

    Suite, policy, world, assets and simulator must have equal digests. Repeated runs of an episode must
    have the same outcome, and one is kept. The new log works like any other in reports, replay, the leaderboard, and
    'vgb eval --out' with the same options, which runs missing episodes. Exit status: 0 complete, 1 episodes missing or
    errored, 2 bad input.
    """
    from vla_gen_bench.log.merge import merge as join

    merged = join(logs, out, fresh)
    if as_json:
        click.echo(json.dumps({"out": str(out), "complete": merged.complete, **asdict(merged)}))
    else:
        _tell(merged, len(logs), out)
    sys.exit(0 if merged.complete else 1)


def _tell(merged: Merged, logs: int, out: Path) -> None:
    again = f", {merged.repeated} that several hold" if merged.repeated else ""
    click.echo(f"{merged.rows} episodes of {logs} logs{again}: {printable(out)}")
    for note in merged.notes:
        click.echo(printable(note), err=True)
    for what, counts in (("missing", merged.missing), ("errored", merged.errored)):
        if counts:
            click.echo(f"{what}: {_listed(counts)}", err=True)
    if not merged.complete:
        click.echo("the 'vgb eval' command without --shard and with this --out runs them", err=True)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} of {printable(scenario)}" for scenario, count in sorted(counts.items()))
