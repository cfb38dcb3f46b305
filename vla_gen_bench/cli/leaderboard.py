"""`vgb leaderboard`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vla_gen_bench.cli.numbers import Whole
from vla_gen_bench.errors import UserError

if TYPE_CHECKING:
    from vla_gen_bench.leaderboard.board import Board

FOLDER = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="A leaderboard.  [default: leaderboard/ of this checkout]",
)
LOGS = click.option(
    "--log", "logs", multiple=True, metavar="ID=DIR", help="Local copy of a log that is hosted elsewhere; repeat."
)


COUNT = Whole(0, 10**15)
REFUSED = "{where}: cannot write there ({what}); give another --folder"


@click.group()
def leaderboard() -> None:
    """Add, validate and build the published leaderboard. Rules: leaderboard/README.md."""


@leaderboard.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--policy-name", required=True, help="What the table calls it.")
@click.option("--algorithm", required=True, help="Last stage of training: sft, ppo, grpo, dpo, ...; none: scripted.")
@click.option("--train-data", "data", multiple=True, metavar="NAME[=DIGEST]", help="All it learned from; repeat.")
@click.option(
    "--trained-on-suite/--not-trained-on-suite",
    default=None,
    help="Whether episodes or held-out parts of the suite were seen; required.",
)
@click.option("--weights", type=click.Choice(["finetuned", "shared"]), help="For this task family, or over several.")
@click.option("--base", help="The model it started from.")
@click.option("--demonstrations", type=COUNT, help="How many it learned from.")
@click.option("--env-steps", type=COUNT, help="Of reinforcement learning.")
@click.option(
    "--seen",
    multiple=True,
    metavar="KIND=ID,...",
    help="This benchmark's objects, receptacles, tables, phrasings (these separated by ;) in its data; repeat.",
)
@click.option("--policy-version", "version")
@click.option("--link", metavar="URL", help="Of the policy.")
@click.option("--license", help="SPDX identifier of code and weights.")
@click.option("--params", type=COUNT, help="Number of parameters.  [default: what the log says]")
@click.option("--precision", help="Of the weights when it ran: float32, bfloat16, ...")
@click.option("--lora-rank", type=COUNT)
@click.option("--norm-stats-digest", help="SHA-256 of the statistics that un-normalise actions.")
@click.option("--gpu", help="Model, where the policy ran on one.")
@click.option("--driver", help="Its driver's version.")
@click.option("--source", type=click.Choice(["self", "reproduced"]), default="self", show_default=True)
@click.option("--reproduced-by", metavar="NAME", help="With --source reproduced.")
@click.option("--notes", help="One line.")
@click.option("--log-url", metavar="URL", help="Where the log can be fetched, instead of a copy in the leaderboard.")
@click.option("--id", help="Of the entry.  [default: POLICY-SUITE-WORLD]")
@FOLDER
def add(run, policy_name, algorithm, data, seen, log_url, id, folder, **declared):
    """Write the entry of a log folder RUN of `vgb eval`, and copy the log.

    Counts, intervals, digests and versions come from the log; you declare what a log cannot contain. Nothing is written
    unless the entry is valid. Then: vgb leaderboard build.
    """
    from vla_gen_bench.leaderboard.board import add_entry
    from vla_gen_bench.leaderboard.derive import read_log
    from vla_gen_bench.leaderboard.submit import make_entry, parse_data, parse_seen
    from vla_gen_bench.leaderboard.validation import problems
    from vla_gen_bench.log.guard import locked

    sections = _sections(declared)
    sections["policy"]["name"] = policy_name
    sections["training"] |= {"algorithm": algorithm, "data": parse_data(data), "seen": parse_seen(seen)}
    log, target = read_log(run), _folder(folder)
    entry = make_entry(run, log, sections, id, log_url)
    _stop_at(f"{run}: {problem}" for problem in problems(entry, log))
    with locked(target, REFUSED):
        click.echo(add_entry(target, entry, run))


SECTIONS = {
    "policy": ("version", "link", "license", "params", "precision", "lora_rank", "norm_stats_digest"),
    "training": ("base", "demonstrations", "env_steps", "weights", "trained_on_suite"),
    "environment": ("gpu", "driver"),
    "trust": ("source", "reproduced_by", "notes"),
}


def _sections(declared: dict[str, object]) -> dict[str, dict[str, object]]:
    return {section: {name: declared[name] for name in names} for section, names in SECTIONS.items()}


@leaderboard.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@LOGS
@FOLDER
def validate(ids: Sequence[str], logs: Sequence[str], folder: Path | None) -> None:
    """Recompute entries from their logs and name every mismatch; all entries without ID. Exit status 2 if any."""
    board = _board(folder, logs)
    chosen = list(ids) or list(board.entries)
    _stop_at(board.problems(chosen))
    for id in chosen:
        if board.entry(id).measured and not board.at_hand(id):
            click.echo(f"{id}: its log is behind a URL and was not checked; give --log {id}=DIR", err=True)
    click.echo(f"{len(chosen)} entries valid")


@leaderboard.command()
@click.option("--check", is_flag=True, help="Write nothing; exit status 1 if a file is not what the entries give.")
@FOLDER
def build(check: bool, folder: Path | None) -> None:
    """Validate all entries and build leaderboard.csv and site/index.html from them."""
    from vla_gen_bench.leaderboard.board import write_files
    from vla_gen_bench.log.guard import locked

    if not check:
        with locked(_folder(folder), REFUSED):
            files = _built(_board(folder))
            write_files(files)
        return click.echo("\n".join(map(str, files)))
    files = _built(_board(folder))
    stale = [path for path, text in files.items() if not path.exists() or path.read_bytes() != text.encode()]
    for path in stale:
        click.echo(f"{path}: is not what the entries give; run 'vgb leaderboard build'", err=True)
    if stale:
        sys.exit(1)
    click.echo("as the entries give")


def _built(board: Board) -> dict[Path, str]:
    _stop_at(board.problems(board.entries))
    return board.build()


def _folder(folder: Path | None) -> Path:
    from vla_gen_bench.resources import data_dir

    return folder or data_dir() / "leaderboard"


def _board(folder: Path | None, logs: Sequence[str] = ()) -> Board:
    from vla_gen_bench.leaderboard.board import Board

    pairs = [item.partition("=") for item in logs]
    for id, equals, _ in pairs:
        if not equals:
            raise UserError(f"--log {id}: expected ID=DIR")
    return Board(_folder(folder), {id: Path(where) for id, _, where in pairs})


def _stop_at(problems) -> None:
    found = list(problems)
    for problem in found:
        click.echo(f"error: {problem}", err=True)
    if found:
        sys.exit(2)
