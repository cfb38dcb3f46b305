"""A Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from vla_gen_bench.bench.ray_nodes import local_nodes
from vla_gen_bench.errors import UserError

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read when Ray is imported: nodes are at 127.0.0.1


def need_ray() -> Any:
    """Returns the package; skips the test if it is not installed."""
    return pytest.importorskip("ray", reason="needs Ray: pip install 'vla-gen-bench[ray]'")


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Yields a cluster of two nodes of one CPU each; skips the test if Ray is not installed or does not start."""
    need_ray()
    with ExitStack() as stack:
        try:
            nodes = stack.enter_context(local_nodes(2, folders=(Path(__file__).parent,)))
        except UserError as error:  # a machine on which Ray's processes do not come up
            pytest.skip(str(error))
        yield nodes
