"""`vgb replay`."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("log", type=click.Path(path_type=Path))
@click.argument("episode")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The mp4.  [default: LOG/videos/SCENARIO-SEED-INDEX-OUTCOME.mp4]"
)
@click.option("--act", is_flag=True, help="Ask the policy again instead of playing back the logged actions.")
def replay(log: Path, episode: str, out: Path | None, act: bool) -> None:
    """Run one logged episode again, write it as an mp4, and check that its outcome matches the log.

    LOG is the folder of an evaluation; EPISODE is scenario/seed/index, for example unseen_table/0/12. Exit status 1 if
    the outcome differs.
    """
    from vla_gen_bench.eval.replay import replay_episode

    answer = replay_episode(log, episode, out, act)
    click.echo(f"{answer.video}")
    if answer.changed:
        what = ", another ".join(answer.changed)
        click.echo(f"note: the policy is not the one of the log any more: another {what}", err=True)
    if answer.elsewhere and not answer.exact:
        click.echo(f"note: the log is from {answer.elsewhere}, which rounds otherwise than this processor", err=True)
    outcome = "success" if answer.row["success_at_end"] else "failure"
    exact = "bit for bit" if answer.exact else "but not bit for bit"
    if not answer.comparable:
        exact = "as far as a log without images tells"
    if not answer.traced:
        exact = "as far as a log without traces tells"
    if answer.same:
        click.echo(f"{episode}: {outcome}, as logged, {exact}", err=True)
        return
    click.echo(f"{episode}: {outcome}, but the log says otherwise: {answer.difference}", err=True)
    sys.exit(1)
