"""The `vgb` command. Each subcommand has its own file, which is imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from vla_gen_bench import __version__, runtime
from vla_gen_bench.errors import UserError, one_line, printable

LINE_END = "\n"

COMMANDS = {
    "eval": "Evaluate a policy on suites of shifted scenarios.",
    "merge": "Join the logs of shards into one.",
    "report": "Compare evaluation logs: tables, tests, images, a page.",
    "curves": "Draw training curves: a metric over samples and wall time.",
    "replay": "Run one logged episode again, check its outcome, write an mp4.",
    "collect": "Collect demonstrations on training-pool episodes.",
    "scenes": "Render still scenes to pretrain grounding on.",
    "data": "Show and preview demonstrations.",
    "train": "Train OpenVLA policies: grounding, sft, ppo, grpo, dpo.",
    "study": "Train and evaluate several arms as declared; one page compares them.",
    "suites": "List, show and draw suites, and write their manifests.",
    "policies": "List, show and check policies.",
    "serve": "Serve a policy to other harnesses: openpi, vla-eval, act.",
    "assets": "List, fetch and verify the files of the worlds.",
    "plan": "Compute how many episodes a comparison of two policies needs.",
    "leaderboard": "Add, validate and build the published leaderboard.",
    "gallery": "Draw a labelled image of every scenario of a suite.",
    "bench": "Measure this machine: step, reset, set-up, throughput.",
    "doctor": "Check Python, packages, Vulkan, GPU, disk and assets.",
}


class LazyGroup(click.Group):
    """Imports a subcommand's module only when it runs, as `vgb --help` should need neither torch nor a simulator."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f"vla_gen_bench.cli.{name}")
        return getattr(module, "evaluate_command" if name == "eval" else name)

    def resolve_command(self, context: click.Context, arguments: list[str]):
        name = arguments[0] if arguments else ""
        if name and name not in COMMANDS and not name.startswith("-"):
            from vla_gen_bench.errors import suggest

            context.fail(f"no command '{name}'{suggest(name, COMMANDS)}")
        return super().resolve_command(context, arguments)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="vgb")
def vgb() -> None:
    """Measure what a vision-language-action policy still does when the world differs from its training world.

    Start with: vgb eval --policy expert --suite execution --episodes 16
    """


def main() -> None:
    """Entry point: a user error prints one line on stderr and exits with code 2."""
    runtime.end_with_caller()
    runtime.catch_signals()
    try:
        runtime.prepare(alone=sys.argv[1:2] in (["train"], ["bench"]))
        sys.exit(vgb.main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort as error:
        click.echo("interrupted", err=True)
        sys.exit(runtime.interrupted_status(error.__cause__))
    except UserError as error:
        click.echo(f"error: {printable(error, keep=LINE_END)}", err=True)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:  # not caused by a file, so a bug: keep the traceback
            raise
        click.echo(f"error: {one_line(error.filename)}: {one_line(error.strerror or error)}", err=True)
        sys.exit(2)
