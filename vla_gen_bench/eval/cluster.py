"""The cluster request of `vgb eval --engine ray`. Plain data, so Ray is imported only when needed."""

from __future__ import annotations

from dataclasses import dataclass

from vla_gen_bench.errors import UserError


@dataclass(frozen=True)
class Cluster:
    """Where to run, and the resources each worker requests from a node.

    Attributes:
        address: HOST:PORT of the cluster's head; "auto" for the cluster this machine belongs to; None for a temporary
            cluster on this machine, for the duration of the command.
        cpus, gpus: Per simulator; fractions share a device. A policy actor takes as many CPUs.
        hosts: Number of policy actors; 0 = each simulator has its own policy.
        host_gpus: GPUs of each policy actor.
        batch: Maximum number of observations a policy actor computes at once.
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
    """Raises `UserError` if Ray is not installed."""
    try:
        import ray  # noqa: F401
    except ImportError:
        raise UserError("--engine ray: Ray is not installed; pip install 'vla-gen-bench[ray]'") from None
