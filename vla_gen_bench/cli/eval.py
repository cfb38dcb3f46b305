"""`vgb eval`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vla_gen_bench import runtime
from vla_gen_bench.bounds import MOST_SEEDS, VIDEOS_KEPT, evaluation_seeds
from vla_gen_bench.cli.cluster_options import cluster_of, cluster_options
from vla_gen_bench.cli.numbers import EPISODES, NUM_ENVS, WORKERS, Real, Whole
from vla_gen_bench.errors import UserError, printable, shown

if TYPE_CHECKING:
    from vla_gen_bench.eval.evaluate import Plan, Summary


LONGEST_SEEDS = 10_000  # characters, for a thousand seeds


def parse_seeds(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Turns "0,1,2" into (0, 1, 2)."""
    if text is None:
        return None
    try:
        seeds = [int(part) for part in text.split(",")] if len(text) <= LONGEST_SEEDS else None
    except ValueError:
        raise click.BadParameter(f"expected integers separated by commas, got {shown(text)}") from None
    if seeds is None:
        raise click.BadParameter(f"{len(text)} characters; expected at most {MOST_SEEDS} seeds")
    return evaluation_seeds(seeds, "--seeds")


@click.command("eval")
@click.option(
    "--policy", required=True,
    help="Name (vgb policies list), module:attr, a folder with a card.yaml, or a server: openpi://HOST:PORT, "
    "vla-eval://HOST:PORT, act://HOST:PORT.",
)  # fmt: skip
@click.option("--checkpoint", metavar="PATH|HUB_ID", help="Weights, for policies that take them.")
@click.option("--policy-option", "options", multiple=True, metavar="KEY=VALUE", help="Argument of the policy; repeat.")
@click.option("--suite", "suites", multiple=True, default=["all"], show_default=True, help="Name or YAML file; repeat.")
@click.option("--scenario", "scenarios", multiple=True, help="Only these; repeat. 'a + b' applies both shifts.")
@click.option("--world", default="builtin", show_default=True, help="Asset world: builtin, rl4vla or pretrain.")
@click.option(
    "--image-size",
    metavar="PIXELS|HxW",
    help="Draw images of this size: 256, or 240x320.  [default: the policy's, else the world's]",
)
@click.option("--episodes", type=EPISODES, help="Per scenario and seed.  [default: the suite's, 64]")
@click.option(
    "--seeds", callback=parse_seeds, metavar="INTS", help="Separated by commas.  [default: the suite's, 0,1,2]"
)
@click.option(
    "--quick",
    is_flag=True,
    help="Run only the suite's quick subset; a later run without it adds the rest to the same log.",
)
@click.option("--shard", metavar="I/N", help="Run part I of N of the episodes; 'vgb merge' joins the logs.")
@click.option("--workers", type=WORKERS, help="Worker processes.  [default: one per core]")
@click.option(
    "--backend", default="auto", show_default=True, help="Where physics runs: cpu, gpu, or auto = gpu where one works."
)
@click.option(
    "--num-envs",
    type=NUM_ENVS,
    help="Episodes side by side in a worker.  [default: 1, on a GPU 64]",
)
@click.option(
    "--video",
    is_flag=False,
    flag_value="all",
    type=click.Choice(VIDEOS_KEPT),
    default="none",
    help="Keep mp4 files: of all episodes, or of failures.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Log folder.  [default: runs/POLICY/SUITE-WORLD]"
)
@click.option(
    "--resume", is_flag=False, flag_value="", metavar="[DIR]", help="Continue the log in DIR (or --out); it must exist."
)
@click.option("--fresh", is_flag=True, help="Move an earlier log in that folder aside and start again.")
@click.option(
    "--reuse",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Take over the episodes of an earlier log that are the same, such as most of a suite's earlier version. "
    "Repeatable.",
)
@click.option("--no-render", is_flag=True, help="Draw nothing: for privileged policies, about twice as fast.")
@click.option(
    "--time-limit",
    type=Real(0, 1e6, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds one control step may take before a worker counts as hung.",
)
@cluster_options
@click.option(
    "--policy-actors",
    "hosts",
    type=Whole(1, 1024),
    help="Ray actors that hold the policy and act for all simulators.  [default: one policy in each]",
)
@click.option("--num-gpus-per-policy", "host_gpus", type=Real(0, 64), help="Of each policy actor.  [default: 0]")
@click.option("--wandb", metavar="PROJECT", help="Send the outcome to Weights & Biases too, if it is installed.")
@click.option("--mlflow", metavar="EXPERIMENT", help="Send the outcome to MLflow too ($MLFLOW_TRACKING_URI).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout instead of the table.")
def evaluate_command(
    policy,
    checkpoint,
    options,
    suites,
    scenarios,
    world,
    image_size,
    episodes,
    seeds,
    quick,
    shard,
    workers,
    backend,
    num_envs,
    video,
    out,
    resume,
    fresh,
    reuse,
    no_render,
    time_limit,
    engine,
    address,
    cpus,
    gpus,
    wait_s,
    hosts,
    host_gpus,
    wandb,
    mlflow,
    as_json,
):
    """Run a policy on every episode of suites, score it, and log it.

    Finished episodes are on disk at once: after Ctrl-C or a crash the same command resumes where it stopped. The table
    shows success at the end of the episode (the headline), its 95% Wilson interval, success at any time, and the drop
    from the in-distribution scenario. Exit status: 0 done, 1 done with errored episodes, 2 bad input,
    130 after Ctrl-C, 143 after SIGTERM.
    """
    from vla_gen_bench.eval.evaluate import Request, make_plan
    from vla_gen_bench.eval.shards import parse_shard
    from vla_gen_bench.log.trackers import need_tracker, track_summary
    from vla_gen_bench.policies.registry import parse_options
    from vla_gen_bench.policies.sensing import parse_size

    trackers = {name: project for name, project in (("wandb", wandb), ("mlflow", mlflow)) if project}
    for name in trackers:  # fail before the work, not after it
        need_tracker(name, f"--{name}")
    arguments = parse_options(options)
    if checkpoint and "checkpoint" in arguments:
        raise UserError("the checkpoint is given twice, as --checkpoint and as --policy-option; leave one out")
    if resume and out and Path(resume) != out:
        raise UserError(f"--resume {resume} and --out {out} name different folders; give one of them")
    if quick and (episodes or seeds):
        raise UserError("--quick stands for the suite's own choice of --episodes and --seeds; give one or the other")
    if resume is not None and fresh:
        raise UserError("--resume continues a log and --fresh starts a new one; give one of them")
    request = Request(
        policy=policy,
        suites=suites,
        checkpoint=checkpoint,
        scenarios=scenarios or None,
        world=world,
        episodes=episodes,
        seeds=seeds,
        quick=quick,
        workers=workers,
        backend=backend,
        num_envs=num_envs,
        out=Path(resume) if resume else out,
        options=arguments,
        fresh=fresh,
        reuse=reuse,
        must_resume=resume is not None,
        record=video,
        render=not no_render,
        time_limit_s=time_limit,
        image_size=parse_size(image_size) if image_size else None,
        shard=parse_shard(shard) if shard else None,
        cluster=cluster_of(
            engine,
            "--address, --wait-for-nodes, --policy-actors and what workers take of nodes are",
            address=address,
            cpus=cpus,
            gpus=gpus,
            wait_s=wait_s,
            hosts=hosts,
            host_gpus=host_gpus,
        ),
    )
    with runtime.stdout_for_results():
        plan = make_plan(request)
        summary = _evaluate(plan)
    if as_json:
        click.echo(json.dumps(summary.to_json()))
    else:
        _print_table(summary)
    with runtime.stdout_for_results():
        for name, project in trackers.items():
            track_summary(summary.to_json(), plan.identity, name, project)
    sys.exit(1 if summary.errors else 0)


def _evaluate(plan: Plan) -> Summary:
    from rich.console import Console

    from vla_gen_bench.eval.evaluate import evaluate
    from vla_gen_bench.eval.progress import Live

    console = Console(stderr=True)
    live = Live(plan, console)
    try:
        with live:
            return evaluate(plan, live.start, live.update, live.note)
    except KeyboardInterrupt as error:
        live.say(f"interrupted; finished episodes are in {plan.folder}, the same command resumes there")
        sys.exit(runtime.interrupted_status(error))


def _print_table(summary: Summary) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vla_gen_bench.log.header import model_size

    plan = summary.plan
    size = model_size(plan.params)
    policy = f"{plan.card.name} ({size})" if size else plan.card.name
    title = Text(printable(f"{policy} on {plan.suite.id}, world {plan.request.world}"))
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    metric = plan.suite.protocol.metric
    other = {"success_at_end": "once", "success_once": "at end"}[metric]
    names = ["scenario", "success", "95% interval", "k/n", other, "drop", *(["errors"] if summary.errors else [])]
    for name in names:
        table.add_column(name, justify="left" if name == "scenario" else "right", no_wrap=True)
    ind = summary.scenarios.get("ind")
    for scenario in plan.scenarios:
        cells = _table_row(printable(scenario.label), summary.scenarios[scenario.id], ind, metric)
        table.add_row(*map(Text, cells[: len(names)]))  # labels are not markup
    console = Console() if sys.stdout.isatty() else Console(width=100)
    console.print(table)
    when = {"success_at_end": "at the end", "success_once": "at any time"}[metric]
    paired = ", same episodes" if plan.suite.family == "shifts" else ""
    console.print(f"success: {when}, with its 95% interval; drop: below IND{paired}", style="dim")
    console.print(f"log: {printable(plan.folder)}", highlight=False, markup=False, soft_wrap=True)


def _table_row(label: str, counts: dict, ind: dict | None, metric: str) -> list[str]:
    n = counts["episodes"] - counts["errors"]
    if not n:
        return [label, "-", "-", "0/0", "-", "-", str(counts["errors"])]
    other = {"success_at_end": "success_once", "success_once": "success_at_end"}[metric]
    rate, (low, high) = counts[metric] / n, counts["ci95"]
    reference = ind[metric] / max(1, ind["episodes"] - ind["errors"]) if ind else None
    drop = "" if reference is None or ind is counts else f"{100 * (reference - rate):.1f} pp"
    cells = [f"{rate:.3f}", f"{low:.3f} to {high:.3f}", f"{counts[metric]}/{n}", f"{counts[other] / n:.3f}"]
    return [label, *cells, drop, str(counts["errors"] or "")]
