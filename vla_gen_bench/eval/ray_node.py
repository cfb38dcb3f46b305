"""What every actor does first on its node: compare the node with the machine that runs the command."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import ray

from vla_gen_bench.errors import UserError

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


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Returns the first entry of `SAME` that differs between two nodes, "" for none."""
    for name in SAME:
        if ours.get(name) != theirs.get(name):
            return f"has {name} {theirs.get(name)}, this command {ours.get(name)}"
    return ""


def admit(ours: dict[str, Any], world: str, folder: str, threads: int) -> None:
    """Prepares an actor's process; raises `UserError` if its node differs from `ours`.

    Args:
        ours: `identity` on the machine that runs the command.
        folder: The command's working directory; entered if it exists, so relative paths resolve the same way.
    """
    from vla_gen_bench import runtime

    enter(folder)
    runtime.prepare(threads)
    differs = difference(ours, identity(world))
    if differs:
        raise UserError(f"{differs}; install the same on all nodes")


def enter(folder: str) -> None:
    """Makes `folder` the working directory if it exists."""
    if os.path.isdir(folder):
        os.chdir(folder)


def node() -> str:
    """Returns the address of this node."""
    return ray.util.get_node_ip_address()
