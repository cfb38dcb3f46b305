"""Options of commands that can run on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vla_gen_bench.cli.numbers import Real
from vla_gen_bench.errors import UserError

if TYPE_CHECKING:
    from vla_gen_bench.eval.cluster import Cluster

ADDRESS = click.option(
    "--address", metavar="HOST:PORT|auto", help="Of the Ray cluster's head.  [default: a cluster of this machine]"
)
WAIT = click.option(
    "--wait-for-nodes",
    "wait_s",
    metavar="SECONDS",
    type=Real(0, 604_800),
    help="How long to wait for a Ray cluster that is not up, too small or busy.  [default: 0]",
)
_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["processes", "ray"]),
        default="processes",
        show_default=True,
        help="Worker processes of this machine, or actors of a Ray cluster.",
    ),
    ADDRESS,
    click.option(
        "--num-cpus-per-worker", "cpus", type=Real(0, 1024), help="Of a Ray actor that simulates.  [default: 1]"
    ),
    click.option(
        "--num-gpus-per-worker", "gpus", type=Real(0, 64), help="Of a Ray actor that simulates.  [default: 0]"
    ),
    WAIT,
)


def cluster_options(command: Callable) -> Callable:
    """Adds the options; `cluster_of` takes their values."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def cluster_of(engine: str, what: str, unit: str = "worker", **options: Any) -> Cluster | None:
    """Returns what the options request, None without the engine.

    Args:
        what: The options in words, for the message if they are given without the engine.
        unit: See `Cluster`.

    Raises:
        UserError: Options of a cluster are given without one.
    """
    from vla_gen_bench.eval.cluster import Cluster

    given = {name: value for name, value in options.items() if value is not None}
    if engine == "ray":
        return Cluster(unit=unit, **given)
    if given:
        raise UserError(f"{what} for --engine ray; give it too")
    return None
