"""Progress of an evaluation: a bar in a terminal or notebook, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from vla_gen_bench.errors import printable
from vla_gen_bench.eval.evaluate import Plan
from vla_gen_bench.eval.workers import Result


class Live:
    """A progress bar on stderr with success so far and time left; plain lines if stderr is not a terminal."""

    LINE_EVERY_S = 20.0

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan, self._console = plan, console
        self._done = self._errors = self._successes = 0
        self._printed, self._total, self._skipped = time.monotonic(), 0, 0
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[success]}", markup=False),
        ]
        columns += [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
        self._shown = console.is_terminal or console.is_jupyter
        self._bar = Progress(*columns, console=console, disable=not self._shown, transient=True)

    def __enter__(self) -> Live:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def start(self, done: int, total: int) -> None:
        plan = self._plan
        self._total, self._skipped = total, done
        again = f", {done} of them already in the log" if done else ""
        say = f"{plan.card.name} on {plan.suite.id} ({plan.request.world}): {total} episodes{again}; log: {plan.folder}"
        self.say(say)
        self._task = self._bar.add_task("starting workers", total=total, completed=done, success="")

    def note(self, text: str) -> None:
        self.say(f"{self._plan.folder}: {text}")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def update(self, result: Result) -> None:
        self._done += 1
        if result.error:
            self._errors += 1
            where = "/".join(map(str, result.job.key))
            self.say(f"episode {where} errored twice: {result.error}")
        else:
            self._successes += bool(result.row and result.row["success_at_end"])
        fine = self._done - self._errors
        text = f"success {self._successes}/{fine}" + (f", {self._errors} errors" if self._errors else "")
        self._bar.update(self._task, advance=1, description=result.job.key[0], success=text)
        self._plain(text)

    def _plain(self, text: str) -> None:
        last = self._skipped + self._done == self._total
        if self._shown or (time.monotonic() - self._printed < self.LINE_EVERY_S and not last):
            return
        self._printed = time.monotonic()
        self.say(f"{self._skipped + self._done}/{self._total} episodes, {text}")
