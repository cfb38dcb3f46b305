"""`vgb suites`: lists suites, their scenarios, and the episodes they sample."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from vla_gen_bench.cli.numbers import INDEX, SEED
from vla_gen_bench.episodes.draw import FIRST_TRAINING_SEED, draw, draw_training
from vla_gen_bench.episodes.shift import Scenario
from vla_gen_bench.episodes.suite import Suite, load_suite, read_suite
from vla_gen_bench.errors import UserError

WORLD = click.option("--world", default="builtin", show_default=True, help="Whose assets: builtin, rl4vla or pretrain.")


@click.group()
def suites() -> None:
    """List, show and draw suites of scenarios."""


@suites.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def list_(as_json: bool) -> None:
    """List every suite that can be named, and plug-ins that do not load."""
    from vla_gen_bench.episodes.lookup import folder_suites, plugin_suites

    plugged, broken = plugin_suites()
    rows, broken = {}, dict(broken)
    for name, found in {**plugged, **folder_suites()}.items():
        try:
            rows[name] = (read_suite(*found), found.shown)
        except UserError as error:
            broken[name] = str(error)
    if as_json:
        click.echo(json.dumps({"suites": {name: _facts(suite) for name, (suite, _) in rows.items()}, "broken": broken}))
    else:
        table = [(name, len(it.scenarios), it.digest(), shown, it.title) for name, (it, shown) in sorted(rows.items())]
        click.echo(_aligned([("suite", "scenarios", "digest", "from", "title"), *table]))
        for message in broken.values():
            click.echo(f"broken: {message}", err=True)


@suites.command()
@click.argument("name")
@click.option("--world", help="Add the first episode of each scenario in this world.")
@click.option("--scenario", "ids", multiple=True, help='Only this one; repeatable; "a + b" composes.')
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def show(name: str, world: str | None, ids: Sequence[str], as_json: bool) -> None:
    """Show the protocol and scenarios of suite NAME (a name or a YAML file)."""
    suite = load_suite(name)
    scenarios = suite.select(ids)
    seed = suite.protocol.seeds[0]
    firsts = {scenario.id: draw(scenario, world, seed, 0) for scenario in scenarios} if world else {}
    if as_json:
        rows = {scenario.id: {"label": scenario.label, **scenario.resolved()} for scenario in scenarios}
        for id, spec in firsts.items():
            rows[id]["first"] = spec.model_dump(mode="json")
        return click.echo(json.dumps({**_facts(suite), "scenarios": rows}))
    protocol = suite.protocol
    click.echo(f"{suite.id} {suite.version}: {suite.title}\n{suite.description}\ndigest {suite.digest()}")
    click.echo(
        f"{protocol.episodes_per_seed} episodes for each of seeds {', '.join(map(str, protocol.seeds))}; "
        f"{protocol.horizon} steps; {protocol.metric}\n"
    )
    table = [(row.id, row.dimension, row.label, _changes(row)) for row in scenarios]
    click.echo(_aligned([("scenario", "dimension", "label", "what differs from training"), *table]))
    for id, spec in firsts.items():
        click.echo(f"\n{id}, seed {seed}, index 0:\n  {spec.model_dump_json()}")


@suites.command("draw")
@click.argument("name")
@click.option("--scenario", "scenario_id", required=True, help='Scenario id; "a + b" composes.')
@click.option(
    "--seed", type=SEED, default=0, show_default=True, help="From 1000000 on: a training draw, which knows only ind."
)
@click.option("--index", type=INDEX, default=0, show_default=True)
@WORLD
def draw_(name: str, scenario_id: str, seed: int, index: int, world: str) -> None:
    """Print one episode of suite NAME as JSON."""
    scenario = load_suite(name).select([scenario_id])[0]
    training = seed >= FIRST_TRAINING_SEED and scenario.id == "ind" and not scenario.reference
    spec = draw_training(world, seed, index) if training else draw(scenario, world, seed, index)
    click.echo(spec.model_dump_json(indent=2))


@suites.command()
def levels() -> None:
    """Print the values of levels 1 to 5 of every disturbance, and the reasons, as a Markdown table."""
    from vla_gen_bench.episodes.levels import level_table

    click.echo(level_table(), nl=False)


@suites.command()
@click.argument("name")
@WORLD
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The PNG.  [default: NAME-WORLD.png]")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Which seed's episode to show.")
@click.option("--index", default=0, show_default=True, type=INDEX, help="Which episode of that seed.")
def preview(name: str, world: str, out: Path | None, seed: int, index: int) -> None:
    """Draw a contact sheet of suite NAME (a name or a YAML file): each disturbance's levels next to IND.

    Every image is the first frame of the same episode, so what differs between two of them is the shift alone.
    """
    from vla_gen_bench.eval.preview import write_preview

    suite = load_suite(name)
    click.echo(write_preview(suite, world, out or Path(f"{suite.id}-{world}.png"), seed, index))


@suites.command()
@click.argument("name")
@WORLD
@click.option("--write", "action", flag_value="write", help="Store it in manifests/ beside the suite.")
@click.option("--check", "action", flag_value="check", help="Compare it with the stored one.")
def manifest(name: str, world: str, action: str | None) -> None:
    """Print, store or check the digests of all episodes of suite NAME."""
    from vla_gen_bench.episodes.manifest import check_manifest, manifest_of, write_manifest

    suite = load_suite(name)
    if action == "write":
        return click.echo(write_manifest(suite, world))
    if action == "check":
        check_manifest(suite, world)
        return click.echo(f"{suite.id} in {world}: as stored")
    click.echo(json.dumps(manifest_of(suite, world), indent=1))


def _facts(suite: Suite) -> dict[str, object]:
    head = suite.model_dump(mode="json", include={"id", "version", "title", "description", "protocol"})
    return {**head, "digest": suite.digest(), "scenarios": list(suite.scenarios)}


def _changes(row: Scenario) -> str:
    if not row.reference:
        return row.shift.describe()
    return f"{row.reference['env']} {row.reference['obj_set']}"


def _aligned(rows: Sequence[Sequence[object]]) -> str:
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
