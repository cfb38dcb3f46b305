"""Every command that writes, on a disk that is read-only: one line that names the file, status 2, before long work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from report_logs import row, write_log, write_rows

from vla_gen_bench.episodes.suite import draw, load_suite

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "report DISK/log --out DISK/page.html": "page.html: cannot be written",
    "report DISK/log --out DISK/new/page.html": "page.html: cannot be written",
    "report DISK/log --plots DISK/plots": "rates.svg: cannot be written",
    "report DISK/log --out DISK/log": "log",
    "curves DISK/log --out DISK/curve.svg": "curve.svg: cannot be written",
    "merge DISK/log --out DISK/merged": "merged: ",
    "eval --policy hold --suite vision --episodes 1 --out DISK/run": "run: cannot write the log",
    "replay DISK/log ind/0/0 --out DISK/a.mp4": "a.mp4: cannot be written",
    "gallery --suite vision --out DISK/images": "vision-builtin.png: cannot be written",
    "suites preview vision --out DISK/sheet.png": "sheet.png: cannot be written",
    "leaderboard build --folder DISK/board": "leaderboard.csv: cannot be written",
    "leaderboard build --folder DISK/absent": "absent: cannot write there",
}
RUNNER = """
import contextlib, io, json, sys
from vla_gen_bench.cli import main
if __name__ == "__main__":
    for command in json.load(sys.stdin):
        sys.argv, code, stderr = ["vgb", *command.split()], None, io.StringIO()
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            try:
                main()
            except SystemExit as stop:
                code = stop.code
        print(json.dumps([code, stderr.getvalue()]), flush=True)
"""
MOUNT = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def read_only(disk: Path) -> list[str]:
    """Returns the start of a command that sees `disk` read-only: root may write wherever the disk can be written."""
    if os.geteuid():
        disk.chmod(0o555)
        return []
    start = ["unshare", "-m", "sh", "-c", MOUNT, str(disk)]
    if not shutil.which("unshare") or subprocess.run([*start, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount a folder read-only (unshare, mount), or a user who is not root")
    return start


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Command -> status and stderr. One process runs them all: heavy imports are paid once."""
    disk = tmp_path_factory.mktemp("disk")
    write_log(disk / "log", {"ind": [True, False], "unseen_table": [True, False]}, policy="p")
    spec = draw(load_suite("all").scenarios["ind"], "builtin", 0, 0)  # what `replay` compares
    others = [row("ind", 0, 1, False), row("unseen_table", 0, 0, True), row("unseen_table", 0, 1, False)]
    write_rows(disk / "log", [row("ind", 0, 0, True, spec_digest=spec.digest()), *others])
    (disk / "board/entries").mkdir(parents=True)
    (disk / "runner.py").write_text(RUNNER)
    start = read_only(disk)
    commands = [command.replace("DISK", str(disk)) for command in COMMANDS]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*start, sys.executable, str(disk / "runner.py")], input=json.dumps(commands), text=True,
                          capture_output=True, env=environment, timeout=600)  # fmt: skip
    assert not done.returncode, done.stderr
    return dict(zip(COMMANDS, (tuple(json.loads(line)) for line in done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_disk_is_named_in_one_line(answers: dict[str, tuple[int, str]], command: str) -> None:
    code, stderr = answers[command]
    *_, last = stderr.strip().splitlines()
    assert code == 2 and "Traceback" not in stderr
    assert last.lower().startswith("error: ") and COMMANDS[command] in last
