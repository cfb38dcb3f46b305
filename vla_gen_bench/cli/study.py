"""`vgb study`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vla_gen_bench import runtime
from vla_gen_bench.cli.cluster_options import ADDRESS, WAIT, cluster_of
from vla_gen_bench.cli.numbers import NUM_ENVS, WORKERS, Real
from vla_gen_bench.errors import UserError, printable, suggest

if TYPE_CHECKING:
    from vla_gen_bench.study.engines import Engine
    from vla_gen_bench.study.ledger import Standing
    from vla_gen_bench.study.parts import Part


@click.command()
@click.argument("file", metavar="STUDY.yaml", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Study folder.  [default: runs/study/NAME]"
)
@click.option("--status", is_flag=True, help="Show where each part stands, and run nothing.")
@click.option("--dry-run", is_flag=True, help="Check everything, show the commands that would run, and run nothing.")
@click.option(
    "--redo", multiple=True, metavar="ARM|PART", help="Move it and what needs it aside, and run it again; repeat."
)
@click.option(
    "--workers", type=WORKERS, help="Processes that simulate, in evaluations and RL.  [default: one per core]"
)
@click.option("--num-envs", type=NUM_ENVS, help="Episodes side by side in an evaluation's worker.")
@click.option("--processes", type=WORKERS, help="Processes of supervised training.  [default: 1]")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="One part after another here, or each part a task of a Ray cluster.",
)
@ADDRESS
@click.option(
    "--num-cpus-per-part", "cpus", type=Real(0, 1024), help="Of a part's Ray task, which uses no more.  [default: 1]"
)
@click.option("--num-gpus-per-part", "gpus", type=Real(0, 64), help="Of a part's Ray task.  [default: 0]")
@WAIT
@click.option("--json", "as_json", is_flag=True, help="Print the parts as one JSON object on stdout.")
def study(file, out, status, dry_run, redo, workers, num_envs, processes, engine, address, cpus, gpus, wait_s, as_json):
    """Run a study: train its arms, evaluate them, compare them on one page.

    STUDY.yaml names arms (recipe, changes, data, training seeds), evaluations and questions. Each training and each
    evaluation is a part; a finished one never runs again, and after Ctrl-C or a crash the same command resumes. A part
    that fails stops only those that need it. Exit status: 0 all parts done, 1 some failed, 2 bad input,
    130 after Ctrl-C, 143 after SIGTERM.
    """
    from vla_gen_bench.study.declaration import read_study

    if status and (dry_run or redo) or dry_run and redo:
        raise UserError("--status, --dry-run and --redo are different things to do; give one of them")
    what = "--address, --wait-for-nodes and what parts take of nodes are"
    cluster = cluster_of(engine, what, "part", address=address, cpus=cpus, gpus=gpus, wait_s=wait_s)
    declared = read_study(file)  # before anything that takes seconds to import
    from vla_gen_bench.study.parts import Effort, parts_of

    folder = out or Path("runs") / "study" / declared.name
    here = cluster is None and not status  # the machine that shows a status need not be the one that runs the parts
    parts = parts_of(declared, file, folder, Effort(workers, num_envs, processes, here))
    if status or dry_run:
        found = _standings(parts, folder)
        _print_commands(parts, found) if dry_run and not as_json else _print_parts(parts, found, as_json)
        return
    found = _run(file, declared, parts, folder, redo, _engine(cluster))
    _print_parts(parts, found, as_json)
    sys.exit(0 if all(one.state == "done" for one in found.values()) else 1)


def _standings(parts: Mapping[str, Part], folder: Path) -> dict[str, Standing]:
    from vla_gen_bench.log.guard import is_held
    from vla_gen_bench.study.ledger import standings

    return standings(parts, is_held(folder))


@contextmanager
def _engine(cluster: Any) -> Iterator[Engine]:
    """Yields the engine; stdout stays for results."""

    with runtime.stdout_for_results():
        if cluster is None:
            from vla_gen_bench.study.engines import Local

            yield Local()
        else:
            from vla_gen_bench.eval.cluster import need_ray

            need_ray()
            from vla_gen_bench.study.ray_tasks import ray_engine

            with ray_engine(cluster, _say) as engine:
                yield engine


def _run(
    file: Path, declared: Any, parts: Mapping[str, Part], folder: Path, redo: Any, engine: Any
) -> Mapping[str, Standing]:
    from vla_gen_bench.log.guard import sole_writer
    from vla_gen_bench.study.ledger import move_aside, standings
    from vla_gen_bench.study.page import write_page
    from vla_gen_bench.study.run import Run

    with sole_writer(folder):
        moved = move_aside([parts[name] for name in _chosen(parts, redo)], folder)
        if moved:
            _say(f"moved aside to {moved}")
        _refuse_changed(file, parts, standings(parts))
        _note_strays(parts, folder)
        with engine as running:
            try:
                found = Run(parts, running, _event(parts)).all()
            except KeyboardInterrupt as error:
                _say("interrupted; finished parts stay, and the same command resumes")
                sys.exit(runtime.interrupted_status(error))
        for path in write_page(declared, parts, found, folder):
            _say(f"wrote {path}")
    return found


def _chosen(parts: Mapping[str, Part], redo: tuple[str, ...]) -> list[str]:
    """Returns the parts that `--redo` names, and all that need them."""
    chosen: set[str] = set()
    for name in redo:
        known = {*parts, *(part.arm for part in parts.values())}
        if name not in known:
            raise UserError(f"--redo {name}: no such arm or part{suggest(name, known)}")
        chosen |= {part.name for part in parts.values() if name in (part.arm, part.name)}
    for part in parts.values():  # each comes after those it needs
        if chosen.intersection(part.after):
            chosen.add(part.name)
    return [name for name in parts if name in chosen]


def _refuse_changed(file: Path, parts: Mapping[str, Part], found: Mapping[str, Standing]) -> None:
    changed = {name: one.note for name, one in found.items() if one.state == "changed"}
    if changed:
        name = next(iter(changed))
        more = f" ({len(changed) - 1} more parts changed: --status lists them)" if len(changed) > 1 else ""
        raise UserError(
            f"{file}: {name} has results of other inputs: {changed[name]}{more}; "
            f"undo the change, give the arm another name, or --redo {parts[name].arm}"
        )


def _note_strays(parts: Mapping[str, Part], folder: Path) -> None:
    from vla_gen_bench.study.ledger import RECORD_FILE

    records = (folder / "parts").rglob(RECORD_FILE)
    strays = sorted({record.parent.relative_to(folder / "parts").as_posix() for record in records} - {*parts})
    if strays:
        _say(f"{folder} also holds {', '.join(strays)}, which the study no longer names; left alone, not compared")


def _event(parts: Mapping[str, Part]) -> Any:
    from vla_gen_bench.study.engines import PRINTED_FILE

    seen: set[str] = set()

    def tell(name: str, found: Standing) -> None:
        if found.state == "running":
            return _say(f"[{len(seen)}/{len(parts)}] {name}: running, prints to {parts[name].notes / PRINTED_FILE}")
        seen.add(name)
        note = f": {found.note}" if found.note else ""
        _say(f"[{len(seen)}/{len(parts)}] {name}: {found.state} ({_time(found.seconds)}){note}")

    return tell


def _say(line: str) -> None:
    click.echo(printable(line), err=True)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _print_commands(parts: Mapping[str, Part], found: Mapping[str, Standing]) -> None:
    import shlex

    for name, part in parts.items():
        state = found[name].state
        if state == "done":
            click.echo(f"# {name}: done")
        else:
            click.echo(f"# {name}: {state}{f', {found[name].note}' if found[name].note else ''}")
            click.echo(f"vgb {printable(shlex.join(part.command))}")


def _print_parts(parts: Mapping[str, Part], found: Mapping[str, Standing], as_json: bool) -> None:
    if as_json:
        rows = {
            name: {"state": one.state, "note": one.note, "seconds": round(one.seconds, 1), "out": str(parts[name].out)}
            for name, one in found.items()
        }
        return click.echo(json.dumps({"parts": rows}))
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vla_gen_bench.study.ledger import last_line

    table = Table(box=SIMPLE_HEAD)
    for column in ("part", "state", "time", ""):
        table.add_column(column, justify="right" if column == "time" else "left", overflow="fold")
    for name, one in found.items():
        note = one.note or (last_line(parts[name]) if one.state == "running" else "")
        time = _time(one.seconds) if one.seconds else ""
        table.add_row(*map(Text, (name, one.state, time, printable(note))))
    console = Console() if sys.stdout.isatty() else Console(width=140)
    console.print(table)
    counts = {
        state: sum(1 for one in found.values() if one.state == state)
        for state in dict.fromkeys(o.state for o in found.values())
    }
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()), highlight=False)
