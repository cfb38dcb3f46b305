"""Parallel decoding of action chunks (OpenVLA-OFT): all K x 7 tokens in one pass.

The action slots have zero embeddings; only their positions distinguish them. As usual in a language model, the state at
one position predicts the next token, so the slots' logits come from the last prompt token to the second-to-last slot.
Two masks are supported: causal (RLinf's RL variant, discrete tokens, no `</s>`) and bidirectional over the full
sequence (openvla-oft).

Each token is chosen independently of the others.

Instead of tokens, a regression head may read the same states (`l1_head`), as openvla-oft's does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vla_gen_bench.policies.openvla import actions as codec
from vla_gen_bench.policies.openvla.config import Attention
from vla_gen_bench.policies.openvla.model.decoding import ACTION_TOKENS, ActionOutput, decode, teacher_forced
from vla_gen_bench.policies.openvla.model.l1_head import L1Head
from vla_gen_bench.policies.openvla.model.sampling import Choose, greedy
from vla_gen_bench.policies.openvla.model.vla import Inputs, OpenVLA, Sequence


def slot_states(model: OpenVLA, inputs: Inputs, chunk: int, attention: Attention) -> Tensor:
    """Returns the hidden states [B, 7 K, D] that predict the action tokens, with gradients."""
    return states_with_slots(model, inputs, chunk, attention)[:, -chunk * ACTION_TOKENS - 1 : -1]


def states_with_slots(model: OpenVLA, inputs: Inputs, chunk: int, attention: Attention) -> Tensor:
    """Returns the hidden states [B, 1 + P + L - 1 + 7 K, D] of BOS, patches, words and blank action slots."""
    return model.hidden(with_slots(model, inputs, chunk), attention)


def with_slots(model: OpenVLA, inputs: Inputs, chunk: int) -> Sequence:
    """Returns the prompt's embeddings with blank action slots after them."""
    prompt = model.splice(inputs)
    slots = chunk * ACTION_TOKENS
    blank = prompt.embeds.new_zeros(len(inputs.ids), slots, prompt.embeds.shape[2])
    seen = prompt.mask.new_ones(len(inputs.ids), slots)
    return Sequence(torch.cat([prompt.embeds, blank], 1), torch.cat([prompt.mask, seen], 1))


def parallel_decode(
    model: OpenVLA, inputs: Inputs, chunk: int, attention: Attention, choose: Choose = greedy
) -> ActionOutput:
    """Chooses 7 K tokens in one pass, action by action; `tokens.view(B, K, 7)` are the actions. No gradients."""
    with torch.no_grad():
        hidden = slot_states(model, inputs, chunk, attention)
        logits = model.action_logits(hidden)
    begin, _ = model.config.action_range
    tokens = torch.stack([begin + choose(logits[:, slot], slot) for slot in range(logits.shape[1])], 1)
    return ActionOutput(tokens, logits, hidden)


def choose_tokens(model: OpenVLA, inputs: Inputs, choose: Choose = greedy) -> ActionOutput:
    """Chooses the tokens [B, 7 K] by the decoding in the model's config: parallel or autoregressive."""
    acting = model.config.acting
    if acting.decoding == "parallel":
        return parallel_decode(model, inputs, acting.chunk, acting.attention, choose)
    return decode(model, inputs, choose)


def parallel_forward(model: OpenVLA, inputs: Inputs, tokens: Tensor, attention: Attention) -> ActionOutput:
    """Returns the same for given tokens int64 [B, 7 K], with gradients: they are scored, not fed."""
    hidden = slot_states(model, inputs, tokens.shape[1] // ACTION_TOKENS, attention)
    return ActionOutput(tokens, model.action_logits(hidden), hidden)


def score_tokens(model: OpenVLA, inputs: Inputs, tokens: Tensor) -> ActionOutput:
    """Returns the model's output for given tokens [B, 7 K], by its config's decoding, with gradients."""
    acting = model.config.acting
    if acting.decoding == "parallel":
        return parallel_forward(model, inputs, tokens, acting.attention)
    return teacher_forced(model, inputs, tokens)


def teacher(model: OpenVLA, inputs: Inputs, head: L1Head | None = None) -> Tensor:
    """Returns the prediction that supervised training compares with a demonstrated chunk, in one pass, with gradients.

    It needs no actions because none is fed. K and the mask are those of `model.config.acting`.

    Returns:
        float32 logits [B, 7 K, 256] over the action tokens; with `head` normalised actions [B, K, 7].
    """
    acting = model.config.acting
    hidden = slot_states(model, inputs, acting.chunk, acting.attention)
    return model.action_logits(hidden) if head is None else head(hidden)


def chunk_loss(model: OpenVLA, inputs: Inputs, normalised: Tensor, head: L1Head | None = None) -> Tensor:
    """Returns the loss of supervised training on a batch of chunks, a scalar with gradients.

    Mean cross-entropy of the 7 K tokens over the 256 bins; with `head` the mean absolute error (openvla-oft).

    Args:
        normalised: float [B, K, 7], the demonstrated actions in [-1, 1].
    """
    predicted = teacher(model, inputs, head)
    if head is not None:
        return F.l1_loss(predicted, normalised.to(predicted))
    begin, end = model.config.action_range
    bins = torch.from_numpy(codec.encode(normalised.cpu().numpy(), end) - begin).to(predicted.device)
    return F.cross_entropy(predicted.flatten(0, 1), bins.flatten())
