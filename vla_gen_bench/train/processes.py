"""Several processes: one per GPU under torchrun or accelerate, or one per core on a CPU.

Each holds a copy of the model and a part of every batch; gradients are averaged. With one process, none of this runs.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from vla_gen_bench.errors import UserError
from vla_gen_bench.runtime import end_with

TIMEOUT = timedelta(hours=2)  # the others wait while the first one evaluates
LAUNCHER = "VGB_LAUNCHER"  # id of the process that started this one with `launch`


def own_moments(values: np.ndarray) -> tuple[float, float]:
    """Returns the mean and standard deviation; 0 and 0 if there are no values."""
    return (values.mean(), values.std()) if values.size else (0.0, 0.0)


@dataclass(frozen=True)
class Processes:
    """This process among all: `rank` of `count`, computing on `device`."""

    rank: int
    count: int
    device: torch.device

    def share(self, number: int, name: str, unit: int = 1) -> int:
        """Returns this process's part of `number`, which is divided in multiples of `unit`.

        Raises:
            UserError: It cannot be divided; the message begins with `name`.
        """
        if number % (self.count * unit):
            raise UserError(f"{name}: {number} cannot be shared out to {self.count} processes")
        return number // self.count

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def average(self, parameters: list[nn.Parameter]) -> None:
        """Averages gradients over all processes, in one flat message."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])  # one message costs less than many
        dist.all_reduce(flat)
        flat /= self.count
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean(self, value: Tensor) -> Tensor:
        """Returns the mean of a tensor over all processes."""
        if self.count == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.count

    def moments(self, values: np.ndarray) -> tuple[float, float]:
        """Returns the mean and standard deviation of all processes' values together; 0 and 0 if there are none.

        The number of values may differ between processes.
        """
        if self.count == 1:
            return own_moments(values)
        mine = torch.tensor([values.sum(dtype=np.float64), values.size], dtype=torch.float64, device=self.device)
        total, count = self.mean(mine).tolist()  # per process, like the squares below
        if not count:
            return 0.0, 0.0
        mean = total / count
        squares = torch.tensor(((values - mean) ** 2).sum(dtype=np.float64), dtype=torch.float64, device=self.device)
        return mean, math.sqrt(float(self.mean(squares)) / count)

    def wait(self) -> None:
        """Returns when all processes have reached this call."""
        if self.count > 1:
            dist.barrier()

    def shared(self, value: object) -> object:
        """Returns the first process's `value`."""
        box = [value]
        if self.count > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]


def join(device: str = "auto") -> Processes:
    """Joins processes of torchrun or accelerate, given by RANK, LOCAL_RANK and WORLD_SIZE; alone if these are unset.

    Raises:
        UserError: The device does not exist.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = _device(device)
    if LAUNCHER in os.environ:
        end_with(int(os.environ[LAUNCHER]))
    if count > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=TIMEOUT)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return Processes(rank, count, chosen)


def _device(name: str) -> torch.device:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if gpus else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: no such kind of device; give auto, cpu, cuda or cuda:N") from None
    if chosen.type not in ("cpu", "cuda") or (chosen.type == "cuda" and (chosen.index or 0) >= gpus):
        raise UserError(f"--device {name}: not there; torch sees {gpus} CUDA devices: give cpu, or see 'vgb doctor'")
    return chosen


def launch(count: int, arguments: list[str]) -> int:
    """Runs `python -m vla_gen_bench ARGUMENTS` in `count` processes on this machine; returns the exit status.

    Does what `torchrun --nproc-per-node` does, without its restarts.
    """
    import socket
    import subprocess
    import sys

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), LAUNCHER: str(os.getpid())}
    common = {**os.environ, **told}
    command = [sys.executable, "-m", "vla_gen_bench", *arguments]
    running = [
        subprocess.Popen(command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(count)
    ]
    try:
        return _first_failure(running)
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()


def _first_failure(running: list) -> int:
    """Returns when all are done or one fails; the remaining processes would wait for it forever."""
    import time

    while True:
        codes = [process.poll() for process in running]
        failed = [code for code in codes if code]
        if failed or None not in codes:
            return failed[0] if failed else 0
        time.sleep(0.2)
