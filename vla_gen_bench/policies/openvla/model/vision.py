"""The fused vision backbone and the projector into the language model's space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_gen_bench.policies.openvla.config import PROJECTOR_EXPANSION, OpenVLAConfig
from vla_gen_bench.policies.openvla.model.vit import ViT


class FusedVision(nn.Module):
    """Two towers on the same image, each with its own normalisation; features concatenated on channels."""

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        self.featurizer, self.fused_featurizer = (ViT(tower) for tower in config.vision)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 6, H, W] -> [B, P, width of both]; channels 0 to 2 go to the first tower (DINOv2)."""
        first, second = pixels.split(3, dim=1)
        return torch.cat([self.featurizer(first), self.fused_featurizer(second)], dim=2)


class Projector(nn.Module):
    """Three layers with the exact GELU between, the first one widening: `fused-gelu-mlp`."""

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        fused = sum(tower.width for tower in config.vision)
        hidden, out = PROJECTOR_EXPANSION * fused, config.text.width
        self.fc1, self.fc2, self.fc3 = nn.Linear(fused, hidden), nn.Linear(hidden, out), nn.Linear(out, out)

    def forward(self, features: Tensor) -> Tensor:
        """[B, P, width of both towers] -> [B, P, D]."""
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(features)))))
