"""The request for a Ray cluster (`--engine ray`), and what fits on its nodes.

Plain data, so Ray is imported only when needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vla_gen_bench.errors import UserError

Resources = Mapping[str, float]
"""Amounts by Ray's names, "CPU" and "GPU"; what is absent is 0."""

SHOWN_NODES = 4
SLACK = 1e-6  # Ray counts in units of 1/10,000


@dataclass(frozen=True)
class Cluster:
    """Where to run, and the resources each worker, or each part of a study, requests from a node.

    Attributes:
        address: HOST:PORT of the cluster's head; "auto" for the cluster this machine belongs to; None for a temporary
            cluster on this machine, for the duration of the command.
        cpus, gpus: Per simulator; fractions share a device. A policy actor takes as many CPUs.
        hosts: Number of policy actors; 0 = each simulator has its own policy.
        host_gpus: GPUs of each policy actor.
        batch: Maximum number of observations a policy actor computes at once.
        wait_s: How long to wait for a cluster that is not up, too small or busy.
        unit: What requests `cpus` and `gpus`, in messages and options: "worker", or "part" of a study.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    hosts: int = 0
    host_gpus: float = 0.0
    batch: int = 64
    wait_s: float = 0.0
    unit: str = "worker"

    def __post_init__(self) -> None:
        """Raises `UserError` for what no node can give."""
        names = {"cpus": f"--num-cpus-per-{self.unit}", "gpus": f"--num-gpus-per-{self.unit}"}
        for field, option in {**names, "host_gpus": "--num-gpus-per-policy"}.items():
            amount = getattr(self, field)
            if amount > 1 and amount != int(amount):
                raise UserError(f"{option} {amount:g}: above 1 expected a whole number; only a part of one is shared")
        if self.host_gpus and not self.hosts:
            raise UserError("--num-gpus-per-policy is for policy actors; give --policy-actors too")

    @property
    def threads(self) -> int:
        """Compute threads of each actor."""
        return max(1, int(self.cpus))

    @property
    def worker(self) -> Resources:
        """What a simulator requests."""
        return _requested(self.cpus, self.gpus)

    @property
    def policy_actor(self) -> Resources:
        """What a policy actor requests."""
        return _requested(self.cpus, self.host_gpus)

    def bundles(self, workers: int) -> list[Resources]:
        """Returns the requests of all policy actors and of `workers` simulators, without those that request nothing."""
        return [bundle for bundle in [self.policy_actor] * self.hosts + [self.worker] * workers if bundle]


@dataclass(frozen=True)
class Node:
    """A node of a cluster.

    Attributes:
        name: Its address.
        resources: What it has in total.
    """

    name: str
    resources: Resources


def has_ray() -> bool:
    """Returns whether Ray is installed."""
    try:
        import ray  # noqa: F401
    except ImportError:
        return False
    return True


def need_ray() -> None:
    """Raises `UserError` if Ray is not installed."""
    if not has_ray():
        raise UserError("--engine ray: Ray is not installed; pip install 'vla-gen-bench[ray]'")


def fitting(cluster: Cluster, nodes: Sequence[Node]) -> int:
    """Returns how many workers fit on the nodes beside the policy actors; 0 if these alone do not fit."""
    rooms = [dict(node.resources) for node in nodes]
    for _ in range(cluster.hosts):
        fits = [room for room in rooms if _copies(room, cluster.policy_actor)]
        if not fits:
            return 0
        chosen = max(fits, key=lambda room: (room.get("GPU", 0), room.get("CPU", 0)))
        for name, amount in cluster.policy_actor.items():
            chosen[name] -= amount
    return sum(_copies(room, cluster.worker) for room in rooms)


def _copies(room: Resources, wanted: Resources) -> int:
    """Returns how often `wanted` fits; requests of nothing count as one CPU."""
    return min(int((room.get(name, 0) + SLACK) / amount) for name, amount in (wanted or {"CPU": 1.0}).items())


def too_small(cluster: Cluster, workers: int, nodes: Sequence[Node]) -> str:
    """Returns why `workers` do not fit on the nodes, and what to do."""
    described = [f"{node.name}: {_described(node.resources)}" for node in nodes[:SHOWN_NODES]]
    described += [f"{len(nodes) - SHOWN_NODES} more"] * (len(nodes) > SHOWN_NODES)
    fits = fitting(cluster, nodes)
    return (
        f"the cluster is too small: {_wanted(cluster, workers)} do not fit on its nodes ({'; '.join(described)}), "
        f"{fits if fits else 'no'} {cluster.unit}{'s' * (fits != 1)} would; request fewer or smaller ones, or give "
        "--wait-for-nodes SECONDS if nodes are to join"
    )


def too_busy(cluster: Cluster, workers: int, free: Resources, waited_s: float) -> str:
    """Returns that `workers` would fit if others did not use the nodes, and what to do."""
    return (
        f"the cluster is busy: {_wanted(cluster, workers)} would fit, but after {waited_s:g} s only {_described(free)} "
        "of all nodes are free; end other jobs, request fewer, or give --wait-for-nodes SECONDS"
    )


def _wanted(cluster: Cluster, workers: int) -> str:
    wanted = f"{workers} {cluster.unit}{'s' * (workers != 1)} of {_described(cluster.worker)} each"
    if cluster.hosts:
        actors = f"{cluster.hosts} policy actor{'s' * (cluster.hosts != 1)}"
        wanted += f" and {actors} of {_described(cluster.policy_actor)} each"
    return wanted


def _described(resources: Resources) -> str:
    amounts = [f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU") if resources.get(name)]
    return " and ".join(amounts) or "0 CPU"


def _requested(cpus: float, gpus: float) -> Resources:
    return {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
