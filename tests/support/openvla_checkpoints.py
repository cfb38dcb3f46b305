"""Checkpoints of OpenVLA, small enough to write in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vla_gen_bench.policies.openvla.checkpoint.config_file import with_stats
from vla_gen_bench.policies.openvla.checkpoint.fresh import acting_as, new_model, new_tokenizer, size
from vla_gen_bench.policies.openvla.checkpoint.saving import save

STATS = {"action": {"q01": [-0.03] * 7, "q99": [0.03] * 7, "mask": [True] * 6 + [False]}}


def checkpoint(folder: Path, **acting: Any) -> Path:
    config = with_stats(acting_as(size("pico"), **acting), {"toy": STATS})
    model = new_model(config, seed=5)
    with torch.no_grad():  # far from flat, so that a wrong input shows in the actions
        model.language_model.lm_head.weight.mul_(20)
    save(folder, model, new_tokenizer(config))
    return folder
