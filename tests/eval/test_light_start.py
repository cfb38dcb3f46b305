"""The starting command leaves the simulator and the model to its workers."""

from __future__ import annotations

import subprocess
import sys


def test_the_starting_command_imports_neither_torch_nor_a_simulator() -> None:
    """They take two seconds; only workers need them."""
    code = (
        "import sys, vla_gen_bench.cli.eval, vla_gen_bench.eval.evaluate, vla_gen_bench.eval.workers\n"
        "print(sorted({'torch', 'mani_skill', 'sapien', 'gymnasium'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
