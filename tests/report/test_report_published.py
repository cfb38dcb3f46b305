"""`vgb report` on the published log: what it says, how long many logs take, what it imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from report_logs import REAL, flipped_copy


def test_the_published_log_reports(cli):
    text = cli("report", REAL).stdout
    assert re.search(r"Unseen receptacle +0\.984 \[0\.955, 0\.995\] 189/192", text)
    # semantics: five rows of 192, one of 189, one of 190: (5 * 192 + 189 + 190) / (7 * 192) = 0.99628
    assert "mean of 7 rows           0.996" in text and "Privileged" in text


def test_twenty_runs_within_five_seconds(cli_process, tmp_path):
    """The best of three, so that a busy machine does not decide."""
    folders = [flipped_copy(tmp_path / f"run{i}", f"policy{i}", 0.5 + 0.02 * i, seed=i) for i in range(20)]

    def spent() -> float:
        started = os.times()
        ran = cli_process("report", *folders)
        ended = os.times()
        assert ran.exit_code == 0 and ran.stdout.count("policy19") >= 2
        return ended.children_user + ended.children_system - started.children_user - started.children_system

    assert any(spent() <= 5 for _ in range(3)), "20 runs x 3,072 episodes took more than 5 s of CPU time, three times"


def test_report_imports_neither_torch_nor_the_simulator():
    code = f"""
import sys
from vla_gen_bench.cli import vgb
vgb.main(["report", {str(REAL)!r}], standalone_mode=False)
print(sorted({{"torch", "mani_skill", "sapien", "matplotlib"}} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
