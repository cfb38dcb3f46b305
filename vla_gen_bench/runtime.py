"""What a process must have in its environment before numpy, torch or SAPIEN are imported.

Every entry point calls `prepare()` first: the command line, worker processes, benchmarks. Values the user set win.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

DEFAULTS = {
    # Idle OpenMP threads sleep instead of spinning: spinning costs up to a factor of five when processes share cores.
    "OMP_WAIT_POLICY": "PASSIVE",
    # One rasteriser thread per process: frames are small, and parallelism comes from worker processes.
    "LP_NUM_THREADS": "1",
    # For worker processes: one heap is less split by textures that come and go, 30 MB less at the peak.
    "MALLOC_ARENA_MAX": "1",
}

WATCH_S = 1.0
PR_SET_PDEATHSIG = 1  # of Linux' prctl

_NOISE = (
    # ManiSkill reports it whenever no GPU is there, whatever backend is asked for afterwards.
    "CUDA device was not found",
    "mani_skill is not installed with git",
)


class _Quiet(logging.Filter):
    """Drops the records of `_NOISE` and lets all others through."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(noise in record.getMessage() for noise in _NOISE)


def prepare(threads: int | None = None, alone: bool = False) -> None:
    """Sets the environment defaults and silences known harmless warnings. Calling it again changes nothing.

    Args:
        threads: Compute threads of this process, see `limit_threads`; None leaves the libraries' own choice.
        alone: Nothing else computes while this process does, so that its OpenMP threads may spin a while before they
            sleep: on two cores openvla-nano trains at 480 samples/s with two threads so, at 310 otherwise.
    """
    for name, value in DEFAULTS.items():
        if name != "OMP_WAIT_POLICY" or not alone:
            os.environ.setdefault(name, value)
    if threads is not None:
        limit_threads(threads)
    quiet()


def limit_threads(threads: int) -> None:
    """Caps OpenMP and torch at `threads` in this process. A user's OMP_NUM_THREADS wins.

    Works before torch is imported (through the environment) and after (through torch itself).
    """
    chosen = os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    torch = sys.modules.get("torch")
    if torch is not None:
        # OMP_NUM_THREADS may be a list, one number per nesting level.
        torch.set_num_threads(int(chosen.split(",")[0]))


def narrow_threads(threads: int) -> None:
    """Lowers torch's threads in this process to `threads`; never raises them. Without torch there is nothing to do."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(min(threads, torch.get_num_threads()))


def usable_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quiet() -> None:
    """Filters the log records that ManiSkill prints on every machine without a GPU."""
    logger = logging.getLogger("mani_skill ")  # The trailing space is ManiSkill's own.
    if not any(isinstance(known, _Quiet) for known in logger.filters):
        logger.addFilter(_Quiet())


# ---- processes ---------------------------------------------------------------------------------------------


class UserInterrupt(KeyboardInterrupt):
    """Ctrl-C, where `tell_ctrl_c` was called: a policy's own `raise KeyboardInterrupt` is another thing."""


def tell_ctrl_c() -> None:
    """Makes Ctrl-C a `UserInterrupt` in this process."""

    def interrupt(*_: object) -> None:
        raise UserInterrupt

    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread and signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL):
        signal.signal(signal.SIGINT, interrupt)


@contextlib.contextmanager
def starting_process() -> Iterator[None]:
    """Keeps Ctrl-C from a process that starts meanwhile: its interpreter would end in a traceback; here it waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker(parent: int) -> None:
    """What a worker process does first: it ends with its parent, leaves Ctrl-C to it, and keeps off its stdout.

    Args:
        parent: Process id, told by the parent itself: it may be gone before this is called.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `starting_process`
    end_with(parent)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # what a terminal or `timeout` sends to a group is for the parent
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # stdout is for results; what policies and libraries print goes to stderr


def end_with(parent: int) -> None:
    """Ends this process with the one that started it, however that ends: a kill -9 cannot end anyone any more.

    The kernel sees to it on Linux, whatever this process does; a thread elsewhere.

    Args:
        parent: Process id, told by the parent itself: it may be gone before this is called.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os._exit(1)

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def stdout_for_results() -> Iterator[None]:
    """Sends to stderr what is written to stdout meanwhile, by Python or compiled code: for policies' own words."""
    sys.stdout.flush()
    kept = None
    with contextlib.suppress(OSError):  # stdout or stderr closed: nothing to keep apart
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)
