"""Options of commands that can run on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from vla_gen_bench.cli.numbers import Real
from vla_gen_bench.errors import UserError

if TYPE_CHECKING:
    from vla_gen_bench.eval.cluster import Cluster

_OPTIONS = (
    click.option(
        "--engine",
        type=click.Choice(["processes", "ray"]),
        default="processes",
        show_default=True,
        help="Worker processes of this machine, or actors of a Ray cluster.",
    ),
    click.option(
        "--address", metavar="HOST:PORT|auto", help="Of the Ray cluster's head.  [default: a cluster of this machine]"
    ),
    click.option(
        "--num-cpus-per-worker", "cpus", type=Real(0, 1024), help="Of a Ray actor that simulates.  [default: 1]"
    ),
    click.option(
        "--num-gpus-per-worker", "gpus", type=Real(0, 64), help="Of a Ray actor that simulates.  [default: 0]"
    ),
    click.option(
        "--wait-for-nodes",
        "wait_s",
        metavar="SECONDS",
        type=Real(0, 604_800),
        help="How long to wait for a Ray cluster that is not up, too small or busy.  [default: 0]",
    ),
)


def cluster_options(command: Callable) -> Callable:
    """Adds the options; `cluster_of` takes their values."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def cluster_of(engine: str, **options: Any) -> Cluster | None:
    """Returns what the options request, None for processes of this machine.

    Raises:
        UserError: Options of a cluster are given without one.
    """
    from vla_gen_bench.eval.cluster import Cluster

    given = {name: value for name, value in options.items() if value is not None}
    if engine == "ray":
        return Cluster(**given)
    if given:
        raise UserError("--address, --wait-for-nodes and what actors take of nodes are for --engine ray; give it too")
    return None
