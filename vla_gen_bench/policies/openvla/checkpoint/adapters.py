"""Adapter folders as peft writes them: read and checked, put on a model or merged into it; and written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vla_gen_bench.policies.openvla.checkpoint.dead import dead_shapes
from vla_gen_bench.policies.openvla.checkpoint.extras import need
from vla_gen_bench.policies.openvla.checkpoint.tensors import TensorFiles, open_file
from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.policies.openvla.model.lora import LoraConfig, product, wrap
from vla_gen_bench.policies.openvla.model.vla import OpenVLA

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


def load_adapter(model: OpenVLA, folder: Path, dtype: torch.dtype | None = None) -> LoraConfig:
    """Puts the adapter of a peft folder on `model`, in place, unmerged and trainable; the base is frozen.

    Parts that adapt dead tensors join `model.dead`.

    Args:
        dtype: Type of the adapter's weights; None = the model's.

    Raises:
        CheckpointError: It does not fit the model, or its config asks for what is not supported.
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
        update = product(tensors[name], tensors[f"{module}.lora_B.weight"]) * config.scale
        if target in live:
            live[target].data = (live[target].data.float() + update.to(live[target].device)).to(live[target].dtype)
        elif target in model.dead:
            model.dead[target] = (model.dead[target].float() + update).to(model.dead[target].dtype)


def adapter_state(model: OpenVLA) -> dict[str, Tensor]:
    """Returns the adapter's tensors under peft's names, dead ones that were loaded included."""
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
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def read_adapter_fields(folder: Path) -> dict[str, Any]:
    """Returns the fields of `folder`/adapter_config.json."""
    file = folder / ADAPTER_CONFIG
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise CheckpointError(f"{file}: expected a mapping, got {type(fields).__name__}")
    return fields


def read_adapter_config(folder: Path) -> LoraConfig:
    """Reads a peft config; one whose computation would be another than plain LoRA is refused."""
    file, fields = folder / ADAPTER_CONFIG, read_adapter_fields(folder)
    plain = {"bias": ("none", None), "peft_type": ("LORA",), "modules_to_save": (None, [])}
    off = "use_dora use_rslora use_qalora lora_bias fan_in_fan_out alpha_pattern rank_pattern".split()
    off += ["layers_to_transform", "layers_pattern"]
    for key, allowed in {**plain, **{key: (None, False, {}, []) for key in off}}.items():
        if fields.get(key, allowed[0]) not in allowed:
            raise CheckpointError(f"{file}: {key}: {fields[key]!r} is not supported")
    rank, alpha, targets = fields.get("r"), fields.get("lora_alpha"), fields.get("target_modules")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)):
        raise CheckpointError(f"{file}: r, lora_alpha: expected numbers, got {rank!r}, {alpha!r}")
    if not isinstance(targets, list):
        raise CheckpointError(f"{file}: target_modules: expected a list of names, got {targets!r}")
    return LoraConfig(rank, float(alpha), tuple(sorted(targets)))


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
    """Returns name -> shape of every adapter tensor the targets ask for, on live and on dead modules."""
    weights = {name: tuple(tensor.shape) for name, tensor in _base_weights(model)} | dead_shapes(model.config)
    shapes = {}
    for name, shape in weights.items():
        module = name.removesuffix(".weight")
        if module != name and len(shape) > 1 and config.covers(module):
            mixing = (1,) * (len(shape) - 2)
            shapes[f"{module}.lora_A.weight"] = (config.rank, *shape[1:])
            shapes[f"{module}.lora_B.weight"] = (shape[0], config.rank, *mixing)
    return shapes


def _dead_names(model: OpenVLA) -> set[str]:
    modules = {name.removesuffix(".weight") for name in dead_shapes(model.config)}
    return {f"{module}.lora_{side}.weight" for module in modules for side in "AB"}


def _base_weights(model: OpenVLA) -> Iterator[tuple[str, Tensor]]:
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and ".lora_" not in name:
            yield f"{name}.weight", module.weight


def _check_base_copy(model: OpenVLA, files: TensorFiles, name: str, own: str) -> None:
    """peft 0.11.1 saves a copy of the base's output matrix; it must be the base this adapter is put on."""
    base = dict(_base_weights(model)).get(own)
    file = files.entries[name].file
    if base is None or tuple(base.shape) != files.shapes[name]:
        raise CheckpointError(f"{file}: unexpected tensor {name}")
    if not torch.equal(files.read(name).to(base.dtype), base.detach().cpu()):
        raise CheckpointError(f"{file}: {name} differs from the base model's; the adapter belongs to another base")
