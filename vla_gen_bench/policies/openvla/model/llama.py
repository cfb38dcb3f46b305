"""Llama with grouped queries, rotary positions and a key-value cache, under the tensor names of transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_gen_bench.policies.openvla.config import LlamaConfig


class Cache:
    """Keys and values of one decoding run, in preallocated memory. For inference only.

    Args:
        length: Capacity in positions.
    """

    def __init__(self, config: LlamaConfig, batch: int, length: int, like: Tensor) -> None:
        shape = (config.layers, 2, batch, config.kv_heads, length, config.head_dim)
        self._store = like.new_empty(shape)
        self.filled = 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Appends [B, kv_heads, new, head_dim] and returns all keys and values of `layer` so far."""
        end = self.filled + key.shape[2]
        keys, values = self._store[layer]
        keys[:, :, self.filled : end] = key
        values[:, :, self.filled : end] = value
        return keys[:, :, :end], values[:, :, :end]


class RMSNorm(nn.Module):
    """Scales to unit mean square, in float32, then by a learned weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def rotary(positions: Tensor, config: LlamaConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns cosine and sine [B, 1, tokens, head_dim] for integer positions [B, tokens]; computed in float32."""
    exponent = torch.arange(0, config.head_dim, 2, device=positions.device).float() / config.head_dim
    angles = positions[:, None, :, None].float() * (1.0 / config.rope_theta**exponent)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotates channel i with channel i + head_dim / 2, the half-split convention of transformers."""
    low, high = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-high, low], dim=-1) * sine


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention, [B, heads, tokens, head_dim] each; `mask` as for `Llama`.

    On a CPU it repeats the steps of the reference's "eager" attention and equals its recorded outputs to the last bit;
    the fused kernel differs by 6e-6 in the logits. On a GPU it uses the fused kernel to save memory.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = masked_scores(query, key, mask)
    return scores.softmax(-1, dtype=torch.float32).to(query.dtype) @ value


def masked_scores(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """Returns attention before the softmax, [B, heads, tokens, keys]; `mask` as for `Llama`."""
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


class Attention(nn.Module):
    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        inner, shared = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, inner, bias=False)
        self.k_proj = nn.Linear(config.width, shared, bias=False)
        self.v_proj = nn.Linear(config.width, shared, bias=False)
        self.o_proj = nn.Linear(inner, config.width, bias=False)

    def log_shares(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Returns float32 [B, heads, tokens, tokens], logarithms of how much each token attends to each, for losses."""
        query, key = self._query_key(x, turn)
        return masked_scores(query, self._grouped(key), mask).log_softmax(-1, dtype=torch.float32)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor, cache: Cache | None) -> Tensor:
        (query, key), value = self._query_key(x, turn), self._heads(self.v_proj(x))
        if cache is not None:
            key, value = cache.extend(self.layer, key, value)
        mixed = attend(query, self._grouped(key), self._grouped(value), mask)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def _query_key(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """[B, tokens, D] -> rotated [B, heads, tokens, head_dim] and [B, kv_heads, tokens, head_dim]."""
        return rotate(self._heads(self.q_proj(x)), *turn), rotate(self._heads(self.k_proj(x)), *turn)

    def _grouped(self, x: Tensor) -> Tensor:
        """Repeats the head that a group of queries shares: [B, kv_heads, ...] -> [B, heads, ...]."""
        groups = self.config.heads // self.config.kv_heads
        return x.repeat_interleave(groups, dim=1) if groups > 1 else x

    def _heads(self, x: Tensor) -> Tensor:
        """[B, tokens, n * head_dim] -> [B, n, tokens, head_dim]."""
        return x.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp, bias=False)
        self.down_proj = nn.Linear(config.mlp, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: LlamaConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.rms_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.width, config.rms_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor, cache: Cache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        # Weights are always set afterwards. nn.Embedding's own initialisation on the meta device imports torch._dynamo:
        # 0.7 s and 65 MB in every worker.
        self.embed_tokens = nn.Embedding.from_pretrained(torch.empty(config.vocab, config.width), freeze=False)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.width, config.rms_eps)

    def last_attention(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Returns the last layer's `Attention.log_shares` for its input `x` [B, tokens, D], from a trace."""
        layer = self.layers[-1]
        return layer.self_attn.log_shares(layer.input_layernorm(x), rotary(positions, self.config, x.dtype), mask)

    def forward(
        self,
        embeds: Tensor,
        positions: Tensor,
        mask: Tensor,
        cache: Cache | None = None,
        trace: list[Tensor] | None = None,
    ) -> Tensor:
        """Returns the hidden states [B, tokens, D] after the final norm.

        Args:
            embeds: [B, tokens, D].
            positions: int64 [B, tokens], rotary positions.
            mask: bool [B, 1, tokens, keys], True where a query may look; keys = tokens already cached + tokens.
            cache: Extended by these tokens.
            trace: Filled with the input of every layer and the result: `hidden_states` of transformers.
        """
        turn = rotary(positions, self.config, embeds.dtype)
        x = embeds
        for layer in self.layers:
            if trace is not None:
                trace.append(x)
            x = layer(x, turn, mask, cache)
        if cache is not None:
            cache.filled += embeds.shape[1]
        x = self.norm(x)
        if trace is not None:
            trace.append(x)
        return x


class LanguageModel(nn.Module):
    """Llama with its output matrix; actions need only 256 of its rows."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.model = Llama(config)
        self.lm_head = nn.Linear(config.width, config.vocab, bias=False)

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns float32 logits over the full vocabulary, [..., vocab]."""
        return self.lm_head(hidden).float()

    def row_logits(self, hidden: Tensor, rows: tuple[int, int]) -> Tensor:
        """Returns float32 logits [..., n] of the tokens rows[0] <= id < rows[1], without computing the others."""
        return linear_rows(self.lm_head, hidden, *rows).float()


def linear_rows(layer: nn.Module, x: Tensor, begin: int, end: int) -> Tensor:
    """Returns `layer(x)[..., begin:end]`, computing only these outputs, including low-rank updates.

    `layer` is an `nn.Linear` without bias, one from `lora.py`, or one wrapped by peft. For the latter, `.weight` is the
    base weight without the adapter: slicing only that would give the adapter neither effect nor gradient.
    """
    if hasattr(layer, "rows"):  # lora.LoraLinear
        return layer.rows(x, begin, end)
    base = getattr(layer, "base_layer", layer)
    out = F.linear(x, base.weight[begin:end])
    if base is layer or layer.merged or layer.disable_adapters:
        return out
    for name in _active(layer.active_adapters, layer.lora_A):
        low = layer.lora_A[name](layer.lora_dropout[name](x.to(layer.lora_A[name].weight.dtype)))
        out = out + layer.scaling[name] * F.linear(low, layer.lora_B[name].weight[begin:end]).to(out.dtype)
    return out


def _active(names: Sequence[str], present: nn.ModuleDict) -> list[str]:
    return [name for name in names if name in present]
