"""What runs a part: a command of its own process, here or as a Ray task; Ctrl-C, kills, and why it failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from living import alive, waited

from vla_gen_bench.runtime import usable_cores
from vla_gen_bench.study.engines import Local, in_a_study, reason, run_command, run_part
from vla_gen_bench.study.parts import Part

ROOT = Path(__file__).resolve().parents[2]
SLOW = """
import os, pathlib, time
pathlib.Path("began").write_text(str(os.getpid()))
try:
    time.sleep(120)
except KeyboardInterrupt:
    pathlib.Path("stopped").write_text("")
    raise
"""
COUNTS = """
import subprocess, sys
COUNT = "from vla_gen_bench.runtime import usable_cores; print('may use', usable_cores(), flush=True)"
exec(COUNT)
subprocess.run([sys.executable, "-c", COUNT])
"""
PARENT = """
from pathlib import Path
from vla_gen_bench.study.engines import run_command
run_command(["policies", "show", "slow:Policy"], Path("printed.txt"))
"""


def test_a_command_s_status_and_output_are_kept(tmp_path: Path) -> None:
    part = Part("a", "a", None, (), tmp_path / "out", tmp_path, ("suites", "show", "visoin"))
    ended = run_part(part, run_command)
    assert ended.code == 2 and ended.error.startswith("unknown suite 'visoin'")
    printed = (tmp_path / "printed.txt").read_text()
    assert printed.startswith("$ vgb suites show visoin\nerror: unknown suite 'visoin'")


@pytest.mark.parametrize(("cores", "expected"), [(None, usable_cores()), (1, 1), (4096, usable_cores())])
def test_a_command_uses_no_more_than_its_share_of_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int | None, expected: int
) -> None:
    """Also the processes that it starts; without a share, all that this process may use."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    (tmp_path / "counts.py").write_text(COUNTS)
    run_command(["policies", "show", "counts:Policy"], tmp_path / "printed.txt", cores)
    assert (tmp_path / "printed.txt").read_text().splitlines()[:2] == [f"may use {expected}"] * 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("r: holds a run whose recipe differs in 'x'; choose another --out or give --fresh", "differs in 'x'; REDO"),
        ("state.pt: cannot be read (x); remove it or give --fresh", "remove it or REDO"),
        ("the run learned in world a, this version simulates b; give --fresh", "simulates b; REDO"),
        ("a is 1, now 2; give another folder with --out, or --fresh to move it aside", "now 2; REDO"),
        (
            "suite digest is 1, now 2; use --out, or --fresh to move it aside (--fresh --reuse a keeps its b)",
            "now 2; REDO",
        ),
        ("row 3; give another folder with --out, or --fresh to move the log aside", "row 3; REDO"),
        ("rows without their run.json; give --fresh to move them aside, or --out", "without their run.json; REDO"),
        ("episode ind/0/0 in the log was drawn differently; use --out or --fresh", "drawn differently; REDO"),
        ("data: no such folder", "data: no such folder"),
    ],
)
def test_a_study_advises_what_a_study_can_do(error: str, expected: str) -> None:
    """`vgb study` has no --fresh, and its --out is another thing."""
    assert in_a_study(error, "train/a/0").endswith(expected.replace("REDO", "give vgb study --redo train/a/0"))
    assert "--fresh" not in in_a_study(error, "train/a/0")


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("loading\nerror: data: no such folder\n\n", 2, "data: no such folder"),
        ("error: of an earlier line\nTraceback ...\nRuntimeError: no\n", 1, "of an earlier line"),
        ("step 1\nValueError: wrong\n", 1, "ValueError: wrong"),
        ("step 1\n", -9, "killed by SIGKILL: out of memory?"),
        ("step 1\n", -15, "killed by SIGTERM"),
        ("", 3, "exit status 3"),
    ],
)
def test_why_a_command_failed_is_one_line(text: str, code: int, expected: str) -> None:
    assert reason(text, code) == expected


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_a_command_ends_with_its_study(tmp_path: Path, ending: signal.Signals) -> None:
    """Ctrl-C is passed on, so the command can finish what it writes; a killed study leaves nothing running."""
    (tmp_path / "slow.py").write_text(SLOW)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    default = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL, preexec_fn=default
    )
    began = tmp_path / "began"
    try:
        assert waited(lambda: began.exists() and began.read_text())
        child = int(began.read_text())
        parent.send_signal(ending)
        assert parent.wait(120) != 0
        assert waited(lambda: not alive(child))
        assert (tmp_path / "stopped").exists() == (ending == signal.SIGINT)
    finally:
        parent.kill()


def test_local_runs_one_part_at_a_time(tmp_path: Path) -> None:
    part = Part("train/a/0", "a", 0, (), tmp_path / "out", tmp_path / "notes", ("train",))
    engine = Local(lambda arguments, printed: 0 if arguments == ("train",) else 9)
    assert engine.free()
    engine.start(part)
    assert not engine.free() and engine.wait() == ("train/a/0", 0, "") and engine.free()


def test_parts_are_tasks_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real commands, in a real cluster of this machine: one works, one fails with its reason, one is interrupted."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'vla-gen-bench[ray]'")
    from vla_gen_bench.errors import UserError
    from vla_gen_bench.eval.cluster import Cluster
    from vla_gen_bench.study.ray_tasks import ray_engine

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # without --address, a cluster of its own
    Path("slow.py").write_text(SLOW)
    commands = {"a": ("suites", "show", "vision"), "b": ("suites", "show", "visoin")}
    commands["c"] = ("policies", "show", "slow:Policy")
    parts = [Part(name, name, None, (), Path(name), Path(f"notes-{name}"), words) for name, words in commands.items()]
    try:
        with ray_engine(Cluster(cpus=0.5)) as engine:
            for part in parts[:2]:
                engine.start(part)
            ended = {one.name: one for one in (engine.wait(), engine.wait())}
            engine.start(parts[2])
            assert waited(lambda: Path("began").exists() and Path("began").read_text())
            engine.stop()
    except UserError as error:
        if "cannot start" in str(error):
            pytest.skip(f"Ray cannot start here: {error}")
        raise
    assert Path("stopped").exists() and not alive(int(Path("began").read_text()))
    assert ended["a"].code == 0 and "Unseen table" in Path("notes-a/printed.txt").read_text()
    assert ended["b"].code == 2 and ended["b"].error.startswith("unknown suite 'visoin'")
