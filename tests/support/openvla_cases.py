"""The recorded outputs of the reference's models, which a clone does not carry."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_gen_bench.policies.openvla.checkpoint.tensors import open_checkpoint
from vla_gen_bench.policies.openvla.model.value import ValueHead, value_head_from
from vla_gen_bench.policies.openvla.model.vla import OpenVLA

SHARED = Path(os.environ.get("VGB_SHARED", Path(__file__).resolve().parents[3] / "shared"))
CASES = SHARED / "parity" / "openvla"


@lru_cache(maxsize=None)
def recorded(case: str) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(CASES / case / "case.npz").items()}


def extra(case: str) -> dict[str, Any]:
    return json.loads((CASES / case / "extra.json").read_text())


def value_head(case: str, model: OpenVLA) -> ValueHead:
    files = open_checkpoint(CASES / case)
    return value_head_from({name: files.read(name, torch.float32) for name in files.entries}, model.config.text.width)
