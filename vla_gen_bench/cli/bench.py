"""`vgb bench`."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.option("--quick", is_flag=True, help="Only the simulator's timings, a minute.")
@click.option("--openvla", is_flag=True, help="Only OpenVLA: speed on the CPU, speed and memory of 7B where a GPU is.")
@click.option("--rl", is_flag=True, help="Only learning from reward: rollouts and the whole loop of PPO, minutes.")
@click.option("--world", "worlds", multiple=True, default=["builtin"], show_default=True, help="Repeat for more.")
@click.option(
    "--out",
    default="runs/bench",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for logs and bench.json.",
)
def bench(quick: bool, openvla: bool, rl: bool, worlds: tuple[str, ...], out: Path) -> None:
    """Measure this machine against the project's targets; prints a table and writes OUT/bench.json.

    The full run takes about 45 minutes on two cores; the success rates continue where an earlier run stopped.
    Floor: the time of PhysX and the renderer alone on the same episodes; ratio: measured time over floor.
    --openvla writes OUT/bench-openvla.json, --rl OUT/bench-rl.json. --rl also compares worker processes with Ray, where
    it is installed.
    """
    from vla_gen_bench.assets.pack import open_pack
    from vla_gen_bench.assets.world import get_world
    from vla_gen_bench.bench import measure
    from vla_gen_bench.errors import UserError

    if quick + openvla + rl > 1:
        raise UserError("--quick, --openvla and --rl each leave out the others' measurements; give one of them")
    lines: list[measure.Line] = []
    worlds = tuple(dict.fromkeys(worlds))
    for world in worlds:
        get_world(world)
        if not openvla and not rl:
            open_pack(world)  # an absent one is noticed now, not after half an hour
    part = "openvla" if openvla else "rl" if rl else ""
    file = out / f"bench{'-' * bool(part)}{part}.json"
    for line in PARTS[part]() if part else _measure(measure, quick, worlds, out):
        lines.append(line)
        _write(file, measure.to_json(lines))
        click.echo(_shown(line), err=True)
    _print(lines, file)


def _measure(measure, quick: bool, worlds: tuple[str, ...], out: Path):
    yield from measure.command_line()
    yield from measure.first_use()
    for world in worlds:
        yield from measure.steps(world)
    if quick:
        return
    yield from _openvla()
    yield from _rl()
    if "builtin" in worlds:
        yield from measure.throughput(out)
    for world in worlds:
        yield from measure.success(world, out, lambda text: click.echo(text, err=True))


def _openvla():
    import torch

    from vla_gen_bench.bench import openvla as bench_openvla

    yield from bench_openvla.cpu()
    if torch.cuda.is_available():
        yield from bench_openvla.gpu()


def _rl():
    from vla_gen_bench.bench import rl as bench_rl
    from vla_gen_bench.eval.cluster import has_ray

    yield from bench_rl.reward_learning()
    teams = [team for team in bench_rl.TEAMS if not team.nodes or has_ray()]
    if len(teams) < len(bench_rl.TEAMS):
        click.echo("Ray is not installed: its lines are left out; pip install 'vla-gen-bench[ray]'", err=True)
    yield from bench_rl.collection(teams)


PARTS = {"openvla": _openvla, "rl": _rl}


def _shown(line) -> str:
    return f"{line.name}: {line.value:.3g} {line.unit}".rstrip()


def _write(file: Path, data: dict) -> None:
    from vla_gen_bench.data import replace_file
    from vla_gen_bench.errors import UserError

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, json.dumps(data, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror}); give another folder with --out") from error


def _print(lines: list, file: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("measurement", "value", "target", "met", "floor", "ratio")
    for line in lines:
        bound = "" if line.target is None else f"{'>=' if line.at_least else '<='} {line.target:g} {line.unit}".rstrip()
        met = {None: "", True: "yes", False: "NO"}[line.met]
        floor, ratio = ("" if number is None else f"{number:.3g}" for number in (line.floor, line.ratio))
        table.add_row(line.name, f"{line.value:.4g} {line.unit}".rstrip(), bound, met, floor, ratio)
    Console(width=None if Console().is_terminal else 110).print(table)
    click.echo(file)
