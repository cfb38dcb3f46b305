"""Writes checkpoints in Hugging Face layout: config.json, safetensors in one file or shards, the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vla_gen_bench.policies.openvla.checkpoint.action_head import ACTION_HEAD_FILE
from vla_gen_bench.policies.openvla.checkpoint.config_file import CONFIG_FILE, config_fields
from vla_gen_bench.policies.openvla.checkpoint.extras import need
from vla_gen_bench.policies.openvla.checkpoint.loading import VALUE_FILE, VALUE_SOURCE
from vla_gen_bench.policies.openvla.checkpoint.tensors import INDEX_FILE, SINGLE_FILE
from vla_gen_bench.policies.openvla.checkpoint.tokenizer import TOKENIZER_FILE, PromptTokenizer
from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.policies.openvla.model.l1_head import L1Head
from vla_gen_bench.policies.openvla.model.lora import adapted
from vla_gen_bench.policies.openvla.model.value import ValueHead
from vla_gen_bench.policies.openvla.model.vla import OpenVLA

SHARD_BYTES = 7_000_000_000  # of `openvla/openvla-7b`


def save(
    folder: Path,
    model: OpenVLA,
    tokenizer: PromptTokenizer | None = None,
    value_head: ValueHead | None = None,
    action_head: L1Head | None = None,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a checkpoint that `loading.load` reads, including the dead tensors loaded with the model.

    Args:
        dtype: Type of the stored weights; None = the model's.
        shard_bytes: More than this is split into several files.

    Raises:
        CheckpointError: A weight is not finite; the model has an unmerged adapter (`adapters.save_adapter` writes
            that); its config has head: l1 without a head, or the reverse. Nothing is written in these cases.
    """
    save_file = need("safetensors.torch").save_file
    _check_saveable(model, action_head)
    tensors = {name: _stored(tensor, dtype) for name, tensor in {**model.state_dict(), **model.dead}.items()}
    values = _stored_state(value_head) if value_head is not None else {}
    actions = _stored_state(action_head, dtype) if action_head is not None else {}
    check_finite({**tensors, **values, **actions}, str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("model*.safetensors*"), *folder.glob(ACTION_HEAD_FILE)):
        old.unlink()
    shards = _shards(tensors, shard_bytes)
    if len(shards) == 1:
        save_file(tensors, folder / SINGLE_FILE, metadata={"format": "pt"})
    else:
        _save_shards(folder, tensors, shards)
    (folder / CONFIG_FILE).write_text(json.dumps(config_fields(model.config), indent=2) + "\n", encoding="utf-8")
    if tokenizer is not None:
        tokenizer.backend.save(str(folder / TOKENIZER_FILE))
    if value_head is not None:
        # One key only: safetensors writes several in random order, and equal weights would get different digests.
        save_file(values, folder / VALUE_FILE, metadata={VALUE_SOURCE: value_head.source})
    if action_head is not None:
        save_file(actions, folder / ACTION_HEAD_FILE, metadata={"format": "pt"})


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raises `CheckpointError` for the first tensor with a value that is not finite, before anything is written."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{where}: not written: {name} has values that are not finite; training diverged")


def _check_saveable(model: OpenVLA, action_head: L1Head | None) -> None:
    if adapted(model):
        raise CheckpointError("the model has an unmerged adapter: merge it, or save the adapter alone")
    if (model.config.acting.head == "l1") != (action_head is not None):
        given = "none is given" if action_head is None else "one is given"
        raise CheckpointError(f"the model's config says head: {model.config.acting.head}, and {given} to be saved")


def _save_shards(folder: Path, tensors: Mapping[str, Tensor], shards: list[list[str]]) -> None:
    save_file = need("safetensors.torch").save_file
    places = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
        places |= {name: file for name in names}
    index = {"metadata": {"total_size": sum(map(_size, tensors.values()))}, "weight_map": places}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(tensors: Mapping[str, Tensor], limit: int) -> list[list[str]]:
    """Returns the tensor names per file, filled in order; starts a new file when the next tensor does not fit."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, tensor in tensors.items():
        if filled and filled + _size(tensor) > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += _size(tensor)
    return shards


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _stored_state(module: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    return {name: _stored(tensor, dtype) for name, tensor in module.state_dict().items()}


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
