"""`vgb policies`: lists, shows and checks policies."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from vla_gen_bench import runtime
from vla_gen_bench.cli.numbers import Whole
from vla_gen_bench.errors import UserError

if TYPE_CHECKING:
    from vla_gen_bench.policies.card import Card
    from vla_gen_bench.policies.contract import CheckResult

PIPE_WIDTH = 200  # columns if stdout is not a terminal: one line per policy
MARKS = {"ok": "ok    ", "failed": "FAILED", "note": "note  "}


@click.group()
def policies() -> None:
    """List, show and check policies.

    A policy is a name, a folder with a card.yaml, module:attr, or a server: openpi://HOST:PORT, vla-eval:// or act://.
    """


@policies.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_command(as_json: bool) -> None:
    """List the built-in policies and the installed plugins, without importing them."""
    from vla_gen_bench.policies.registry import list_policies

    rows = list_policies()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    _print_table(
        ("name", "source", "parameters", "privileged", "summary"),
        [
            (
                row.name,
                row.source,
                _size(row.params),
                _privileged(row.privileged),
                f"BROKEN: {row.problem}" if row.problem else row.summary,
            )
            for row in rows
        ],
    )


@policies.command()
@click.argument("ref", metavar="POLICY")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def show(ref: str, as_json: bool) -> None:
    """Show the card of POLICY."""
    from vla_gen_bench.policies.registry import resolve

    with runtime.stdout_for_results():
        card = resolve(ref)
        data = _card_data(card)
    if as_json:
        click.echo(json.dumps(data, indent=2))
        return
    for key, value in data.items():
        if value not in (None, {}):
            click.echo(f"{key:<12} {value if isinstance(value, str) else json.dumps(value)}")


@policies.command()
@click.argument("ref", metavar="POLICY")
@click.option("--batch", default=3, show_default=True, type=Whole(2, 1024), help="Episodes in the larger batch tried.")
@click.option(
    "--policy-option", "pairs", multiple=True, metavar="KEY=VALUE", help="Argument of the policy's factory; repeatable."
)
@click.option(
    "--replay", metavar="DATA",
    help="Demonstrations (vgb collect): show their frames to the policy and report likely mistakes of convention.",
)  # fmt: skip
@click.option("--frames", default=128, show_default=True, type=Whole(16, 100_000), help="Frames of --replay.")
@click.pass_context
def check(
    context: click.Context, ref: str, batch: int, pairs: tuple[str, ...], replay: str | None, frames: int
) -> None:
    """Load POLICY and test it on a synthetic observation. Exits with 2 if a check fails.

    With --replay it also acts on demonstrations, and its actions are compared with the expert's: mean error, gripper,
    rotation, scale, image order, chunks, and whether language, state and image affect the actions.
    """
    from vla_gen_bench.assets.world import get_world
    from vla_gen_bench.policies.contract import check_policy, closing, example_observation
    from vla_gen_bench.policies.registry import load_policy, parse_options, resolve
    from vla_gen_bench.policies.sensing import sensors_of

    if replay is None and context.get_parameter_source("frames") is not ParameterSource.DEFAULT:
        raise UserError("--frames says how many frames of --replay are shown: add --replay DATA, or leave it out")
    with runtime.stdout_for_results():
        card = resolve(ref)
        if replay is not None and card.privileged:
            raise UserError(f"{card.label} sees the simulator's state, which demonstrations lack: leave out --replay")
        options = parse_options(pairs)
        policy = load_policy(card, **options)
    click.echo(f"{MARKS['ok']} loaded: {card.factory} from {card.source}")
    needs = sensors_of(card, get_world("builtin" if card.worlds == "all" else card.worlds[0]), options=options)
    observe = None if card.privileged else partial(example_observation, needs=needs)
    with runtime.stdout_for_results(), closing(policy):
        results = check_policy(policy, card.label, batch=batch, observe=observe, privileged=card.privileged)
        if replay is not None and all(result.status != "failed" for result in results):
            results += _replayed(policy, needs, replay, frames)
    for result in results:
        click.echo(_line(result))
    if any(result.status == "failed" for result in results):
        context.exit(2)


def _replayed(policy, needs, data: str, frames: int) -> list[CheckResult]:
    """Returns the findings of the convention doctor on demonstration frames."""
    from vla_gen_bench.policies.conventions import diagnose, take_frames
    from vla_gen_bench.protocol import WRIST
    from vla_gen_bench.train.demos.dataset import load
    from vla_gen_bench.train.demos.lerobot_reader import local_folder

    demos = load(local_folder(data), world="builtin", wrist=WRIST in needs.cameras)
    return diagnose(policy, take_frames(demos, needs, frames, policy.action_spec.chunk))


def _line(result: CheckResult) -> str:
    return f"{MARKS[result.status]} {result.name}: {result.detail}"


def _size(params: int | None) -> str:
    from vla_gen_bench.log.header import model_size

    return {None: "?", 0: "none"}.get(params) or model_size(params).removesuffix(" parameters")


def _privileged(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "?"}[value]


def _card_data(card: Card) -> dict[str, object]:
    """Returns the card's keys, and the results of the checks."""
    folder = card.source.folder
    return {
        **card.model_dump(mode="json"),
        "source": str(card.source),
        "folder": str(folder) if folder else None,
        "digest": card.digest(),
    }


def _print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in header:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)
