"""Sets environment variables that must exist before numpy, torch or SAPIEN are imported.

Every entry point calls `prepare()` first: the command line, worker processes, benchmarks. The user's values win.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator

from vla_gen_bench.errors import UserError, shown

DEFAULTS = {
    # Idle OpenMP threads sleep instead of spinning: spinning costs up to a factor of five when processes share cores.
    "OMP_WAIT_POLICY": "PASSIVE",
    # One rasteriser thread per process: frames are small, and parallelism comes from worker processes.
    "LP_NUM_THREADS": "1",
    # For worker processes: with one heap, loading and freeing textures fragments less; the peak is 30 MB lower.
    "MALLOC_ARENA_MAX": "1",
}

WATCH_S = 1.0
PR_SET_PDEATHSIG = 1  # of Linux' prctl
PARENT = "VGB_PARENT"  # id of the process that started this command and that it must not outlive
CORES = "VGB_CORES"  # how many cores this command and the processes it starts may use, where that is less than it sees

_NOISE = (
    # ManiSkill reports this on every machine without a GPU, whatever backend is requested later.
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
        alone: No other process computes at the same time, so OpenMP threads may spin briefly before they sleep. On
            two cores with two threads, openvla-nano then trains at 480 samples/s instead of 310.
    """
    asked_threads()
    for name, value in DEFAULTS.items():
        if name != "OMP_WAIT_POLICY" or not alone:
            os.environ.setdefault(name, value)
    if threads is not None:
        limit_threads(threads)
    quiet()


def limit_threads(threads: int) -> None:
    """Caps OpenMP, torch and OpenCV at `threads` in this process. A user's OMP_NUM_THREADS wins.

    Works before torch and OpenCV are imported (through the environment) and after (through the libraries themselves).
    """
    count = asked_threads()
    if count is None:
        count = threads
        os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", str(count))
    torch, opencv = sys.modules.get("torch"), sys.modules.get("cv2")
    if torch is not None:
        torch.set_num_threads(count)
    if opencv is not None:
        opencv.setNumThreads(count)


def asked_threads() -> int | None:
    """Returns the user's OMP_NUM_THREADS, None without one; raises `UserError` if it is no number of threads."""
    value = os.environ.get("OMP_NUM_THREADS", "").strip()
    first = value.split(",")[0].strip()  # it may be a list, one number per nesting level
    if value and not (first.isdecimal() and int(first) > 0):
        raise UserError(f"OMP_NUM_THREADS={shown(value)}: expected a number of threads, 1 or more; correct or unset it")
    return int(first) if value else None


def narrow_threads(threads: int) -> None:
    """Lowers torch's threads in this process to `threads`, never raises them; does nothing without torch."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(min(threads, torch.get_num_threads()))


def usable_cores() -> int:
    """Returns how many cores this process may use: those that the system gives it, or the share that `CORES` names."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get(CORES, "")
    return min(seen, max(1, int(share))) if share.isdecimal() else seen


def quiet() -> None:
    """Filters the log records that ManiSkill prints on every machine without a GPU."""
    logger = logging.getLogger("mani_skill ")  # The trailing space is ManiSkill's own.
    if not any(isinstance(known, _Quiet) for known in logger.filters):
        logger.addFilter(_Quiet())


# ---- processes ---------------------------------------------------------------------------------------------


class UserInterrupt(KeyboardInterrupt):
    """Ctrl-C after `catch_signals`, to distinguish it from a policy's own `raise KeyboardInterrupt`."""


class Terminated(UserInterrupt):
    """SIGTERM after `catch_signals`: a queue's limit, a preemption, `kill`."""


_RAISED = {signal.SIGINT: UserInterrupt, signal.SIGTERM: Terminated}


def catch_signals() -> None:
    """Makes Ctrl-C raise `UserInterrupt` in this process, and SIGTERM `Terminated`."""

    def interrupt(number: int, _: object) -> None:
        raise _RAISED[signal.Signals(number)]

    if threading.current_thread() is threading.main_thread():
        for number in _RAISED:
            if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
                signal.signal(number, interrupt)


def interrupted_status(error: BaseException | None) -> int:
    """Returns the exit status of a command that a signal interrupted: 128 and the signal's number, as in a shell."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


@contextlib.contextmanager
def starting_process() -> Iterator[None]:
    """Delays Ctrl-C and SIGTERM while a child process starts, whose interpreter would otherwise print a traceback.

    The child inherits the blocked signals. Blocking delays nothing here if another thread receives them (a progress bar
    has one), so a handler notes them until the end.
    """
    noted: list[int] = []
    handlers = {number: signal.getsignal(number) for number in _RAISED}
    main_thread = threading.current_thread() is threading.main_thread()
    swapped = {number: handler for number, handler in handlers.items() if main_thread and callable(handler)}
    for number in swapped:
        signal.signal(number, lambda number, _: noted.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _RAISED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in swapped.items():
            signal.signal(number, handler)
        if noted:
            signal.raise_signal(noted[0])


def begin_worker(parent: int) -> None:
    """Sets up a worker process: it ends with its parent, leaves Ctrl-C to the parent, and keeps stdout clean.

    Args:
        parent: Process id, passed by the parent because the parent may have ended before this call.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _RAISED)  # see `starting_process`
    end_with(parent)
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # signals that a terminal or `timeout` sends to the group go to the parent
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # stdout is for results; what policies and libraries print goes to stderr


def end_with(parent: int) -> None:
    """Ends this process when its parent ends, even by kill -9, after which the parent can clean up nothing.

    On Linux the kernel does this, whatever this process is doing; elsewhere a thread does.

    Args:
        parent: Process id, passed by the parent because the parent may have ended before this call.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os._exit(1)

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=watch, daemon=True).start()


def end_with_caller() -> None:
    """Calls `end_with` for the process that `PARENT` names, if any; the processes this one starts do not see it.

    That process passes Ctrl-C on, which this one then heeds even if it was started to ignore it, as by Ray.
    """
    parent = os.environ.pop(PARENT, "")
    if parent.isdecimal():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        end_with(int(parent))


@contextlib.contextmanager
def stdout_for_results() -> Iterator[None]:
    """Redirects stdout to stderr meanwhile, for Python and compiled code: keeps policies' output out of results."""
    sys.stdout.flush()
    kept = None
    with contextlib.suppress(OSError):  # stdout or stderr is closed: nothing to redirect
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Context without cyclic garbage collection, for work that builds many objects and few cycles.

    With the rows of 20 logs in memory every full pass looks at a million objects: a tenth of a report's time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def allow_open_files(count: int) -> None:
    """Raises this process's limit on open files to `count`, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
