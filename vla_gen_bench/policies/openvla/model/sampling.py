"""Probabilities over the 256 action tokens: choosing, log-probability, entropy.

Log-probabilities are those of the raw logits at temperature 1 over all 256 tokens (RL4VLA, PPO with T = 1 rollouts);
temperature and top-k apply only to choosing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Choose = Callable[[Tensor, int], Tensor]
"""(float32 logits [B, 256] of one slot, number of the slot) -> int64 [B], indices into the 256."""


def greedy(logits: Tensor, slot: int = 0) -> Tensor:
    """The most likely token, the lowest of equals."""
    return logits.argmax(-1)


def sampler(uniforms: Tensor, temperature: float = 1.0, top_k: int | None = None) -> Choose:
    """Returns a chooser by inversion sampling; the caller passes the draws, so each row can have its own stream.

    With inversion in float64 a row's choice depends only on its own logits and draw. Logits vary by about 1e-6 with the
    batch they are computed in (float32), so about one choice in 1e6 may differ.

    Args:
        uniforms: float64 [B, slots] in [0, 1).
        temperature: 0 = greedy; the draws are then unused.
        top_k: Only the k most likely are eligible (including ties with the k-th). None = all 256. The
            reference implicitly sampled from 50, a default of transformers.
    """
    if temperature == 0:
        return greedy

    def choose(logits: Tensor, slot: int) -> Tensor:
        scaled = logits.double() / temperature
        if top_k is not None and top_k < scaled.shape[-1]:
            least = scaled.topk(top_k, dim=-1).values[..., -1:]
            scaled = scaled.masked_fill(scaled < least, -torch.inf)
        weights = scaled.softmax(-1)
        cumulative = weights.cumsum(-1)
        wanted = uniforms[:, slot, None].to(logits.device) * cumulative[:, -1:]
        index = torch.searchsorted(cumulative, wanted, right=True)[:, 0]
        # Rounding must not carry a draw past the last eligible token.
        last = weights.shape[-1] - 1 - (weights.flip(-1) > 0).long().argmax(-1)
        return torch.minimum(index, last)

    return choose


def log_probs(logits: Tensor, chosen: Tensor) -> Tensor:
    """Returns float32 [..., slots]: log-probability of each chosen token; sum over slots for that of an action.

    Args:
        logits: float32 [..., slots, 256].
        chosen: int64 [..., slots], indices into the 256.
    """
    return logits.float().log_softmax(-1).gather(-1, chosen[..., None])[..., 0]


def entropy(logits: Tensor) -> Tensor:
    """Returns float32 [..., slots], nats: entropy over the 256 of each slot (RL4VLA takes their mean)."""
    logs = logits.float().log_softmax(-1)
    return -(logs.exp() * logs).sum(-1)
