"""What `vgb eval --engine ray` asks of a cluster; plain data, so that nothing imports Ray before it is wanted."""

from __future__ import annotations

from dataclasses import dataclass

from vla_gen_bench.errors import UserError


@dataclass(frozen=True)
class Cluster:
    """Where to run, and what a worker asks of a node.

    Attributes:
        address: HOST:PORT of the cluster's head, "auto" for the one this machine is a node of; None = a cluster of this
            machine alone, for as long as the command runs.
        cpus, gpus: Of each simulator; fractions share. A policy actor takes as many CPUs.
        hosts: Policy actors; 0 = every simulator has a policy of its own.
        host_gpus: GPUs of each policy actor.
        batch: Most observations a policy actor computes at once.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    hosts: int = 0
    host_gpus: float = 0.0
    batch: int = 64

    @property
    def threads(self) -> int:
        """Compute threads of each actor."""
        return max(1, int(self.cpus))


def need_ray() -> None:
    """Raises `UserError` where Ray is not installed."""
    try:
        import ray  # noqa: F401
    except ImportError:
        raise UserError("--engine ray: Ray is not installed; pip install 'vla-gen-bench[ray]'") from None
