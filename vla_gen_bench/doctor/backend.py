"""Chooses where an evaluation's physics runs: on CPU cores, or on a GPU with many episodes at once."""

from __future__ import annotations

import sys

from vla_gen_bench.doctor import checks, probe
from vla_gen_bench.errors import UserError, suggest

SIMULATIONS = {"cpu": "physx_cpu", "gpu": "physx_cuda"}
NUM_ENVS = {"cpu": 1, "gpu": 64}
"""Episodes side by side in a process, unless asked otherwise."""
CHOICES = ("auto", *SIMULATIONS)


def choose_backend(wanted: str, asked: str = "--backend gpu", instead: str = "use --backend cpu") -> str:
    """Returns "cpu" or "gpu"; "auto" is the GPU if torch, PhysX and the renderer can all use one.

    The GPU is tested in a separate process because drivers may crash; without a CUDA device that takes no time.

    Args:
        asked, instead: For the message: the option that requested a GPU, and how to do without one.

    Raises:
        UserError: An unknown choice, or "gpu" without a usable GPU.
    """
    if wanted not in CHOICES:
        raise UserError(f"backend '{wanted}'{suggest(wanted, CHOICES)}")
    problem = "" if wanted == "cpu" else gpu_problem()
    if wanted == "gpu" and problem:
        raise UserError(f"{asked}: {problem}; {instead}, or see 'vgb doctor'")
    if wanted == "auto" and problem and problem != NO_DEVICE:
        print(f"simulating on the CPU: {problem}", file=sys.stderr)
    return "cpu" if wanted == "cpu" or problem else "gpu"


NO_DEVICE = "there is no CUDA device"


def gpu_problem() -> str:
    """Returns why no GPU can simulate and render here, or ""."""
    if not probe.cuda_devices():
        return NO_DEVICE
    return checks.run_probe("gpu").get("error", "")
