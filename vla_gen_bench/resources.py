"""Locates the data folders `suites/`, `policies/` and `leaderboard/`."""

from __future__ import annotations

from pathlib import Path

from vla_gen_bench.errors import UserError

PACKAGE = Path(__file__).resolve().parent
CHECKPOINT = "checkpoint"  # the folder of weights in the folder of a training run or a policy


def data_dir() -> Path:
    """Returns the folder that holds `suites/`, `policies/` and `leaderboard/`.

    A checkout (or its editable install) keeps them at its top level; a wheel contains them in
    `vla_gen_bench/_data/`. Raises `UserError` if neither exists.
    """
    for folder in (PACKAGE.parent, PACKAGE / "_data"):
        if (folder / "suites" / "vision.yaml").is_file():
            return folder
    raise UserError(f"no suites/ beside {PACKAGE} nor in {PACKAGE / '_data'}; reinstall vla-gen-bench")
