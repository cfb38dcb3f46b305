"""Loads checkpoints: Hugging Face folders, adapters on top of them, ids on the hub. Nothing is skipped silently."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vla_gen_bench.policies.openvla.actions import parse_stats
from vla_gen_bench.policies.openvla.checkpoint import adapters
from vla_gen_bench.policies.openvla.checkpoint.action_head import ACTION_HEAD_FILE, l1_head_from
from vla_gen_bench.policies.openvla.checkpoint.config_file import read_config, with_stats
from vla_gen_bench.policies.openvla.checkpoint.dead import dead_shapes
from vla_gen_bench.policies.openvla.checkpoint.extras import need
from vla_gen_bench.policies.openvla.checkpoint.hub import find_checkpoint
from vla_gen_bench.policies.openvla.checkpoint.tensors import (
    TensorFiles,
    check_names,
    check_shapes,
    open_checkpoint,
    read_file,
)
from vla_gen_bench.policies.openvla.config import CheckpointError, OpenVLAConfig
from vla_gen_bench.policies.openvla.model.l1_head import L1Head
from vla_gen_bench.policies.openvla.model.value import ValueHead, value_head_from
from vla_gen_bench.policies.openvla.model.vla import OpenVLA

STATISTICS_FILE = "dataset_statistics.json"
VALUE_FILE = "value_head.safetensors"
VALUE_PREFIX = "value_head."
VALUE_SOURCE = "source"  # key in the metadata of VALUE_FILE: h0, hn or concat


@dataclass(frozen=True)
class Loaded:
    """A model and where it came from.

    Attributes:
        model: In evaluation mode.
        folder: The checkpoint's folder; its tokenizer lies there.
        base: The folder of the base model where `folder` is an adapter, else `folder`.
        value_head: The value head, if the checkpoint has one.
        action_head: The regression head, if the checkpoint acts by one.
    """

    model: OpenVLA
    folder: Path
    base: Path
    value_head: ValueHead | None = None
    action_head: L1Head | None = None

    @property
    def config(self) -> OpenVLAConfig:
        return self.model.config


def load(
    checkpoint: str | Path,
    *,
    base: str | Path | None = None,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = torch.float32,
    vision_heads: tuple[int, int] | None = None,
    merge: bool = True,
) -> Loaded:
    """Loads a model.

    Args:
        checkpoint: A folder in Hugging Face layout, a peft adapter folder, or "owner/name" on the hub.
        base: The base model of an adapter; None = as its config says (a folder, also relative to it, or a hub id).
        revision: Commit of `checkpoint` on the hub; None = the one pinned in `policies/openvla/hub.yaml`.
        device: Where the weights go.
        dtype: Their type; None = as stored. On the CPU and as stored, weights stay mapped from their files.
        vision_heads: Attention heads of the towers, where no table knows them.
        merge: Add an adapter's update to the weights; False keeps it apart, to be trained on.

    Raises:
        CheckpointError: Whatever is wrong with it, by file and name.
    """
    folder = find_checkpoint(checkpoint, revision)
    if not (folder / adapters.ADAPTER_CONFIG).is_file():
        model, head = _load_full(folder, dtype, vision_heads)
        model.to(device)
        return Loaded(model, folder, folder, head or _value_head(folder, model), _action_head((folder,), model))
    origin = find_checkpoint(base or _base_of(folder))
    model, _ = _load_full(origin, dtype, vision_heads)
    if merge:
        adapters.merge_adapter(model, folder)
    else:
        adapters.load_adapter(model, folder)
    model.config = _with_statistics(model.config, folder)
    model.to(device)
    return Loaded(model, folder, origin, _value_head(folder, model), _action_head((folder, origin), model))


def empty_model(config: OpenVLAConfig) -> OpenVLA:
    """Returns the model on the meta device: names and shapes without memory, for any size."""
    with torch.device("meta"):
        return OpenVLA(config).eval()


def checkpoint_shapes(config: OpenVLAConfig) -> dict[str, tuple[int, ...]]:
    """Returns name -> shape of every tensor of a published checkpoint of this config, dead ones included."""
    live = {name: tuple(tensor.shape) for name, tensor in empty_model(config).state_dict().items()}
    return {**live, **dead_shapes(config)}


def load_weights(model: OpenVLA, files: TensorFiles, where: object, dtype: torch.dtype | None) -> None:
    """Fills a model from `empty_model` with the tensors of `files`; dead ones that are there go to `model.dead`.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of another shape, or not finite.
    """
    live = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    dead = dead_shapes(model.config)
    check_names(live, files.entries, dead, where)
    check_shapes({**live, **dead}, files.shapes, where)
    model.load_state_dict({name: files.read(name, dtype) for name in live}, strict=True, assign=True)
    model.dead = {name: files.read(name) for name in dead if name in files.entries}


def _load_full(
    folder: Path, dtype: torch.dtype | None, heads: tuple[int, int] | None
) -> tuple[OpenVLA, ValueHead | None]:
    files = open_checkpoint(folder)
    value = {name: entry for name, entry in files.entries.items() if name.startswith(VALUE_PREFIX)}
    plain = TensorFiles({name: entry for name, entry in files.entries.items() if name not in value})
    model = empty_model(read_config(folder, plain.shapes, heads))
    load_weights(model, plain, folder, dtype)
    head = value_head_from({name: files.read(name) for name in value}, model.config.text.width) if value else None
    return model, head


def _value_head(folder: Path, model: OpenVLA) -> ValueHead | None:
    """Reads this project's value_head.safetensors, or the `vh` of RL4VLA's training_state.pt."""
    width = model.config.text.width
    if (folder / VALUE_FILE).is_file():
        with need("safetensors").safe_open(folder / VALUE_FILE, framework="pt") as opened:
            source = (opened.metadata() or {}).get(VALUE_SOURCE)
        return value_head_from(read_file(folder / VALUE_FILE), width, source)
    state = folder / "training_state.pt"
    if not state.is_file():
        return None
    try:
        content = torch.load(state, map_location="cpu", weights_only=True)
        return value_head_from(content["vh"], width)
    except CheckpointError as error:
        raise CheckpointError(f"{state}: {error}") from None
    except Exception as error:  # the unpickler raises many kinds
        raise CheckpointError(f"{state}: cannot be read as tensors alone: {' '.join(str(error).split())}") from None


def _action_head(folders: Sequence[Path], model: OpenVLA) -> L1Head | None:
    """Reads action_head.safetensors from the first folder that has one, if the config says that it acts."""
    files = [folder / ACTION_HEAD_FILE for folder in folders if (folder / ACTION_HEAD_FILE).is_file()]
    if model.config.acting.head != "l1":
        if files:
            raise CheckpointError(f"{files[0]}: config.json says head: tokens; say l1 there, or remove the file")
        return None
    if not files:
        raise CheckpointError(f"{folders[0]}: no {ACTION_HEAD_FILE}, which config.json promises (head: l1)")
    head = l1_head_from(read_file(files[0], model.dtype), model.config.text.width, files[0])
    return head.to(model.device).eval()


def _base_of(folder: Path) -> str:
    base = adapters.read_adapter_fields(folder).get("base_model_name_or_path")
    if not base:
        raise CheckpointError(f"{folder}: an adapter that does not name its base model; give base=FOLDER_OR_HUB_ID")
    return str(folder / base) if (folder / base).is_dir() else str(base)


def _with_statistics(config: OpenVLAConfig, folder: Path) -> OpenVLAConfig:
    file = folder / STATISTICS_FILE
    if not file.is_file():
        return config
    try:
        stats = json.loads(file.read_text(encoding="utf-8"))
        for key, entry in stats.items():
            parse_stats(entry, f"{file}: {key}")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    return with_stats(config, stats)


def count_parameters(model: nn.Module) -> int:
    """Returns the number of parameters that take part in the computation."""
    return sum(parameter.numel() for parameter in model.parameters())
