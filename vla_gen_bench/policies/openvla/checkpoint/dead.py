"""Tensors in published checkpoints that no output depends on.

The features come from the second-to-last block of each tower, so its last block, its final norm and its pooling head
are unused: their gradients are zero. A checkpoint may omit them. If present, they are stored separately, checked, and
written back when the model is saved.
"""

from __future__ import annotations

from vla_gen_bench.policies.openvla.checkpoint.infer import TOWERS
from vla_gen_bench.policies.openvla.config import OpenVLAConfig, ViTConfig


def dead_shapes(config: OpenVLAConfig) -> dict[str, tuple[int, ...]]:
    """Returns name -> shape of every tensor that may be missing, in the order of published checkpoints."""
    shapes = {}
    for prefix, tower in zip(TOWERS, config.vision, strict=True):
        for name, shape in {**_last_block(tower), **_norm(tower), **_pool(tower)}.items():
            shapes[prefix + name] = shape
    return shapes


def _last_block(tower: ViTConfig) -> dict[str, tuple[int, ...]]:
    width, hidden, last = tower.width, tower.mlp, f"blocks.{tower.depth - 1}."
    shapes = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        **_mlp("mlp.", width, hidden),
    }
    if tower.layer_scale:
        shapes |= {"ls1.scale_factor": (width,), "ls2.scale_factor": (width,)}
    return {last + name: shape for name, shape in shapes.items()}


def _norm(tower: ViTConfig) -> dict[str, tuple[int, ...]]:
    return {"norm.weight": (tower.width,), "norm.bias": (tower.width,)}


def _pool(tower: ViTConfig) -> dict[str, tuple[int, ...]]:
    if not tower.attn_pool:
        return {}
    width = tower.width
    shapes = {
        "latent": (1, 1, width),
        "q.weight": (width, width),
        "q.bias": (width,),
        "kv.weight": (2 * width, width),
        "kv.bias": (2 * width,),
        "proj.weight": (width, width),
        "proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        **_mlp("mlp.", width, tower.mlp),
    }
    return {f"attn_pool.{name}": shape for name, shape in shapes.items()}


def _mlp(prefix: str, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}fc1.weight": (hidden, width),
        f"{prefix}fc1.bias": (hidden,),
        f"{prefix}fc2.weight": (width, hidden),
        f"{prefix}fc2.bias": (width,),
    }
