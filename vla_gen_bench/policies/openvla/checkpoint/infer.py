"""Infers a vision tower's size from its tensors, for checkpoints whose tower is in no table."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

from vla_gen_bench.policies.openvla.config import CheckpointError, ViTConfig

Shapes = Mapping[str, tuple[int, ...]]
TOWERS = ("vision_backbone.featurizer.", "vision_backbone.fused_featurizer.")


def infer_tower(shapes: Shapes, place: int, image: int, heads: int | None = None) -> ViTConfig:
    """Returns the config of tower `place` (0 or 1) of a checkpoint.

    Names and shapes determine everything except the number of heads, which `guess_heads` guesses if `heads` is None.

    Raises:
        CheckpointError: Tensors that every tower has are missing.
    """
    own = {name.removeprefix(TOWERS[place]): shape for name, shape in shapes.items() if name.startswith(TOWERS[place])}
    try:
        width = own["pos_embed"][-1]
        patch = own["patch_embed.proj.weight"][-1]
        mlp = own["blocks.0.mlp.fc1.weight"][0]
    except KeyError as missing:
        raise CheckpointError(f"no tensor {TOWERS[place]}{missing.args[0]}; the tower's size cannot be read") from None
    blocks = 1 + max(int(match[1]) for name in own if (match := re.match(r"blocks\.(\d+)\.", name)))
    stem = _stem(own)
    return ViTConfig(
        width=width,
        depth=blocks if "norm.weight" in own else blocks + 1,  # a tower without dead tensors lacks its last block
        heads=heads or guess_heads(width),
        mlp=mlp,
        patch=patch * 2 ** len(stem),
        image=image,
        cls_token="cls_token" in own,
        registers=own["reg_token"][1] if "reg_token" in own else 0,
        layer_scale="blocks.0.ls1.scale_factor" in own,
        attn_pool="attn_pool.latent" in own,
        pixels="imagenet" if "cls_token" in own else "half",
        stem=stem,
        stem_norm="patch_embed.stem_norm.0.weight" in own,
    )


def guess_heads(width: int) -> int:
    """Returns a plausible number of heads and warns, because neither tensors nor config.json contain it.

    Published checkpoints never need this: they name their towers by timm id, listed in `vision.yaml` (16 heads each).
    Other towers of 192 or more channels get 64 channels per head, as in most of timm's plain ViTs (so400m: 72); smaller
    ones get 4 heads, or a number that divides the width.
    """
    usual = width // 64 if width >= 192 and width % 64 == 0 else 4
    heads = next(count for count in (usual, 4, 3, 2, 1) if width % count == 0)
    warnings.warn(f"vision tower of width {width}: heads unknown, {heads} taken; say vision_heads=(n, n)", stacklevel=2)
    return heads


def _stem(own: Shapes) -> tuple[int, ...]:
    names = sorted(name for name in own if re.fullmatch(r"patch_embed\.stem\.\d\.weight", name))
    return tuple(own[name][0] for name in names)
