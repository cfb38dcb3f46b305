"""`vgb report`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vla_gen_bench.cli.numbers import Real
from vla_gen_bench.errors import UserError, printable, suggest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vla_gen_bench.report.compare import Comparison
    from vla_gen_bench.report.load import Run

FORMATS = ("text", "md", "latex", "csv", "html")
ENDINGS = {".txt": "text", ".md": "md", ".tex": "latex", ".csv": "csv", ".html": "html", ".htm": "html"}
WIDTH_OF_A_FILE = 160
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
@click.option("--plots", type=click.Path(path_type=Path, file_okay=False), help="Write pictures (SVG, PNG) there.")
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
@click.option("--curves", is_flag=True, hidden=True)
def report(runs, baseline, kind, out, metric, confidence, plots, stages, video_mib, allow_partial, suite, curves):
    """Compare evaluation logs: rates, drops from IND, and tests against a baseline.

    RUN is a log folder of `vgb eval`, or LABEL=FOLDER. All must be on one suite in one world. docs/report.md defines
    every number.
    """
    if curves:
        raise UserError("--curves has become a command: vgb curves RUN... --out FILE.png")
    kind = kind or (ENDINGS.get(out.suffix.lower(), "text") if out else "text")
    comparison, notes = _compare(_load(runs, allow_partial), baseline, metric, confidence, suite)
    drawn = _draw(comparison, plots) if plots else None
    _write(_render(comparison, kind, out, stages, notes, video_mib, drawn), out)


def _load(names: Sequence[str], allow_partial: bool) -> list[Run]:
    from vla_gen_bench.report.load import check_comparable, load_runs

    runs = load_runs(names)
    for run in runs:
        for problem in run.problems[:SHOWN_PROBLEMS]:
            click.echo(f"{printable(problem)}; left out", err=True)
        if run.repeats:
            click.echo(f"{run.folder}: {run.repeats} rows repeat an episode; the first of each counts", err=True)
        if len(run.problems) > SHOWN_PROBLEMS:
            click.echo(f"{run.folder}: and {len(run.problems) - SHOWN_PROBLEMS} more bad lines", err=True)
    check_comparable(runs, allow_partial)
    return runs


def _compare(
    runs: list[Run], baseline: str | None, metric: str | None, confidence: float, suite_name: str | None
) -> tuple[Comparison, list[str]]:
    from vla_gen_bench.log.suites import find_suite_of
    from vla_gen_bench.report.compare import compare, find_baseline
    from vla_gen_bench.report.outcomes import METRICS
    from vla_gen_bench.report.provenance import remarks
    from vla_gen_bench.report.scenarios import describe

    if metric not in (None, *METRICS):
        raise UserError(f"--metric {metric}: no such metric{suggest(metric, METRICS)}")
    place = find_baseline(runs, baseline)
    suite = find_suite_of(runs[0].header, suite_name)
    if suite is None:
        what = runs[0].header.suite
        lost = f"suite '{what.id}' ({what.digest}) is not found here: scenarios are not grouped"
        click.echo(f"{printable(lost)}; name it with --suite", err=True)
    ids = {name for run in runs for name in (*run.planned, *(key[0] for key in run.episodes))}
    metric = metric or (suite.protocol.metric if suite else "success_at_end")
    return compare(runs, describe(ids, suite), place, metric, confidence, suite), remarks(runs)


def _draw(comparison: Comparison, folder: Path) -> dict[str, Figure]:
    from vla_gen_bench.report.plots import figures, write_plots

    drawn = figures(comparison)
    for path in write_plots(drawn, folder):
        click.echo(f"wrote {path}", err=True)
    return drawn


def _render(
    comparison: Comparison,
    kind: str,
    out: Path | None,
    stages: bool,
    notes: list[str],
    video_mib: float,
    drawn: dict[str, Figure] | None,
) -> str:
    from vla_gen_bench.report import formats
    from vla_gen_bench.report.robustness import robustness_notes, with_robustness
    from vla_gen_bench.report.table import document

    notes = [*notes, *robustness_notes(comparison)]
    if kind == "csv":
        return formats.to_csv(comparison)
    if kind == "html":
        from vla_gen_bench.report.page import to_page

        return to_page(comparison, notes, video_mib, drawn)
    tables = with_robustness(document(comparison, stages, notes), comparison)
    if kind == "md":
        return formats.to_markdown(tables)
    if kind == "latex":
        return formats.to_latex(tables)
    terminal = out is None and sys.stdout.isatty()
    return formats.to_text(tables, shutil.get_terminal_size().columns if terminal else WIDTH_OF_A_FILE)


def _write(text: str, out: Path | None) -> None:
    if out is None:
        return click.echo(text, nl=False)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); give another --out") from None
    click.echo(f"wrote {out}", err=True)
