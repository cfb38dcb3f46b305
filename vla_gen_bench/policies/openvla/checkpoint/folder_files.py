"""Checks the files of a checkpoint's folder: unread weights are an error, so none is silently ignored."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from vla_gen_bench.data import read_json
from vla_gen_bench.errors import shown
from vla_gen_bench.policies.openvla.checkpoint.action_head import ACTION_HEAD_FILE
from vla_gen_bench.policies.openvla.config import CheckpointError, OpenVLAConfig
from vla_gen_bench.policies.openvla.images import PIXEL_RANGES

WEIGHTS = frozenset(".safetensors .pt .pth .bin .ckpt .npz .npy .h5 .msgpack .gguf .pkl .pickle .onnx".split())
# Files that training leaves next to a model: its state, and the same weights in the format before safetensors.
BESIDE_TRAINING = (
    "optimizer*", "scheduler*", "scaler*", "rng_state*", "random_states*", "training_args.bin", "training_state.pt",
    "pytorch_model.bin", "pytorch_model-*-of-*.bin",
)  # fmt: skip
OFT_PARTS = {
    "action_head": "its regression head; config.json must say how it acts: "
    '"vla_gen_bench": {"decoding": "parallel", "attention": "bidirectional", "chunk": K, "head": "l1"}',
    "proprio_projector": "it needs the robot's state, which this model does not take",
    "noisy_action_projector": "its actions come from diffusion, which is not supported",
    "vision_backbone": "its vision towers are modulated by the sentence (FiLM), which is not supported",
}
PREPROCESSOR_FILE = "preprocessor_config.json"


def check_all_used(folder: Path, used: Iterable[Path]) -> None:
    """Raises `CheckpointError` naming an unused weights file in `folder` that is not known to be irrelevant."""
    taken = {file.name for file in used}
    left = [file for file in sorted(folder.iterdir()) if file.suffix in WEIGHTS and file.name not in taken]
    left = [file for file in left if not any(fnmatch(file.name, pattern) for pattern in BESIDE_TRAINING)]
    parts = [file for file in left if _part(file)]
    if parts:
        whys = "; ".join(f"{file.name}: {OFT_PARTS[_part(file)]}" for file in parts)
        raise CheckpointError(f"{folder}: saved by openvla-oft, and cannot be run without its other files: {whys}")
    if left and left[0].name == ACTION_HEAD_FILE:
        raise CheckpointError(f"{left[0]}: config.json says head: tokens; say l1 there, or remove the file")
    if left:
        raise CheckpointError(
            f"{left[0]}: weights that are not used, beside {', '.join(sorted(taken)) or 'none that are'}; "
            "take the file away if the model is whole without it"
        )


def check_preprocessor(folder: Path, config: OpenVLAConfig) -> None:
    """Raises `CheckpointError` if preprocessor_config.json describes different images than config.json."""
    file = folder / PREPROCESSOR_FILE
    if not file.is_file():
        return
    said = read_json(file, dict[str, Any], error=CheckpointError)
    means, stds = zip(*(PIXEL_RANGES[tower.pixels] for tower in config.vision))
    ours = {
        "image_resize_strategy": config.resize,
        "input_sizes": [[3, config.image, config.image]] * 2,
        "interpolations": ["bicubic"] * 2,
        "means": [list(mean) for mean in means],
        "stds": [list(std) for std in stds],
    }
    for key, expected in ours.items():
        if key in said and not _same(said[key], expected):
            raise CheckpointError(
                f"{file}: {key}: {shown(said[key])}, but {folder / 'config.json'} makes it {shown(expected)}"
            )


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(_same, found, expected))
    if isinstance(expected, float):
        return isinstance(found, (int, float)) and abs(found - expected) < 1e-4  # published values are float32
    return found == expected


def _part(file: Path) -> str | None:
    """Returns which part of an openvla-oft policy a file is: `action_head--150000_checkpoint.pt` is its head."""
    name = re.split(r"--", file.stem)[0]
    return name if name in OFT_PARTS and "--" in file.stem else None
