"""Checks user-typed options of `OpenVLAPolicy`: names each option of a wrong type or out of range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch

from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.policies.openvla.config import Decoding, ImagePath

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

CHOICES = {"dtype": tuple(DTYPES), "image_path": get_args(ImagePath), "decoding": get_args(Decoding)}
TEXTS = ("device", "unnorm_key", "base", "revision")
COUNTS = ("top_k", "batch_size")
FLAGS = ("center_crop",)
NEVER_NONE = ("dtype", "device")


def check_options(options: Mapping[str, Any]) -> None:
    """Raises `UserError` for the first of `options` that `OpenVLAPolicy` cannot use; None means "not given"."""
    for name, value in options.items():
        if value is None and name not in NEVER_NONE:
            continue
        if name in CHOICES and value not in CHOICES[name]:
            raise UserError(f"{name}: '{value}'{suggest(str(value), CHOICES[name])}")
        if name in TEXTS and not isinstance(value, str):
            raise UserError(f"{name}: expected text, got {value!r}; quote it: {name}='\"...\"'")
        if name in COUNTS and not _is_count(value):
            raise UserError(f"{name}: expected a whole number >= 1, got {value!r}")
        if name in FLAGS and not isinstance(value, bool):
            raise UserError(f"{name}: expected true or false, got {value!r}")
    _check_temperature(options["temperature"])
    _check_heads(options["vision_heads"])
    _check_device(options["device"])


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_temperature(value: Any) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise UserError(f"temperature: expected a number >= 0, got {value!r}")


def _check_heads(value: Any) -> None:
    if value is not None and not (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_count, value))):
        raise UserError(f"vision_heads: expected two whole numbers >= 1, got {value!r}")


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device: '{device}' cannot be used: {str(error).splitlines()[0]}") from None
