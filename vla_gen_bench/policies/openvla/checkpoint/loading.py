"""Loads checkpoints: Hugging Face folders, adapters on top of them, hub ids. Skips nothing silently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vla_gen_bench.policies.openvla.checkpoint import adapters
from vla_gen_bench.policies.openvla.checkpoint.action_head import ACTION_HEAD_FILE, l1_head_from
from vla_gen_bench.policies.openvla.checkpoint.config_file import read_config
from vla_gen_bench.policies.openvla.checkpoint.dead import dead_shapes
from vla_gen_bench.policies.openvla.checkpoint.extras import need
from vla_gen_bench.policies.openvla.checkpoint.folder_files import check_all_used, check_preprocessor
from vla_gen_bench.policies.openvla.checkpoint.hub import find_checkpoint
from vla_gen_bench.policies.openvla.checkpoint.statistics import with_statistics
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

VALUE_FILE = "value_head.safetensors"
VALUE_PREFIX = "value_head."
TRAINING_STATE = "training_state.pt"  # RL4VLA's
HEAD_FILES = (ACTION_HEAD_FILE, "action_head--*.pt")  # this project's, openvla-oft's
VALUE_SOURCE = "source"  # key in the metadata of VALUE_FILE: h0, hn or concat


@dataclass(frozen=True)
class Loaded:
    """A model and its origin.

    Attributes:
        model: In evaluation mode.
        folder: The checkpoint's folder, which contains its tokenizer.
        base: The folder of the base model if `folder` is an adapter, else `folder`.
        value_head: The value head, if the checkpoint has one.
        action_head: The regression head, if the checkpoint uses one.
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
        base: The base model of an adapter; None = from its config (a folder, possibly relative to it, or a hub id).
        revision: Commit of `checkpoint` on the hub, or of the base under an adapter that is a folder; None = the one
            pinned in `policies/openvla/hub.yaml`, for a base the one in the adapter's config.
        device: Device of the weights.
        dtype: Type of the weights; None = as stored. On the CPU and as stored, weights stay memory-mapped.
        vision_heads: Attention heads of the towers, for towers in no table; refused if the checkpoint has other ones.
        merge: Add an adapter's update to the weights; False keeps it separate for further training.

    Raises:
        CheckpointError: The checkpoint is unusable; names file and tensor or field. An argument does not apply to it.
    """
    local = _is_folder(checkpoint)
    folder = find_checkpoint(checkpoint, None if local else revision)
    if not (folder / adapters.ADAPTER_CONFIG).is_file():
        if base:
            raise CheckpointError(f"base: {folder} is a full checkpoint, no adapter; leave base out")
        if local:
            _refuse_revision(folder, revision)
        model, head = _load_full(folder, dtype, vision_heads)
        model.to(device)
        return Loaded(model, folder, folder, head or _value_head(folder, model), _action_head((folder,), model))
    origin = _base(folder, base, revision if local else None)
    model, _ = _load_full(origin, dtype, vision_heads)
    check_all_used(folder, [folder / adapters.ADAPTER_WEIGHTS, *_beside(folder, model.config)])
    if merge:
        adapters.merge_adapter(model, folder)
    else:
        adapters.load_adapter(model, folder)
    model.config = with_statistics(model.config, folder)
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
    """Fills a model from `empty_model` with the tensors of `files`; dead ones, if present, go to `model.dead`.

    Raises:
        CheckpointError: A tensor is missing, unexpected, has the wrong shape, or is not finite.
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
    config = with_statistics(read_config(folder, plain.shapes, heads), folder)
    check_preprocessor(folder, config)
    model = empty_model(config)
    load_weights(model, plain, folder, dtype)
    check_all_used(folder, [*{entry.file for entry in files.entries.values()}, *_beside(folder, config)])
    head = value_head_from({name: files.read(name) for name in value}, model.config.text.width) if value else None
    return model, head


def _value_head(folder: Path, model: OpenVLA) -> ValueHead | None:
    """Reads this project's value_head.safetensors, or the `vh` of RL4VLA's training_state.pt."""
    width = model.config.text.width
    if (folder / VALUE_FILE).is_file():
        with need("safetensors").safe_open(folder / VALUE_FILE, framework="pt") as opened:
            source = (opened.metadata() or {}).get(VALUE_SOURCE)
        return value_head_from(read_file(folder / VALUE_FILE), width, source)
    state = folder / TRAINING_STATE
    if not state.is_file():
        return None
    content = _read_pickle(state)
    if not isinstance(content, dict) or not isinstance(content.get("vh"), dict):
        raise CheckpointError(f"{state}: no value head 'vh' in it")
    try:
        return value_head_from(content["vh"], width)
    except CheckpointError as error:
        raise CheckpointError(f"{state}: {error}") from None


def _action_head(folders: Sequence[Path], model: OpenVLA) -> L1Head | None:
    """Reads the regression head from the first folder that has one, if the config uses one."""
    if model.config.acting.head != "l1":
        return None
    found = next((files for folder in folders if (files := _head_files(folder))), [])
    if len(found) > 1:
        raise CheckpointError(f"{found[0]} and {found[1].name}: two regression heads; keep the one that is meant")
    if not found:
        raise CheckpointError(f"{folders[0]}: no {ACTION_HEAD_FILE}, which config.json promises (head: l1)")
    tensors = read_file(found[0], model.dtype) if found[0].suffix == ".safetensors" else _read_pickle(found[0])
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise CheckpointError(f"{found[0]}: holds something else than tensors by name")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{found[0]}: {name}: values that are not finite; the checkpoint is damaged")
    return l1_head_from(tensors, model.config.text.width, found[0]).to(model.device, model.dtype).eval()


def _head_files(folder: Path) -> list[Path]:
    return [file for pattern in HEAD_FILES for file in sorted(folder.glob(pattern))]


def _beside(folder: Path, config: OpenVLAConfig) -> list[Path]:
    """Returns the existing files, other than weights, from which a model of this config is loaded."""
    return [folder / VALUE_FILE, folder / TRAINING_STATE, *(_head_files(folder) if config.acting.head == "l1" else ())]


def _read_pickle(file: Path) -> Any:
    """Returns the content of a `torch.save` file with only tensors and plain containers; executes no code from it."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file}: cannot be read as tensors alone: {reason}") from None


def _base(folder: Path, given: str | Path | None, revision: str | None) -> Path:
    """Returns the folder of the base model: `given`, or the one named by the adapter at the adapter's or `revision`."""
    if given:
        base, own = given, None
    else:
        fields = adapters.read_adapter_fields(folder)
        base, own = fields.get("base_model_name_or_path"), fields.get("revision")
        if not base or not isinstance(base, str):
            raise CheckpointError(f"{folder}: an adapter that does not name its base model; give base=FOLDER_OR_HUB_ID")
        base = str(folder / base) if (folder / base).is_dir() else base
    if _is_folder(base):
        _refuse_revision(base, revision)
    return find_checkpoint(base, revision or (own if isinstance(own, str) else None))


def _is_folder(name: str | Path) -> bool:
    """Whether `find_checkpoint` takes a name as a folder, not as an id on the hub."""
    return Path(str(name)).expanduser().is_dir()


def _refuse_revision(folder: str | Path, revision: str | None) -> None:
    if revision is not None:
        raise CheckpointError(f"revision: {folder} is a folder, and a revision is a commit on the hub; leave it out")


def count_parameters(model: nn.Module) -> int:
    """Returns the number of parameters that take part in the computation."""
    return sum(parameter.numel() for parameter in model.parameters())
