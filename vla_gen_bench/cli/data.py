"""`vgb data`: inspects demonstrations."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vla_gen_bench.cli.numbers import EPISODES


@click.group()
def data() -> None:
    """Show and preview data sets of demonstrations."""


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(folder: Path, as_json: bool) -> None:
    """Show counts, success, actions and coverage of the data set in FOLDER."""
    from vla_gen_bench.train.demos.collect import describe
    from vla_gen_bench.train.demos.dataset import load, read_own
    from vla_gen_bench.train.demos.lerobot_format import ACTION_NAMES

    demos = load(folder, pictures=False)
    facts = describe(demos, read_own(folder))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    origin = facts["origin"]
    click.echo(
        f"{facts['demonstrations']} demonstrations, {facts['frames']} frames; world {origin['world']}, "
        f"driven by {origin['policy']}, noise {origin['noise']:g}, {origin['side']} px, seed {origin['seed']}"
    )
    length = facts["length"]
    click.echo(
        f"success {facts['success']:.1%} of {facts['attempts']} episodes; length {length['p50']:.0f} steps "
        f"(5% to 95%: {length['p5']:.0f} to {length['p95']:.0f})"
    )
    click.echo("phases: " + ", ".join(f"{name} {share:.0%}" for name, share in facts["phases"].items()))
    click.echo(f"small actions {facts['small_actions']:.0%}; disturbed steps {facts['disturbed']:.0%}")
    for key in ("objects", "tables", "failed"):
        click.echo(f"{key}: " + ", ".join(f"{name} {count}" for name, count in facts[key].items()))
    click.echo("\n" + histogram(demos.actions, ACTION_NAMES))


BARS = " ▁▂▃▄▅▆▇█"


def histogram(actions, names, bins: int = 32) -> str:
    """Returns one line per action dimension: range and a histogram between its 1% and 99% quantiles."""
    import numpy as np

    lines = []
    for name, values in zip(names, np.asarray(actions, np.float64).T, strict=True):
        low, high = np.quantile(values, [0.01, 0.99])
        counts, _ = np.histogram(np.clip(values, low, high), bins, (low, high) if high > low else (low - 1, low + 1))
        levels = np.ceil(counts / max(1, counts.max()) * (len(BARS) - 1)).astype(int)
        lines.append(f"{name:8s} {low:8.4f} {''.join(BARS[level] for level in levels)} {high:8.4f}")
    return "\n".join(lines)


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("preview.mp4"), show_default=True)
@click.option("--episodes", type=EPISODES, default=8, show_default=True, help="Maximum number of demonstrations.")
def preview(folder: Path, out: Path, episodes: int) -> None:
    """Write an mp4 of the first demonstrations in FOLDER, with instruction and phase."""
    import numpy as np

    from vla_gen_bench.bounds import VIDEO_ENDINGS
    from vla_gen_bench.data import ensure_writable
    from vla_gen_bench.log.video import write_video
    from vla_gen_bench.train.demos.dataset import load
    from vla_gen_bench.train.demos.frames import PHASES, kinds_of, resized
    from vla_gen_bench.train.demos.lerobot_format import read_info

    ensure_writable(out, "give another --out", VIDEO_ENDINGS)
    demos = load(folder, min(episodes, max(1, read_info(folder)["total_episodes"])))
    phases = kinds_of(demos).phase
    captions = [f"{demos.instructions[e]} ({PHASES[p]})" for e, p in zip(demos.episode, phases, strict=True)]
    write_video(out, list(resized(np.asarray(demos.images), 288)), captions)
    click.echo(f"{len(demos)} demonstrations in {out}")
