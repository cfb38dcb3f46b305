"""Checks the fields of a config file one by one: an unknown field is an error that names it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from vla_gen_bench.errors import SHOWN, one_line, shown, suggest
from vla_gen_bench.policies.openvla.config import CheckpointError

# Fields that do not affect the computation: written by transformers (4 or 5), or used by the reference only in
# training.
IGNORED = frozenset(
    "_name_or_path architectures arch_specifier auto_map attn_implementation _attn_implementation dtype torch_dtype "
    "transformers_version hf_llm_id llm_backbone_id vision_backbone_id llm_max_length hidden_size value_type "
    "is_encoder_decoder _attn_implementation_autoset use_cache return_dict output_hidden_states "
    "output_attentions chunk_size_feed_forward id2label label2id problem_type".split()
)
Fixed = Mapping[str, tuple[Any, ...]]
Limits = Mapping[str, tuple[int, int]]
"""Field -> the least and the most it may be; the most is far beyond any published model, but can be built."""
LARGEST_NUMBER = 1e12


def check_fields(data: Any, known: Iterable[str], fixed: Fixed, where: str) -> None:
    """Raises `CheckpointError` for a field of `data` that is not in `known`, or has a value not listed in `fixed`."""
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{where}: expected a mapping, got {shown(data)}")
    for key, value in data.items():
        if key not in known:
            raise CheckpointError(f"{where}: unknown field '{key}'{suggest(str(key), known)}")
        if key in fixed and not any(_is(value, choice) for choice in fixed[key]):
            expected = " or ".join(json.dumps(choice) for choice in fixed[key])
            given = one_line(json.dumps(value, default=repr), SHOWN)
            raise CheckpointError(f"{where}: {key}: {given} is not supported; expected {expected}")


def _is(value: Any, choice: Any) -> bool:
    """Whether they are equal; in Python 1 equals true, in a file it does not."""
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)


def check_whole(data: Mapping[str, Any], limits: Limits, where: str) -> None:
    """Raises `CheckpointError` for a field of `data` that is not an integer within its limits; None = not given."""
    for key, (least, most) in limits.items():
        value = data.get(key)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and least <= value <= most):
            raise CheckpointError(f"{where}: {key}: expected a whole number from {least} to {most}, got {shown(value)}")


def check_positive(data: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Raises `CheckpointError` for a field that is not a positive, finite number; None = not given."""
    for key in keys:
        value = data.get(key)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and 0 < value <= LARGEST_NUMBER):
            raise CheckpointError(f"{where}: {key}: expected a number above 0, got {shown(value)}")


def check_mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Returns `value`, {} for None; raises `CheckpointError` unless it is a mapping with text keys."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise CheckpointError(f"{where}: expected a mapping, got {shown(value)}")
    return value


def check_list(value: Any, kind: type, where: str) -> list[Any]:
    """Returns `value`; raises `CheckpointError` unless it is a list of `kind`."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, kind) for item in value):
        name = {str: "texts", int: "whole numbers", dict: "mappings"}[kind]
        raise CheckpointError(f"{where}: expected a list of {name}, got {shown(value)}")
    return list(value)
