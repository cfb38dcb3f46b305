"""Builds an `L1Head` from a continuous head's file, written by this project or by openvla-oft."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vla_gen_bench.policies.openvla.checkpoint.tensors import check_names, check_shapes
from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.policies.openvla.model.l1_head import L1Head

ACTION_HEAD_FILE = "action_head.safetensors"
ENTRY = "fc1.weight"
WRAPPINGS = ("module.", "model.")  # of distributed training, and of openvla-oft's L1RegressionActionHead


def l1_head_from(tensors: Mapping[str, Tensor], width: int, where: object = "action head") -> L1Head:
    """Builds the head from its tensors, this project's or openvla-oft's.

    Args:
        width: D of the language model.
        where: The file's name in messages.

    Raises:
        CheckpointError: A tensor is missing, unexpected or has the wrong shape.
    """
    own = {_unwrapped(name): tensor for name, tensor in tensors.items()}
    if ENTRY not in own or own[ENTRY].ndim != 2:
        raise CheckpointError(f"{where}: no matrix {ENTRY}; not the regression head of OpenVLA-OFT")
    with torch.device("meta"):
        head = L1Head(width, hidden=len(own[ENTRY]))
    expected = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    check_names(expected, own, (), where)
    check_shapes(expected, {name: tuple(tensor.shape) for name, tensor in own.items()}, where)
    head.load_state_dict(own, assign=True)
    return head


def _unwrapped(name: str) -> str:
    for prefix in WRAPPINGS:
        name = name.removeprefix(prefix)
    return name
