"""Worker processes end with their parent, keep off its stdout, and report a policy that ends them as its mistake."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from living import alive, waited
from sim import spec_of

from vla_gen_bench import runtime
from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.workers import Job, Runner, WorkerConfig, WorkerPool, _Worker
from vla_gen_bench.log.video import write_video
from vla_gen_bench.policies.contract import PolicyError, check_policy, describe_failure
from vla_gen_bench.policies.factory import import_factory
from vla_gen_bench.policies.registry import load_policy
from vla_gen_bench.protocol import ActionSpec

PARENT = """
import os, subprocess, sys, time
code = "import os, sys; from vla_gen_bench.runtime import begin_worker; begin_worker(os.getppid()); print('on');{work}"
child = subprocess.Popen([sys.executable, "-c", code], stderr=sys.stdout)
print(child.pid, flush=True)
time.sleep(60)
"""
BUSY = "sys.stderr.flush(); sys.stdout.flush(); sys.setswitchinterval(100)\\nwhile True: pass"  # lets no thread run


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_busy_worker_ends_with_its_parent(ending: signal.Signals) -> None:
    code = PARENT.replace("{work}", BUSY)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "on\n"  # what it prints goes to stderr, here the same pipe
        assert os.getpgid(child) == child != os.getpgid(parent.pid)
        assert alive(child)
        parent.send_signal(ending)
        assert waited(lambda: not alive(child), 10)


@pytest.fixture
def heeds_signals() -> Iterator[None]:
    """A process that a shell starts in the background ignores SIGINT, and so do its children."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runtime.catch_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heeds_signals")
@pytest.mark.parametrize(
    "number, raised", [(signal.SIGINT, runtime.UserInterrupt), (signal.SIGTERM, runtime.Terminated)]
)
@pytest.mark.parametrize("threads", [0, 1])
def test_a_signal_waits_while_a_process_starts(number: signal.Signals, raised: type, threads: int) -> None:
    """Of several threads, as of a progress bar, one that blocks nothing receives the signal."""
    handler, reached, end = signal.getsignal(number), [], threading.Event()
    others = [threading.Thread(target=end.wait, daemon=True) for _ in range(threads)]
    [thread.start() for thread in others]
    try:
        with pytest.raises(raised) as caught:
            with runtime.starting_process():
                os.kill(os.getpid(), number)
                blocked = subprocess.run(["grep", "SigBlk", "/proc/self/status"], capture_output=True, text=True).stdout
                reached.append(int(blocked.split()[1], 16) & (1 << (number - 1)))
    finally:
        end.set()
    assert caught.type is raised
    assert reached and reached[0]  # so a new process starts with it held
    assert signal.getsignal(number) is handler


@pytest.mark.usefixtures("heeds_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_signal_a_start_leaves_no_trace(number: signal.Signals) -> None:
    handler = signal.getsignal(number)
    with runtime.starting_process():
        pass
    assert signal.getsignal(number) is handler
    assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        runtime.catch_signals()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_is_printed_meanwhile_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with runtime.stdout_for_results():
        print("by python")
        os.write(1, b"by a library\n")
    print("result")
    found = capfd.readouterr()
    assert found.out == "result\n" and "by python" in found.err and "by a library" in found.err


# ---- policies that end their process ---------------------------------------------------------------------------------


class Fine:
    action_spec = ActionSpec()

    def reset(self, instructions: list[str], seeds: list[int]) -> None:
        self.batch = len(instructions)

    def act(self, observation: Any) -> Any:
        return self.answer(np.zeros((self.batch, 1, 7), np.float32))

    def answer(self, actions: np.ndarray) -> Any:
        return actions


class UnwritableError(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)


def raising(error: BaseException) -> Any:
    def answer(actions: np.ndarray) -> Any:
        raise error

    return answer


HOSTILE = {
    "sys.exit(0)": (raising(SystemExit(0)), "act() raised SystemExit: 0"),
    "os._exit(0)": (lambda actions: os._exit(0), "act() raised SystemExit: os._exit(0)"),
    "Ctrl-C of its own": (raising(KeyboardInterrupt()), "act() raised KeyboardInterrupt (test_processes.py"),
    "GeneratorExit": (raising(GeneratorExit()), "act() raised GeneratorExit"),
    "a huge message": (raising(ValueError("x\n" * 10**6)), "act() raised ValueError: x x x"),
    "a message that cannot be written": (raising(UnwritableError()), "UnwritableError: its message cannot be written"),
    "terminal escapes": (raising(ValueError("\x1b[2J")), r"ValueError: \x1b[2J"),
    "a masked array": (lambda actions: np.ma.masked_array(actions, mask=True), "returned a masked array"),
    "a dtype of 5,000 fields": (lambda actions: np.zeros(3, [(f"f{i}", "f4") for i in range(5000)]), "returned [('f0'"),
    "32 dimensions": (lambda actions: np.zeros((1,) * 32, np.float32), "returned float32 [1, 1"),
    "another byte order": (lambda actions: actions.astype(">f4"), "returned >f4 [1, 1, 7]"),
    "nothing": (lambda actions: None, "returned NoneType"),
    "a class": (lambda actions: np.ndarray, "returned type"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_ends_a_check_is_reported_as_the_policy_s_mistake(name: str) -> None:
    policy, (answer, message) = Fine(), HOSTILE[name]
    policy.answer = answer
    (*_, last) = check_policy(policy, "policy 'x'")
    assert last.status == "failed" and message in last.detail
    assert len(last.detail) < 600 and last.detail.isprintable()


def test_a_user_s_ctrl_c_is_not_the_policy_s() -> None:
    policy = Fine()
    policy.answer = raising(runtime.UserInterrupt())
    with pytest.raises(runtime.UserInterrupt):
        check_policy(policy, "policy 'x'")


@pytest.mark.parametrize("ending", ["sys.exit(0)", "os._exit(0)", "raise KeyboardInterrupt"])
def test_a_module_and_a_factory_that_end_the_process_are_named(tmp_path: Path, monkeypatch, ending: str) -> None:
    monkeypatch.chdir(tmp_path)
    module = f"ending_{abs(hash(ending))}"
    Path(f"{module}.py").write_text(f"import os, sys\ndef make(): {ending}\nif os.path.exists('now'): {ending}\n")
    with pytest.raises(PolicyError, match=f"{module}:make raised (SystemExit|KeyboardInterrupt)"):
        load_policy(f"{module}:make")
    del sys.modules[module]
    Path("now").touch()
    with pytest.raises(UserError, match=f"cannot import '{module}:make': (SystemExit|KeyboardInterrupt)"):
        import_factory(f"{module}:make", "policy 'x'")


def test_an_action_spec_that_ends_the_process_is_named() -> None:
    class Odd(Fine):
        @property
        def action_spec(self) -> ActionSpec:
            sys.exit(0)

    (result,) = check_policy(Odd(), "policy 'x'")
    assert result.status == "failed" and "action_spec: SystemExit: 0" in result.detail


def test_an_error_without_words_has_no_colon() -> None:
    assert describe_failure(KeyboardInterrupt()) == "KeyboardInterrupt"


# ---- what workers tell -----------------------------------------------------------------------------------------------


def worker_that_says(*messages: Any) -> _Worker:
    ours, theirs = Pipe()
    for message in messages:
        theirs.send(message)
    process = SimpleNamespace(kill=lambda: None, join=lambda timeout: None, exitcode=-9)
    worker = _Worker(0, process, ours, limit_s=1000.0)
    worker.theirs = theirs  # kept open
    return worker


def pool_of(worker: _Worker, results: list | None = None, **config: Any) -> WorkerPool:
    pool = WorkerPool(WorkerConfig("hold", {}, "builtin", 5, **config), 1, lambda info: None)
    pool._queue, pool._tries, pool._workers = deque(), {}, [worker]
    pool._on_result = (results if results is not None else []).append
    return pool


def test_the_time_limit_bounds_the_first_actions_and_names_them() -> None:
    worker = worker_that_says(("phase", (0.2, "policy 'x': reset() and act() on an example observation")))
    pool = pool_of(worker)
    pool._turn()
    assert (worker.limit_s, worker.ready) == (0.2, False)
    worker.started -= 1
    with pytest.raises(UserError, match="act.. on an example observation took more than 0.2 s; raise --time-limit"):
        pool._turn()


def test_a_sign_of_life_puts_the_limit_off_and_hands_out_nothing() -> None:
    worker = worker_that_says(("alive", None))
    worker.ready, worker.jobs, worker.started = True, [Job(("ind", 0, 0), spec_of())], time.monotonic() - 100
    pool = pool_of(worker, time_limit_s=50.0)
    pool._turn()
    assert worker.idle_s < 5 and worker.jobs


def test_episodes_whose_video_cannot_be_written_are_kept_and_the_run_stops() -> None:
    worker, results = worker_that_says(("full", ([({"status": "ok"}, "packed")], "v/a.mp4: cannot be written"))), []
    worker.ready, worker.jobs = True, [Job(("ind", 0, 0), spec_of())]
    with pytest.raises(UserError, match="v/a.mp4: cannot be written; finished episodes are in the log: make room"):
        pool_of(worker, results)._turn()
    assert results[0].row == {"status": "ok"} and results[0].actions == "packed"


def test_a_worker_tells_of_a_video_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(path: str, frames: Any, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    episode = SimpleNamespace(row={"success_at_end": False}, actions=np.zeros((2, 7), np.float32), frames=[])
    monkeypatch.setattr("vla_gen_bench.eval.rollout.run_episodes", lambda *args, **more: [episode])
    monkeypatch.setattr("vla_gen_bench.log.video.write_video", full)
    config = WorkerConfig("hold", {}, "builtin", 5, record="all", videos=str(tmp_path))
    runner = Runner(config, SimpleNamespace(privileged=False), None, None, Pipe()[0])
    kind, (done, problem) = runner.run([Job(("ind", 0, 0), spec_of())])
    assert kind == "full" and done[0][0] == episode.row
    assert problem == f"{tmp_path}/ind-0-0-failure.mp4: cannot be written (No space left on device)"


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), ValueError("x")])
def test_what_ends_an_episode_fails_it(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr("vla_gen_bench.eval.rollout.run_episodes", lambda *args, **more: raising(error)(None))
    runner = Runner(WorkerConfig("hold", {}, "builtin", 5), SimpleNamespace(privileged=False), None, None, Pipe()[0])
    kind, message = runner.run([Job(("ind", 0, 0), spec_of())])
    assert kind == "failed" and message.startswith(type(error).__name__)


def test_a_video_that_does_not_fit_leaves_nothing_and_names_itself(tmp_path: Path) -> None:
    frames = list(np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), np.uint8))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            write_video(tmp_path / "a.mp4", frames, "put a on b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path / "a.mp4") and caught.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_a_video_that_cannot_be_written_leaves_an_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path, frames: Any, text: str) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.mp4").write_bytes(b"earlier")
    monkeypatch.setattr("vla_gen_bench.log.video._encode", fails)
    with pytest.raises(OSError, match="No space"):
        write_video(tmp_path / "a.mp4", [], "")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.mp4": b"earlier"}


# ---- the command -----------------------------------------------------------------------------------------------------

TALKER = """
import os, time
import numpy as np
from vla_gen_bench.policies import ActionSpec
print("imported")
class Talker:
    action_spec = ActionSpec()
    def __init__(self): os.write(1, b"made")
    def reset(self, instructions, seeds): self.batch = len(instructions)
    def act(self, observation):
        print("acting", flush=True)
        return np.zeros((self.batch, 1, 7), np.float32)
class Slow(Talker):
    def act(self, observation): time.sleep(600)
"""
SUITE = """
id: short
version: "1"
protocol: {episodes_per_seed: 1, seeds: [0], horizon: 2}
scenarios: {ind: {label: IND, dimension: ind}}
"""


def test_the_output_for_machines_is_json_alone_and_a_slow_first_action_is_named(cli_process, tmp_path: Path) -> None:
    (tmp_path / "talker.py").write_text(TALKER)
    (tmp_path / "short.yaml").write_text(SUITE)
    where = ("--suite", "short.yaml", "--out", "log", "--json")
    done = cli_process("eval", "--policy", "talker:Talker", *where, cwd=tmp_path)
    assert done.exit_code == 0 and json.loads(done.stdout)["scenarios"]["ind"]["episodes"] == 1
    assert "imported" in done.stderr and "acting" in done.stderr
    done = cli_process("eval", "--policy", "talker:Slow", "--fresh", "--time-limit", "1", *where, cwd=tmp_path)
    assert done.exit_code == 2 and done.stdout == ""
    assert "reset() and act() on an example observation took more than 1 s" in done.stderr.splitlines()[-1]


START = """
import os, signal, sys
sys.argv, sys.orig_argv = [{name!r}], ["python", {name!r}, {module!r}]
import vla_gen_bench
print(signal.getsignal(signal.SIGINT) == signal.SIG_DFL)
from vla_gen_bench import runtime
runtime.catch_signals()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt as error:
    print(type(error).__name__)
"""


@pytest.mark.usefixtures("heeds_signals")
@pytest.mark.parametrize(
    "name, module, quiet",
    [
        ("/usr/bin/vgb", "", True),
        ("-m", "vla_gen_bench", True),
        ("-m", "theirs", False),
        ("/home/me/notebook.py", "", False),
    ],
)
def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_traceback(name: str, module: str, quiet: bool) -> None:
    code = START.format(name=name, module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [str(quiet), "UserInterrupt"]


@pytest.mark.parametrize("early", [True, False], ids=["before the imports", "after them"])
@pytest.mark.parametrize("given, expected", [("", 1), ("2,1", 2)], ids=["as asked", "the user's wins"])
def test_a_worker_keeps_its_libraries_to_its_threads(early, given, expected):
    cap, load = "runtime.limit_threads(1)", "import cv2, torch"
    code = "; ".join(["from vla_gen_bench import runtime", *((cap, load) if early else (load, cap))])
    code += "; print(torch.get_num_threads(), cv2.getNumThreads())"
    ours = ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    environment = clean | ({"OMP_NUM_THREADS": given} if given else {})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(expected)] * 2
