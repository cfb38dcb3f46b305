"""`text_config` of config.json -> `LlamaConfig`, as transformers 4 and 5 write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vla_gen_bench.errors import shown
from vla_gen_bench.policies.openvla.checkpoint.strict_fields import (
    IGNORED,
    Fixed,
    Limits,
    check_fields,
    check_positive,
    check_whole,
)
from vla_gen_bench.policies.openvla.config import CheckpointError, LlamaConfig

FIELDS = {
    "vocab_size": "vocab",
    "hidden_size": "width",
    "intermediate_size": "mlp",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "max_position_embeddings": "max_positions",
    "rms_norm_eps": "rms_eps",
    "rope_theta": "rope_theta",
    "bos_token_id": "bos",
    "eos_token_id": "eos",
}
LIMITS: Limits = {
    "vocab_size": (1, 1 << 21),
    "hidden_size": (1, 1 << 16),
    "intermediate_size": (1, 1 << 18),
    "num_hidden_layers": (1, 1 << 12),
    "num_attention_heads": (1, 1 << 12),
    "num_key_value_heads": (1, 1 << 12),
    "max_position_embeddings": (1, 1 << 24),
    "bos_token_id": (0, 1 << 21),
    "eos_token_id": (0, 1 << 21),
    "head_dim": (1, 1 << 16),
}
POSITIVE = ("rms_norm_eps", "rope_theta")
# The implementation's fixed behaviour; another value is refused.
FIXED: Fixed = {
    "model_type": ("llama",),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "attention_dropout": (0.0,),
    "tie_word_embeddings": (False,),
    "pretraining_tp": (1,),
}
# Rotary positions: transformers 5 puts `rope_theta` and what 4 called `rope_scaling` into `rope_parameters`.
ROPE_MAPPINGS = ("rope_parameters", "rope_scaling")
ROPE_FIXED: Fixed = {"rope_type": ("default",), "type": ("default",), "partial_rotary_factor": (1.0, None)}
READ_APART = {"pad_token_id", "initializer_range", "head_dim", *ROPE_MAPPINGS}
KNOWN = IGNORED - {"hidden_size"} | READ_APART | FIELDS.keys() | FIXED.keys()


def parse_text(data: Any, where: str) -> LlamaConfig:
    """Returns the language model's config; a field left out has the default of transformers 4.40.1.

    Raises:
        CheckpointError: A field that is unknown, or asks for another computation than plain Llama's.
    """
    check_fields(data, KNOWN, FIXED, where)
    check_whole(data, LIMITS, where)
    check_positive(data, POSITIVE, where)
    given = {FIELDS[key]: value for key, value in data.items() if key in FIELDS and value is not None}
    given |= _rope_theta(data, where)
    given.setdefault("kv_heads", given.get("heads", LlamaConfig.heads))
    config = LlamaConfig(**given)
    if data.get("head_dim") not in (None, config.head_dim):
        raise CheckpointError(
            f"{where}: head_dim: {shown(data['head_dim'])} is not supported; expected {config.head_dim}"
        )
    return config


def _rope_theta(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns {"rope_theta": base} if one is given, at the top or inside; scaled or partial rotations are refused."""
    places = {"rope_theta": data.get("rope_theta")}
    for key in ROPE_MAPPINGS:
        if data.get(key) is not None:
            check_fields(data[key], {"rope_theta", *ROPE_FIXED}, ROPE_FIXED, f"{where}: {key}")
            check_positive(data[key], ["rope_theta"], f"{where}: {key}")
            places[f"{key}.rope_theta"] = data[key].get("rope_theta")
    found = {place: base for place, base in places.items() if base is not None}
    bases = list(found.values())
    if any(base != bases[0] for base in bases):
        raise CheckpointError(f"{where}: they differ: {', '.join(f'{place} {base}' for place, base in found.items())}")
    return {"rope_theta": bases[0]} if bases else {}
