"""Fields of a config file, checked one by one: one that is not understood is an error that names it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from vla_gen_bench.errors import suggest
from vla_gen_bench.policies.openvla.config import CheckpointError

# Fields that say nothing about the computation: written by transformers (4 or 5), or used by the reference in training
# only.
IGNORED = frozenset(
    "_name_or_path architectures arch_specifier auto_map attn_implementation _attn_implementation dtype torch_dtype "
    "transformers_version hf_llm_id llm_backbone_id vision_backbone_id llm_max_length hidden_size value_type "
    "is_encoder_decoder _attn_implementation_autoset use_cache return_dict output_hidden_states "
    "output_attentions chunk_size_feed_forward id2label label2id problem_type".split()
)
Fixed = Mapping[str, tuple[Any, ...]]


def check_fields(data: Any, known: Iterable[str], fixed: Fixed, where: str) -> None:
    """Raises `CheckpointError` for a field of `data` that is not in `known`, or has a value not listed in `fixed`."""
    if not isinstance(data, Mapping):
        raise CheckpointError(f"{where}: expected a mapping, got {data!r}")
    for key, value in data.items():
        if key not in known:
            raise CheckpointError(f"{where}: unknown field '{key}'{suggest(key, known)}")
        if key in fixed and value not in fixed[key]:
            expected = " or ".join(json.dumps(choice) for choice in fixed[key])
            raise CheckpointError(f"{where}: {key}: {json.dumps(value)} is not supported; expected {expected}")
