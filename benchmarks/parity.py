"""Prints how far the `rl4vla` world deviates from the recorded reference: `.venv/bin/python benchmarks/parity.py`.

The tests hold the world to tolerances; this prints the differences themselves, including contact. Needs recordings
and the assets (VGB_SHARED, default ../shared).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from vla_gen_bench import runtime

runtime.prepare()
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests" / room) for room in ("envs", "support")]

import test_parity_env as parity  # noqa: E402  the replay is the tests' own


def differences(case: parity.Case) -> dict[str, float]:
    """Returns the largest difference of each recorded quantity over the whole episode; 0 means bit-identical."""
    arrays, steps = case.arrays, case.column
    moved = {"qpos": ("qpos", 8), "pose_target": ("obj_source", 7), "pose_receptacle": ("obj_receptacle", 7)}
    found = {name: float(np.abs(steps(ours)[:, :n] - arrays[name][:, :n]).max()) for ours, (name, n) in moved.items()}
    settled = [
        np.abs(pose - np.array(case.meta["init"][parity.ROLES[role]])).max() for role, pose in case.start.items()
    ]
    flags = (("grasped_ever", "is_src_obj_grasped"), ("held_ever", "consecutive_grasp"), ("success", "success"))
    found["flags"] = float(sum((steps(ours) != arrays[theirs]).sum() for ours, theirs in flags))
    found["reward"] = float(np.abs(steps("reward") - arrays["reward"]).max())
    found["settled"] = float(max(settled))
    expected = case.file("")
    if expected is not None:
        found["first image"] = float(np.abs(case.picture.astype(int) - expected.astype(int)).max())
    return found


def main() -> None:
    os.environ.setdefault("VGB_RL4VLA_DIR", str(parity.shared("assets")))
    worst: dict[str, list[float]] = {}
    for path in parity.CASES:
        found = differences(parity.play(parity.Case(path)))
        print(
            f"{path.parent.name}/{path.stem}: "
            f"{', '.join(f'{k} {v:.1e}' for k, v in found.items() if v > 1e-7) or 'equal'}"
        )
        for name, value in found.items():
            worst.setdefault(name, []).append(value)
    print()
    for name, values in worst.items():
        equal = sum(value <= 1e-7 for value in values)  # recordings hold float32 values as float64
        print(f"{name:16} equal in {equal}/{len(values)} episodes, largest difference {max(values):.1e}")


if __name__ == "__main__":
    main()
