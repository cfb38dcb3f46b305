"""The continuous head of OpenVLA-OFT: numbers instead of tokens, from the states of the action slots."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla_gen_bench.policies.openvla.model.decoding import ACTION_TOKENS

BLOCKS = 2


class ResidualBlock(nn.Module):
    """x + ReLU(linear(LayerNorm(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(x)


class L1Head(nn.Module):
    """Continuous actions from the slots' states: a residual MLP on the concatenated seven states of one action.

    Two residual blocks between an input and an output layer, with openvla-oft's tensor names (its `MLPResNet`). Trained
    on the L1 distance to normalised actions, so its outputs are normalised actions.

    Args:
        width: D of the language model.
        hidden: Width of the blocks; None = D, as openvla-oft.
    """

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden, entry = hidden or width, ACTION_TOKENS * width
        self.layer_norm1, self.fc1 = nn.LayerNorm(entry), nn.Linear(entry, hidden)
        self.mlp_resnet_blocks = nn.ModuleList(ResidualBlock(hidden) for _ in range(BLOCKS))
        self.layer_norm2, self.fc2 = nn.LayerNorm(hidden), nn.Linear(hidden, ACTION_TOKENS)

    def forward(self, states: Tensor) -> Tensor:
        """[B, 7 K, D] -> float32 [B, K, 7]."""
        actions = states.unflatten(1, (-1, ACTION_TOKENS)).flatten(2).to(self.fc1.weight.dtype)
        x = torch.relu(self.fc1(self.layer_norm1(actions)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return self.fc2(self.layer_norm2(x)).float()


@torch.no_grad()
def initialise_l1(head: L1Head, generator: torch.Generator) -> L1Head:
    """Draws the weights of `head` by fan-in (He, for ReLU) and zeroes its biases."""
    for module in head.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            module.bias.zero_()
    return head
