"""The vision transformer of both towers, with the tensor names of timm (and `scale_factor` for its `gamma`).

Only what the features need is built: the last block, the final norm and the pooling head of the published towers
never influence them (their gradients are zero). `checkpoint.dead` lists those tensors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_gen_bench.policies.openvla.config import STEM_GROUP, ViTConfig

LAYER_NORM_EPS = 1e-6  # timm's value for both towers


class PatchEmbed(nn.Module):
    """[B, 3, H, W] -> [B, P, width]: one convolution whose stride is its size, after an optional stem."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        channels = (3, *config.stem)
        pairs = zip(channels, channels[1:], strict=False)
        self.stem = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.stem_norm = nn.ModuleList(
            nn.GroupNorm(b // STEM_GROUP, b) if config.stem_norm else nn.Identity() for b in config.stem
        )
        side = config.patch // 2 ** len(config.stem)
        self.proj = nn.Conv2d(channels[-1], config.width, side, stride=side)

    def forward(self, pixels: Tensor) -> Tensor:
        for convolution, norm in zip(self.stem, self.stem_norm, strict=True):
            pixels = F.gelu(norm(convolution(pixels)))
        return self.proj(pixels).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens; query, key and value in one matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, tokens, width / heads]
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    """Two layers with the exact (erf) GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """Multiplies each channel by a learned factor, 1 at the start.

    DINOv2 started from 1e-5; from scratch with few samples such a tower does not learn (measured for this project).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale_factor


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.attn = Attention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(config.width, config.mlp)
        if config.layer_scale:
            self.ls1, self.ls2 = LayerScale(config.width), LayerScale(config.width)
        self.layer_scale = config.layer_scale

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.attn(self.norm1(x))
        x = x + (self.ls1(mixed) if self.layer_scale else mixed)
        changed = self.mlp(self.norm2(x))
        return x + (self.ls2(changed) if self.layer_scale else changed)


class ViT(nn.Module):
    """A tower up to its second-to-last block.

    The position embedding covers only the patches and is added before class and register tokens are prepended (timm's
    `no_embed_class`).
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        if config.cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        if config.registers:
            self.reg_token = nn.Parameter(torch.zeros(1, config.registers, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.patches, config.width))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth - 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the patch tokens [B, P, width] after the second-to-last block, without a final norm.

        Args:
            pixels: [B, 3, image, image], normalised.
        """
        x = self.patch_embed(pixels) + self.pos_embed
        names = ("cls_token", "reg_token")
        prefix = [getattr(self, name).expand(len(x), -1, -1) for name in names if hasattr(self, name)]
        x = torch.cat([*prefix, x], dim=1)
        for block in self.blocks:
            x = block(x)
        return x[:, self.config.prefix :]
