"""Imports packages of the extra `vla` lazily, with an error that names the install command."""

from __future__ import annotations

import importlib
from types import ModuleType

from vla_gen_bench.policies.openvla.config import CheckpointError


def need(module: str) -> ModuleType:
    """Returns `module` imported; raises `CheckpointError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise CheckpointError(f"OpenVLA needs {error.name}: pip install 'vla-gen-bench[vla]'") from None
