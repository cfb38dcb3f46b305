"""`vgb plan`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vla_gen_bench.cli.numbers import Real, Whole
from vla_gen_bench.errors import UserError, printable

if TYPE_CHECKING:
    from vla_gen_bench.report.plan import Design, Pilot, Side, Test

RATE = Real(0.001, 0.999)
LEVEL = Real(1e-9, 0.5)
POWER = Real(0.01, 0.9999)


@click.command()
@click.option("--detect", type=RATE, help="Difference of the success rates to find: 0.05 is 5 percentage points.")
@click.option("--baseline-rate", type=RATE, help="Of the policy compared with.  [default: 0.75, or the pilot's]")
@click.option("--power", type=POWER, default=0.8, show_default=True, help="Probability to find it.")
@click.option("--alpha", type=LEVEL, default=0.05, show_default=True, help="Level of the two-sided test.")
@click.option(
    "--tests",
    type=Whole(1, 1000),
    default=1,
    show_default=True,
    help="Tests that Holm corrects together: the first must pass alpha / TESTS. Three dimensions: 3.",
)
@click.option(
    "--paired/--unpaired", default=None, help="Only with the same episodes, or only without.  [default: both]"
)
@click.option("--discordance", type=RATE, help="Share of episodes in which exactly one of the two succeeds.")
@click.option("--correlation", type=Real(-1, 1), help="Of the outcomes.  [default: 0, 0.3 and 0.6]")
@click.option("--pilot", nargs=2, type=click.Path(path_type=Path), metavar="RUN_A RUN_B", help="Take it from two logs.")
@click.option(
    "--episodes",
    type=Whole(2, 10_000_000),
    default=192,
    show_default=True,
    help="Per policy: what difference do they find?",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def plan(
    detect, baseline_rate, power, alpha, tests, paired, discordance, correlation, pilot, episodes, as_json
) -> None:  # fmt: skip
    """Show how many episodes a comparison of two policies needs, and what a number of episodes can show.

    Numbers are episodes per policy on one scenario. Paired episodes (the same ones, as vgb eval samples them) need
    fewer, the more similar the two policies are. docs/plan.md explains the computation.
    """
    from vla_gen_bench.report.plan import Test

    if paired is False and (discordance or correlation is not None):
        raise UserError("--discordance and --correlation are for paired comparisons; leave out --unpaired")
    if sum(given is not None for given in (discordance, correlation, pilot)) > 1:
        raise UserError("give one of --discordance, --correlation and --pilot")
    measured = _pilot(pilot) if pilot else None
    baseline = baseline_rate or _baseline(measured)
    if detect is not None and baseline + detect > 1 and baseline - detect < 0:
        raise UserError(f"--detect {detect:g}: no rate lies that far from {baseline:.3f}; give a smaller one")
    test = Test(alpha / tests, power, tests)
    if power <= test.alpha:
        raise UserError(f"--power {power:g}: must be above alpha, {test.alpha:.3g}, the share that chance alone finds")
    designs = list(_designs(baseline, detect, episodes, test, paired, discordance, correlation, measured))
    if as_json:
        head = {"baseline": baseline, "detect": detect, "alpha": test.alpha, "power": power}
        head |= {"tests": tests, "episodes": episodes}
        found = {"pilot": measured and asdict(measured), "designs": [asdict(design) for design in designs]}
        return click.echo(json.dumps({**head, **found}))
    _print(baseline, detect, episodes, test, designs, measured)


def _pilot(runs: tuple[Path, Path]) -> Pilot:
    from vla_gen_bench.log.folder import EvalLog
    from vla_gen_bench.report.plan import pilot_of

    first, second = (EvalLog(run) for run in runs)
    readings = [log.read(log.header.run) for log in (first, second)]
    for problem in (problem for reading in readings for problem in reading.problems):
        click.echo(f"{printable(problem)}; left out", err=True)
    return pilot_of(*(reading.rows.values() for reading in readings))


def _baseline(pilot: Pilot | None) -> float:
    rate = 0.75 if pilot is None else pilot.rates[0]
    if not 0 < rate < 1:
        raise UserError(f"the pilot's first run has success rate {rate:g}; give --baseline-rate")
    return rate


def _designs(baseline, detect, episodes, test, paired, discordance, correlation, pilot) -> Iterator[Design]:
    from vla_gen_bench.report.plan import CORRELATIONS, Alike, paired_design, unpaired_design

    if not paired:
        yield unpaired_design(baseline, detect, episodes, test)
    if paired is False:
        return
    if pilot or discordance:
        alike = [Alike(discordance=share) for share in ([discordance] if discordance else _shares(pilot, detect))]
    else:
        alike = [Alike(value) for value in (CORRELATIONS if correlation is None else [correlation])]
    for kind in alike:
        try:
            yield paired_design(baseline, detect, episodes, kind, test)
        except UserError:
            if len(alike) == 1:
                raise  # one of several defaults may be impossible with these rates


def _shares(pilot: Pilot, detect: float | None) -> list[float]:
    """The pilot's discordance and the upper end of its interval, neither below the requested difference."""
    shares = [max(share, detect or 0) for share in (pilot.discordance, pilot.high)]
    return [share for share in dict.fromkeys(shares) if share]


def _print(baseline, detect, episodes, test: Test, designs: list[Design], pilot: Pilot | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=100)
    holm = "" if test.tests == 1 else f" ({test.alpha * test.tests:g} over {test.tests} tests)"
    title = f"baseline rate {baseline:.3f}, two-sided alpha {test.alpha:.3g}{holm}, power {test.power:g}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    wanted = [] if detect is None else [_arrow(baseline, detect, 1), _arrow(baseline, detect, -1)]
    for name in ("comparison", *wanted, f"detectable rise ({episodes})", f"detectable fall ({episodes})"):
        table.add_column(name, justify="left" if name == "comparison" else "right", no_wrap=True)
    for design in designs:
        sides = (design.up, design.down)
        needed = [] if detect is None else [_needed(side) for side in sides]
        table.add_row(design.name, *needed, *(_detectable(side) for side in sides))
    if pilot:
        rates = f"rates {pilot.rates[0]:.3f} and {pilot.rates[1]:.3f}"
        share = f"discordance {pilot.discordance:.3f} ({pilot.low:.3f} to {pilot.high:.3f})"
        console.print(f"pilot: {pilot.episodes} shared episodes, {rates}, {share}", soft_wrap=True)
    console.print(table)
    console.print("episodes per policy on one scenario; with 3 seeds, --episodes is a third of it", style="dim")
    if test.tests == 1:
        console.print(
            "vgb report corrects the means of three dimensions by Holm: for the first of 3 to pass, "
            f"plan with --tests 3, alpha {test.alpha / 3:.3g}",
            style="dim",
            soft_wrap=True,
        )


def _arrow(baseline: float, detect: float, sign: int) -> str:
    rate = baseline + sign * detect
    return f"to {rate:.3f}" if 0 <= rate <= 1 else "-"


def _needed(side: Side | None) -> str:
    return "-" if side is None else f"{side.episodes:,}"


def _detectable(side: Side | None) -> str:
    return "-" if side is None or side.detectable is None else f"{100 * side.detectable:.1f} pp"
