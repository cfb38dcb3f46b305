"""New models to train from scratch: seeded weights of a given size, and a new tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from vla_gen_bench.policies.openvla.checkpoint.config_file import parse_config, size
from vla_gen_bench.policies.openvla.checkpoint.tokenizer import PromptTokenizer, benchmark_sentences, train_tokenizer
from vla_gen_bench.policies.openvla.config import OpenVLAConfig
from vla_gen_bench.policies.openvla.model.l1_head import L1Head, initialise_l1
from vla_gen_bench.policies.openvla.model.vla import OpenVLA, initialise


def new_model(config: OpenVLAConfig | str, seed: int = 0) -> OpenVLA:
    """Returns a model with weights drawn from `seed`; `config` may be the name of a size ("pico", "nano")."""
    model = OpenVLA(size(config) if isinstance(config, str) else config)
    return initialise(model, torch.Generator().manual_seed(seed)).eval()


def new_action_head(config: OpenVLAConfig, seed: int = 0) -> L1Head:
    """Returns a regression head for `config` (`acting.head` "l1") with weights drawn from `seed`."""
    return initialise_l1(L1Head(config.text.width), torch.Generator().manual_seed(seed))


def new_tokenizer(config: OpenVLAConfig, sentences: Iterable[str] | None = None) -> PromptTokenizer:
    """Returns a byte-level tokenizer for `config`, trained on `sentences`; None = the benchmark's training ones."""
    backend = train_tokenizer(benchmark_sentences() if sentences is None else sentences, config.base_vocab)
    return PromptTokenizer(backend, config)


def acting_as(config: OpenVLAConfig, **changes: Any) -> OpenVLAConfig:
    """Returns `config` with other `Acting` fields: `acting_as(config, decoding="parallel", chunk=4)` for OFT."""
    own = {**config.fields.get("vla_gen_bench", {}), **changes}
    return parse_config({**config.fields, "norm_stats": config.norm_stats, "vla_gen_bench": own}, "config")
