"""`vgb curves`."""

from __future__ import annotations

from pathlib import Path

import click

from vla_gen_bench.cli.numbers import Real


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The image, FILE.png or FILE.svg."
)
@click.option("--metric", default="success", show_default=True, help="Any column of curve.csv.")
@click.option(
    "--confidence",
    default=0.95,
    show_default=True,
    type=Real(0.5, 0.9999),
    help="Of the interval over seeds.",
)
def curves(runs: tuple[str, ...], out: Path, metric: str, confidence: float) -> None:
    """Draw training curves: a metric against samples and against wall time.

    RUN is a folder of `vgb train`. Runs whose recipes differ only in the seed are averaged.
    """
    from vla_gen_bench.data import ensure_writable
    from vla_gen_bench.report.curves import curves_figure, load_trainings
    from vla_gen_bench.report.drawing import save_as

    ensure_writable(out, "give another --out")
    path = save_as(curves_figure(load_trainings(runs), metric, confidence), out)
    click.echo(f"wrote {path}", err=True)
