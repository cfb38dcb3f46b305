"""What every actor does first on its node: compare the node with the machine that runs the command."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.identity import policy_digests
from vla_gen_bench.policies.registry import resolve

POLICY = "policy"
POLICY_PARTS = {"digest": "card and code", "checkpoint": "checkpoint", "files": "files of its options"}
SAME = ("vla-gen-bench", "code", "ray", "python", "mani_skill", "sapien", "pack")  # what must be equal on every node


def identity(world: str) -> dict[str, Any]:
    """Returns what determines a node's results: versions, digests of this package's code and of the world's files."""
    from vla_gen_bench.assets.pack import open_pack
    from vla_gen_bench.episodes.spec import digest_of
    from vla_gen_bench.log import provenance
    from vla_gen_bench.policies.digests import file_digests

    package = Path(__file__).resolve().parents[1]
    code = {name: digest for name, digest in file_digests(package).items() if name.endswith(".py")}
    found = {**provenance.versions(), "code": digest_of(code), "pack": open_pack(world).digest}
    minor = ".".join(platform.python_version_tuple()[:2])  # patch versions may differ
    return {**found, "python": minor, "ray": ray.__version__}


def identity_with_policy(world: str, policy: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `identity`, and what determines how a policy acts here: digests of its card, code and weights."""
    return identity(world) | {POLICY: policy_digests(resolve(policy), options)}


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Returns what of `SAME`, or of a policy that both know, first differs between two nodes; "" for nothing."""
    for name in SAME:
        if ours.get(name) != theirs.get(name):
            return f"has {name} {theirs.get(name)}, this command {ours.get(name)}"
    return _policy_difference(ours[POLICY], theirs[POLICY]) if POLICY in ours and POLICY in theirs else ""


def _policy_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    for name in (*ours, *(name for name in theirs if name not in ours)):
        if ours.get(name) != theirs.get(name):
            what = POLICY_PARTS.get(name, name)
            return f"has another policy under this name: {what} {theirs.get(name)}, this command {ours.get(name)}"
    return ""


def admit(
    ours: dict[str, Any], world: str, folder: str, threads: int, policy: tuple[str, Mapping[str, Any]] | None = None
) -> None:
    """Prepares an actor's process; raises `UserError` if its node differs from `ours`.

    Args:
        ours: `identity` on the machine that runs the command, or `identity_with_policy`.
        folder: The command's working directory; entered if it exists, so relative paths resolve the same way.
        policy: Name and options of the policy that the actor loads; None = it loads none.
    """
    from vla_gen_bench import runtime

    enter(folder)
    runtime.prepare(threads)
    differs = difference(ours, identity_with_policy(world, *policy) if policy else identity(world))
    if differs:
        raise UserError(f"{differs}; install the same on all nodes")


def enter(folder: str) -> None:
    """Makes `folder` the working directory if it exists."""
    if os.path.isdir(folder):
        os.chdir(folder)


def node() -> str:
    """Returns the address of this node."""
    return ray.util.get_node_ip_address()
