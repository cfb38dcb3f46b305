"""`vgb doctor`."""

from __future__ import annotations

import click

from vla_gen_bench.doctor import checks as examination

COLOURS = {"ok": "green", "warn": "yellow", "FAIL": "red"}


@click.command()
@click.option("--json", "as_json_", is_flag=True, help="Print one JSON object instead of lines.")
def doctor(as_json_: bool) -> None:
    """Check this machine: packages, rendering, GPU, memory, disk, asset packs.

    Each line reports ok, warn or FAIL; every line that is not ok names its fix. Exits with 2 if any check fails.
    """
    checks = examination.run_checks()
    if as_json_:
        click.echo(examination.as_json(checks))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            click.echo(_line(check, width))
    raise SystemExit(examination.exit_code(checks))


def _line(check: examination.Check, width: int) -> str:
    line = f"{click.style(f'{check.status:4}', fg=COLOURS[check.status])}  {check.name:{width}}  {check.detail}"
    return f"{line}\n{'':{width + 8}}fix: {check.fix}" if check.fix else line
