"""Adapter folders in peft's format: reads and checks them, attaches them to a model or merges them, and writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vla_gen_bench.data import read_json
from vla_gen_bench.errors import shown
from vla_gen_bench.policies.openvla.checkpoint.dead import dead_shapes
from vla_gen_bench.policies.openvla.checkpoint.extras import need
from vla_gen_bench.policies.openvla.checkpoint.strict_fields import (
    check_list,
    check_mapping,
    check_positive,
    check_whole,
)
from vla_gen_bench.policies.openvla.checkpoint.tensors import TensorFiles, open_file
from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.policies.openvla.model.lora import LoraConfig, product, wrap
from vla_gen_bench.policies.openvla.model.vla import OpenVLA

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
RANKS = (1, 1 << 14)
# Fields of peft's config. Any field in none of these lists must be off, as most of peft's options change the result.
READ = ("r", "lora_alpha", "target_modules", "use_rslora", "rank_pattern", "alpha_pattern")
IRRELEVANT = (  # to what a trained adapter computes
    "base_model_name_or_path", "revision", "task_type", "auto_mapping", "inference_mode", "peft_version",
    "lora_dropout", "megatron_core", "qalora_group_size",
)  # fmt: skip
OFF = (None, False, {}, [])
ALLOWED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "init_lora_weights": (None, True, False, "gaussian"),
}
REASONS = {"init_lora_weights": "it changes the base model, and the adapter fits only a base changed alike"}


def load_adapter(model: OpenVLA, folder: Path, dtype: torch.dtype | None = None) -> LoraConfig:
    """Attaches the adapter of a peft folder to `model`, in place, unmerged and trainable; freezes the base.

    Adapter weights for dead tensors are added to `model.dead`.

    Args:
        dtype: Type of the adapter's weights; None = the model's.

    Raises:
        CheckpointError: It does not fit the model, or its config needs an unsupported feature.
    """
    config = read_adapter_config(folder)
    tensors = adapter_tensors(model, folder, config)
    modules = {name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")}
    wrap(model, config, modules, dtype)
    live = model.state_dict()
    for name, tensor in tensors.items():
        if name in live:
            with torch.no_grad():
                model.get_parameter(name).copy_(tensor)
        else:
            model.dead[name] = tensor
    return config


def merge_adapter(model: OpenVLA, folder: Path) -> None:
    """Adds the adapter of a peft folder into the weights of `model` (dead ones too): `W += scale B A`."""
    config = read_adapter_config(folder)
    tensors = adapter_tensors(model, folder, config)
    live = dict(model.named_parameters())
    for name in tensors:
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removesuffix(".lora_A.weight")
        target = f"{module}.weight"
        update = product(tensors[name], tensors[f"{module}.lora_B.weight"]) * config.scale_of(module)
        if target in live:
            live[target].data = (live[target].data.float() + update.to(live[target].device)).to(live[target].dtype)
        elif target in model.dead:
            model.dead[target] = (model.dead[target].float() + update).to(model.dead[target].dtype)


def adapter_state(model: OpenVLA) -> dict[str, Tensor]:
    """Returns the adapter's tensors under peft's names, including loaded dead ones."""
    live = {name: tensor for name, tensor in model.state_dict().items() if ".lora_" in name}
    dead = {name: tensor for name, tensor in model.dead.items() if ".lora_" in name}
    return {PREFIX + name: tensor.contiguous() for name, tensor in {**live, **dead}.items()}


def save_adapter(model: OpenVLA, folder: Path, config: LoraConfig, base: str = "") -> None:
    """Writes a folder that peft and this project read. `base`: where the base model is found."""
    save_file = need("safetensors.torch").save_file
    folder.mkdir(parents=True, exist_ok=True)
    save_file(adapter_state(model), folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    fields = {
        "base_model_name_or_path": base,
        "peft_type": "LORA",
        "task_type": None,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": "gaussian",
        "inference_mode": True,
        "target_modules": list(config.targets),
        "use_rslora": config.stabilised,
        "rank_pattern": dict(config.ranks),
        "alpha_pattern": dict(config.alphas),
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def read_adapter_fields(folder: Path) -> dict[str, Any]:
    """Returns the fields of `folder`/adapter_config.json."""
    return read_json(folder / ADAPTER_CONFIG, dict[str, Any], error=CheckpointError)


def read_adapter_config(folder: Path) -> LoraConfig:
    """Reads a peft config; refuses any field that may change the computation from plain LoRA on an unmodified base.

    This includes initialisations that change the base itself (PiSSA, OLoRA, LoftQ, ...): their adapters fit only a
    modified base, which no file contains.
    """
    file, fields = folder / ADAPTER_CONFIG, read_adapter_fields(folder)
    for key, value in fields.items():
        if key not in READ and key not in IRRELEVANT and value not in ALLOWED.get(key, OFF):
            hint = f": {REASONS[key]}" if key in REASONS else ""
            raise CheckpointError(f"{file}: {key}: {shown(value)} is not supported{hint}")
    if fields.get("peft_type") is None:
        raise CheckpointError(f"{file}: peft_type: missing")
    _check_kinds(fields, str(file))
    return LoraConfig(
        rank=fields["r"],
        alpha=float(fields["lora_alpha"]),
        targets=tuple(sorted(fields["target_modules"])),
        stabilised=bool(fields.get("use_rslora")),
        ranks=_patterns(fields, "rank_pattern", str(file)),
        alphas=_patterns(fields, "alpha_pattern", str(file)),
    )


def _check_kinds(fields: dict[str, Any], where: str) -> None:
    for key in ("r", "lora_alpha", "target_modules"):
        if fields.get(key) is None:
            raise CheckpointError(f"{where}: {key}: missing")
    check_whole(fields, {"r": RANKS}, where)
    check_positive(fields, ["lora_alpha"], where)
    check_list(fields["target_modules"], str, f"{where}: target_modules")
    if fields.get("use_rslora") not in (None, True, False):
        raise CheckpointError(f"{where}: use_rslora: expected true or false, got {shown(fields['use_rslora'])}")


def _patterns(fields: dict[str, Any], key: str, where: str) -> tuple[tuple[str, Any], ...]:
    """Returns (regular expression, value) in the file's order."""
    given = check_mapping(fields.get(key), f"{where}: {key}")
    if None in given.values():
        raise CheckpointError(f"{where}: {key}: expected numbers, got {shown(dict(given))}")
    if key == "rank_pattern":
        check_whole(given, dict.fromkeys(given, RANKS), f"{where}: {key}")
    else:
        check_positive(given, given, f"{where}: {key}")
    for pattern in given:
        try:
            re.compile(pattern)
        except re.error as error:
            raise CheckpointError(f"{where}: {key}: '{pattern[:60]}' is no regular expression ({error})") from None
    return tuple(given.items())


def adapter_tensors(model: OpenVLA, folder: Path, config: LoraConfig) -> dict[str, Tensor]:
    """Returns the adapter's tensors by this project's names, checked against the model one by one."""
    files = open_file(folder / ADAPTER_WEIGHTS)
    known = _expected(model, config)
    tensors = {}
    for name in files.entries:
        own = name.removeprefix(PREFIX)
        if own.endswith(".base_layer.weight"):
            _check_base_copy(model, files, name, own.replace(".base_layer.", "."))
            continue
        if own not in known:
            raise CheckpointError(f"{folder / ADAPTER_WEIGHTS}: unexpected tensor {name}")
        if files.shapes[name] != known[own]:
            raise CheckpointError(
                f"{folder / ADAPTER_WEIGHTS}: {name}: has shape {list(files.shapes[name])}; expected {list(known[own])}"
            )
        tensors[own] = files.read(name)
    for own in tensors:
        other = own.replace(".lora_A.", ".lora_?.").replace(".lora_B.", ".lora_A.").replace(".lora_?.", ".lora_B.")
        if other not in tensors:
            raise CheckpointError(f"{folder / ADAPTER_WEIGHTS}: missing tensor {PREFIX}{other}")
    for own in known.keys() - tensors.keys() - _dead_names(model):
        raise CheckpointError(f"{folder / ADAPTER_WEIGHTS}: missing tensor {PREFIX}{own}")
    return tensors


def _expected(model: OpenVLA, config: LoraConfig) -> dict[str, tuple[int, ...]]:
    """Returns name -> shape of every adapter tensor required by the targets, on live and dead modules."""
    weights = {name: tuple(tensor.shape) for name, tensor in _base_weights(model)} | dead_shapes(model.config)
    shapes = {}
    for name, shape in weights.items():
        module = name.removesuffix(".weight")
        if module != name and len(shape) > 1 and config.covers(module):
            mixing = (1,) * (len(shape) - 2)
            rank = config.rank_of(module)
            shapes[f"{module}.lora_A.weight"] = (rank, *shape[1:])
            shapes[f"{module}.lora_B.weight"] = (shape[0], rank, *mixing)
    return shapes


def _dead_names(model: OpenVLA) -> set[str]:
    modules = {name.removesuffix(".weight") for name in dead_shapes(model.config)}
    return {f"{module}.lora_{side}.weight" for module in modules for side in "AB"}


def _base_weights(model: OpenVLA) -> Iterator[tuple[str, Tensor]]:
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and ".lora_" not in name:
            yield f"{name}.weight", module.weight


def _check_base_copy(model: OpenVLA, files: TensorFiles, name: str, own: str) -> None:
    """Checks the copy of the base's output matrix that peft 0.11.1 saves: it must equal this base's matrix."""
    base = dict(_base_weights(model)).get(own)
    file = files.entries[name].file
    if base is None or tuple(base.shape) != files.shapes[name]:
        raise CheckpointError(f"{file}: unexpected tensor {name}")
    if not torch.equal(files.read(name).to(base.dtype), base.detach().cpu()):
        raise CheckpointError(f"{file}: {name} differs from the base model's; the adapter belongs to another base")
