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

    def __post_init__(self) -> None:
        """Raises `UserError` for what no node can give."""
        names = {"cpus": "--num-cpus-per-worker", "gpus": "--num-gpus-per-worker", "host_gpus": "--num-gpus-per-policy"}
        for field, option in names.items():
            amount = getattr(self, field)
            if amount > 1 and amount != int(amount):
                raise UserError(f"{option} {amount:g}: above 1 expected a whole number; only a part of one is shared")
        if self.host_gpus and not self.hosts:
            raise UserError("--num-gpus-per-policy is for policy actors; give --policy-actors too")

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
