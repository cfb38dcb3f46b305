"""Writes checkpoints in Hugging Face layout: config.json, safetensors in one file or shards, the tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.policies.openvla.config_file import CONFIG_FILE, config_fields
from vla_gen_bench.policies.openvla.extras import need
from vla_gen_bench.policies.openvla.loading import VALUE_FILE, VALUE_SOURCE
from vla_gen_bench.policies.openvla.lora import adapted
from vla_gen_bench.policies.openvla.model import OpenVLA
from vla_gen_bench.policies.openvla.tensors import INDEX_FILE, SINGLE_FILE
from vla_gen_bench.policies.openvla.tokenizer import TOKENIZER_FILE, PromptTokenizer
from vla_gen_bench.policies.openvla.value import ValueHead

SHARD_BYTES = 7_000_000_000  # of `openvla/openvla-7b`


def save(
    folder: Path,
    model: OpenVLA,
    tokenizer: PromptTokenizer | None = None,
    value_head: ValueHead | None = None,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a checkpoint that `loading.load` reads, the dead tensors the model came with included.

    Args:
        dtype: Type of the stored weights; None = the model's.
        shard_bytes: More than this is split into several files.

    Raises:
        CheckpointError: The model has an unmerged adapter (`adapters.save_adapter` writes that).
    """
    save_file = need("safetensors.torch").save_file
    if adapted(model):
        raise CheckpointError("the model has an unmerged adapter: merge it, or save the adapter alone")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    tensors = {name: _stored(tensor, dtype) for name, tensor in {**model.state_dict(), **model.dead}.items()}
    shards = _shards(tensors, shard_bytes)
    if len(shards) == 1:
        save_file(tensors, folder / SINGLE_FILE, metadata={"format": "pt"})
    else:
        _save_shards(folder, tensors, shards)
    (folder / CONFIG_FILE).write_text(json.dumps(config_fields(model.config), indent=2) + "\n", encoding="utf-8")
    if tokenizer is not None:
        tokenizer.backend.save(str(folder / TOKENIZER_FILE))
    if value_head is not None:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in value_head.state_dict().items()}
        save_file(state, folder / VALUE_FILE, metadata={"format": "pt", VALUE_SOURCE: value_head.source})


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
    """Returns the names of each file: filled in order, a new one begins when the next tensor does not fit."""
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


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
