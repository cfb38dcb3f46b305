"""Low-rank adapters: `y = W x + scale B A x`, on linear and convolution layers.

Own layers instead of peft's, because the action head computes only 256 of its rows, which must include the adapter,
and because importing peft takes seconds. `checkpoint.adapters` reads and writes them as peft files.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.policies.openvla.model.vla import OpenVLA

# What "all-linear" meant when the reference's adapters were made (peft 0.11.1), and RL4VLA's explicit list. Newer peft
# resolves the word differently (no lm_head, no patch embedding), so the list is always explicit.
TARGETS = tuple("proj qkv fc1 fc2 fc3 q kv q_proj k_proj v_proj o_proj gate_proj up_proj down_proj lm_head".split())


@dataclass(frozen=True)
class LoraConfig:
    """The layers and scaling of an adapter.

    Attributes:
        rank, alpha: The update is scaled by alpha / rank. The reference: 32 and 16.
        targets: Last parts of module names.
        stabilised: Scale by alpha / sqrt(rank) instead (rsLoRA).
        ranks, alphas: (pattern, value) for modules with a different value: regular expressions that match the end of
            a name, after a dot; the first match counts, as in peft.
    """

    rank: int = 32
    alpha: float = 16.0
    targets: tuple[str, ...] = TARGETS
    stabilised: bool = False
    ranks: tuple[tuple[str, int], ...] = ()
    alphas: tuple[tuple[str, float], ...] = ()

    def rank_of(self, module: str) -> int:
        """Returns the rank of a module's update."""
        return _matching(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        """Returns the factor of a module's update."""
        rank, alpha = self.rank_of(module), _matching(self.alphas, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.stabilised else rank)

    def covers(self, module: str) -> bool:
        """Whether the module of this name is adapted."""
        return any(module == target or module.endswith(f".{target}") for target in self.targets)


def _matching(patterns: tuple[tuple[str, Any], ...], module: str, otherwise: Any) -> Any:
    return next((value for key, value in patterns if re.match(rf"(.*\.)?({key})$", module)), otherwise)


class LoraLinear(nn.Linear):
    """A linear layer with an adapter. `weight` and `bias` are the frozen base's own parameters."""

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__(base.in_features, base.out_features, bias=False, device="meta")
        self.weight, self.bias, self.scale = base.weight, base.bias, scale
        like = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.lora_A = nn.Linear(base.in_features, rank, bias=False, **like)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False, **like)

    def forward(self, x: Tensor) -> Tensor:
        low = self.lora_A(x.to(self.lora_A.weight.dtype))
        return super().forward(x) + self.scale * self.lora_B(low).to(x.dtype)

    def rows(self, x: Tensor, begin: int, end: int) -> Tensor:
        """Returns outputs `begin` to `end` without computing the others. For layers without bias."""
        low = self.lora_A(x.to(self.lora_A.weight.dtype))
        update = F.linear(low, self.lora_B.weight[begin:end])
        return F.linear(x, self.weight[begin:end]) + self.scale * update.to(x.dtype)


class LoraConv2d(nn.Conv2d):
    """A convolution with an adapter: A is the same convolution into `rank` channels, B mixes them (1x1)."""

    def __init__(self, base: nn.Conv2d, rank: int, scale: float) -> None:
        size = {"kernel_size": base.kernel_size, "stride": base.stride, "padding": base.padding}
        super().__init__(base.in_channels, base.out_channels, bias=False, device="meta", **size)
        self.weight, self.bias, self.scale = base.weight, base.bias, scale
        like = {"device": base.weight.device, "dtype": base.weight.dtype, "bias": False}
        self.lora_A = nn.Conv2d(base.in_channels, rank, **size, **like)
        self.lora_B = nn.Conv2d(rank, base.out_channels, 1, **like)

    def forward(self, x: Tensor) -> Tensor:
        low = self.lora_A(x.to(self.lora_A.weight.dtype))
        return super().forward(x) + self.scale * self.lora_B(low).to(x.dtype)


def add_lora(
    model: OpenVLA, config: LoraConfig, generator: torch.Generator, dtype: torch.dtype | None = None
) -> OpenVLA:
    """Adds adapters to `model`, in place, and freezes all else. They start without effect: A ~ N(0, 1 / rank), B = 0.

    Args:
        dtype: Type of the adapters; None = the model's. A bfloat16 model learns better with float32 ones.
    """
    wrap(model, config, dtype=dtype)
    for name, module in adapted(model).items():
        nn.init.normal_(module.lora_A.weight, std=1 / config.rank_of(name), generator=generator)
        nn.init.zeros_(module.lora_B.weight)
    return model


@torch.no_grad()
def merge(model: OpenVLA) -> OpenVLA:
    """Replaces every adapted layer of `model` by a plain one with the update added, in place."""
    for name, module in adapted(model).items():
        update = product(module.lora_A.weight, module.lora_B.weight) * module.scale
        module.weight.data = (module.weight.data.float() + update).to(module.weight.dtype)
        _set(model, name, _plain(module))
    return model


def wrap(model: OpenVLA, config: LoraConfig, only: set[str] | None = None, dtype: torch.dtype | None = None) -> None:
    """Replaces the layers that `config` covers (of those named in `only`) by adapted ones, and freezes the model.

    The adapters' own weights are left as torch draws them.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if adapted(model):
        raise CheckpointError("the model has an adapter already; merge it first")
    for name, module in list(model.named_modules()):
        if not config.covers(name) or (only is not None and name not in only):
            continue
        if isinstance(module, nn.Linear):
            _set(model, name, LoraLinear(module, config.rank_of(name), config.scale_of(name)))
        elif isinstance(module, nn.Conv2d):
            _set(model, name, LoraConv2d(module, config.rank_of(name), config.scale_of(name)))
    for module in adapted(model).values():
        module.lora_A.to(dtype), module.lora_B.to(dtype)


def adapted(model: nn.Module) -> dict[str, LoraLinear | LoraConv2d]:
    """Returns the adapted layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, (LoraLinear, LoraConv2d))}


def _plain(module: LoraLinear | LoraConv2d) -> nn.Module:
    if isinstance(module, LoraLinear):
        plain: nn.Module = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
    else:
        size = {"kernel_size": module.kernel_size, "stride": module.stride, "padding": module.padding}
        plain = nn.Conv2d(module.in_channels, module.out_channels, bias=False, device="meta", **size)
    plain.weight, plain.bias = module.weight, module.bias
    return plain


def product(low: Tensor, high: Tensor) -> Tensor:
    """Returns B A in float32, in the shape of the weight: convolution kernels are flattened for it."""
    return (high.float().flatten(1) @ low.float().flatten(1)).view(len(high), *low.shape[1:])


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
