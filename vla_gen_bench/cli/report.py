"""`vgb report`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from vla_gen_bench.cli.numbers import Real
from vla_gen_bench.data import ensure_writable
from vla_gen_bench.errors import UserError, printable
from vla_gen_bench.runtime import collection_paused

if TYPE_CHECKING:
    from vla_gen_bench.report.load import Run

FORMATS = ("text", "md", "latex", "csv", "html")
SHOWN_PROBLEMS = 20


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--baseline", metavar="RUN|POLICY", help="Compare the others with this one.  [default: the first run]")
@click.option("--format", "kind", type=click.Choice(FORMATS), help="[default: by the ending of --out, else text]")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write there instead of to stdout.")
@click.option("--metric", help="success_at_end or success_once.  [default: the suite's]")
@click.option(
    "--confidence",
    default=0.95,
    show_default=True,
    type=Real(0.5, 0.9999),
    help="Of every interval.",
)
@click.option("--plots", type=click.Path(path_type=Path, file_okay=False), help="Write images (SVG, PNG) there.")
@click.option("--stages", is_flag=True, help="Add what happened: stage labels, workspace covered.")
@click.option(
    "--videos",
    "video_mib",
    default=4.0,
    show_default=True,
    type=Real(0, 100),
    metavar="MIB",
    help="How much of recorded videos an HTML page holds.",
)
@click.option("--allow-partial", is_flag=True, help="Accept missing and errored episodes, and mark what they touch.")
@click.option("--suite", metavar="NAME|FILE", help="The runs' suite, where it is not found by itself.")
@click.option("--over-seeds", is_flag=True, help="Runs of one label are training seeds of one policy: mean and spread.")
@click.option("--curves", is_flag=True, hidden=True)
@click.pass_context
def report(
    context,
    runs,
    baseline,
    kind,
    out,
    metric,
    confidence,
    plots,
    stages,
    video_mib,
    allow_partial,
    suite,
    over_seeds,
    curves,
):
    """Compare evaluation logs: rates, drops from IND, and tests against a baseline.

    RUN is a log folder of `vgb eval`, or LABEL=FOLDER. All must be on one suite in one world. docs/report.md defines
    every number.
    """
    if curves:
        raise UserError("--curves has become a command: vgb curves RUN... --out FILE.png")
    sizes_videos = context.get_parameter_source("video_mib") is not ParameterSource.DEFAULT
    if over_seeds and (plots is not None or stages or sizes_videos):
        raise UserError("--over-seeds prints tables alone: leave out --plots, --stages and --videos")
    kind = _kind(kind, out)
    if sizes_videos and kind != "html":
        raise UserError(f"--videos is for HTML pages, and this report is {kind}: add --out FILE.html, or leave it out")
    with collection_paused():
        if over_seeds:
            return _over_seeds(runs, baseline, kind, out, metric, confidence, allow_partial, suite)
        _report(runs, baseline, kind, out, metric, confidence, plots, stages, video_mib, allow_partial, suite)


def _over_seeds(runs, baseline, kind, out, metric, confidence, allow_partial, suite) -> None:
    from vla_gen_bench.report.api import seed_report_of

    found = seed_report_of(_load(runs, repeat_labels=True), baseline, metric, confidence, suite, allow_partial)
    _say_lost(found.lost)
    _write(found.render(kind, width=_width(out)), out)


def _say_lost(lost: str) -> None:
    if lost:
        click.echo(f"{printable(lost)}; name it with --suite", err=True)


def _kind(kind: str | None, out: Path | None) -> str:
    """Returns the format, by --format or the ending of --out, which must be writable."""
    from vla_gen_bench.report.api import ENDINGS

    if out is not None:
        ensure_writable(out, "give another --out")
    return kind or (ENDINGS.get(out.suffix.lower(), "text") if out else "text")


def _width(out: Path | None) -> int:
    from vla_gen_bench.report.api import WIDTH_OF_A_FILE

    return shutil.get_terminal_size().columns if out is None and sys.stdout.isatty() else WIDTH_OF_A_FILE


def _report(runs, baseline, kind, out, metric, confidence, plots, stages, video_mib, allow_partial, suite) -> None:
    from vla_gen_bench.report.api import report_of

    if plots is not None:
        ensure_writable(plots / "rates.svg", "give another --plots")
    found = report_of(_load(runs), baseline, metric, confidence, suite, allow_partial)
    _say_lost(found.lost)
    for path in found.write_plots(plots) if plots else ():
        click.echo(f"wrote {path}", err=True)
    _write(found.render(kind, stages=stages, width=_width(out), video_mib=video_mib), out)


def _load(names: Sequence[str], *, repeat_labels: bool = False) -> list[Run]:
    """Reads the runs, and reports the lines that do not count."""
    from vla_gen_bench.report.load import load_runs

    runs = load_runs(names, repeat_labels=repeat_labels)
    for run in runs:
        for problem in run.problems[:SHOWN_PROBLEMS]:
            click.echo(f"{printable(problem)}; left out", err=True)
        if run.repeats:
            click.echo(f"{run.folder}: {run.repeats} rows repeat an episode; the first of each counts", err=True)
        if len(run.problems) > SHOWN_PROBLEMS:
            click.echo(f"{run.folder}: and {len(run.problems) - SHOWN_PROBLEMS} more bad lines", err=True)
    return runs


def _write(text: str, out: Path | None) -> None:
    if out is None:
        return click.echo(text, nl=False)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); give another --out") from None
    click.echo(f"wrote {out}", err=True)
