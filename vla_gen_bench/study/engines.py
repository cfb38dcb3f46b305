"""What runs a part: a `vgb` command in a process of its own, so that nothing it does can harm the other parts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from vla_gen_bench.errors import one_line
from vla_gen_bench.runtime import CORES, PARENT

if TYPE_CHECKING:
    from vla_gen_bench.study.parts import Part

PRINTED_FILE = "printed.txt"
POLL_S = 0.5
PATIENCE_S = 30.0  # for a command to finish what it writes, after Ctrl-C
ERROR = "error: "
START_OVER = re.compile(
    r"(?:(?:choose another|give another folder with|use) --out,? or )?(?:give )?--fresh"
    r"(?: to move \w+(?: log)? aside)?(?: \(--fresh --reuse [^)]*\))?(?:, or --out)?"
)  # as the commands advise it


class Ended(NamedTuple):
    """How a part's command ended: its exit status (negative: killed by that signal), and what it printed last."""

    name: str
    code: int
    error: str


class Engine(Protocol):
    """Runs parts."""

    def free(self) -> bool:
        """Whether another part can start now."""

    def start(self, part: Part) -> None:
        """Takes a part to run."""

    def wait(self) -> Ended:
        """Returns the next part that ended."""

    def stop(self) -> None:
        """Ends what runs, after an interruption; each command keeps what it has finished."""


Command = Callable[[Sequence[str], Path], int]
"""(arguments of `vgb`, file that receives what it prints) -> exit status."""


class Local:
    """One part after another, on this machine."""

    def __init__(self, command: Command | None = None) -> None:
        self._command = command or run_command
        self._part: Part | None = None

    def free(self) -> bool:
        return self._part is None

    def start(self, part: Part) -> None:
        self._part = part

    def wait(self) -> Ended:
        part, self._part = self._part, None
        assert part is not None
        return run_part(part, self._command)

    def stop(self) -> None:
        """`run_command` has stopped it."""


def run_part(part: Part, command: Command) -> Ended:
    """Runs a part's command; the command and what it prints are appended to its file."""
    printed = part.notes / PRINTED_FILE
    printed.parent.mkdir(parents=True, exist_ok=True)
    with printed.open("ab") as file:
        file.write(f"$ vgb {' '.join(part.public_command)}\n".encode())
    before = printed.stat().st_size
    code = command(part.command, printed)
    with printed.open("rb") as file:
        file.seek(before)
        text = file.read().decode("utf-8", errors="replace")
    return Ended(part.name, code, "" if code == 0 else in_a_study(reason(text, code), part.name))


def reason(text: str, code: int) -> str:
    """Returns in one line why a command failed, from what it printed."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    named = next((line for line in reversed(lines) if line.startswith(ERROR)), "")
    if named:
        return one_line(named.removeprefix(ERROR))
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + (": out of memory?" if -code == signal.SIGKILL else "")
    return one_line(lines[-1]) if lines else f"exit status {code}"


def in_a_study(error: str, part: str) -> str:
    """Returns a command's error with the advice to start over in the words of `vgb study`, which has no `--fresh`."""
    return START_OVER.sub(f"give vgb study --redo {part}", error)


def run_command(arguments: Sequence[str], printed: Path, cores: int | None = None) -> int:
    """Runs `vgb ARGUMENTS` in a process that ends with this one; returns its exit status.

    Args:
        cores: How many cores it may use; None = all that this process may.

    Raises:
        KeyboardInterrupt: Passed on to the command first, which may finish what it writes.
    """
    command = [sys.executable, "-m", "vla_gen_bench", *arguments]
    environment = {**os.environ, PARENT: str(os.getpid()), **({} if cores is None else {CORES: str(cores)})}
    with printed.open("ab") as file:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )  # a session of its own: Ctrl-C reaches it once, from here
        try:
            return _waited(process)
        except BaseException:
            _end(process)
            raise


def _waited(process: subprocess.Popen) -> int:
    """Returns the exit status; Ray interrupts a task by a flag that Python looks at, which ends no longer wait."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(POLL_S)


def _end(process: subprocess.Popen) -> None:
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process.send_signal(sign)
        try:
            process.wait(PATIENCE_S)
            return
        except subprocess.TimeoutExpired:
            continue
