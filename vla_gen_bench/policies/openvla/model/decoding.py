"""Autoregressive action tokens: decoding with a key-value cache, and the same positions under teacher forcing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vla_gen_bench.policies.openvla.model.llama import Cache
from vla_gen_bench.policies.openvla.model.sampling import Choose, greedy
from vla_gen_bench.policies.openvla.model.vla import Inputs, OpenVLA

ACTION_TOKENS = 7


@dataclass(frozen=True)
class ActionOutput:
    """The model's output at the S action token slots; S = 7, or 7 K in parallel decoding.

    Attributes:
        tokens: int64 [B, S], token ids.
        logits: float32 [B, S, 256], over the action tokens, before any temperature; [B, S, vocab] with `any_token`.
        hidden: [B, S, D], the states the logits come from. `hidden[:, 0]` is h0, the state at the last prompt token.
    """

    tokens: Tensor
    logits: Tensor
    hidden: Tensor


@torch.no_grad()
def decode(model: OpenVLA, inputs: Inputs, choose: Choose = greedy, *, any_token: bool = False) -> ActionOutput:
    """Chooses seven action tokens, one after the other. No gradients.

    One pass over image and prompt, then six over one token each.

    Args:
        any_token: Choose from the full vocabulary, as openvla's `predict_action` does; a trained model picks action
            tokens anyway. RL4VLA and this project choose only from the 256.
    """
    prompt = model.splice(inputs)
    begin = 0 if any_token else model.config.action_range[0]
    score = model.language_model.logits if any_token else model.action_logits
    length = prompt.mask.shape[1]
    cache = Cache(model.config.text, len(inputs.ids), length + ACTION_TOKENS - 1, prompt.embeds)
    llama = model.language_model.model
    hidden = llama(prompt.embeds, prompt.positions, prompt.may_see(), cache)[:, -1:]
    states, logits, tokens = [], [], []
    for slot in range(ACTION_TOKENS):
        states.append(hidden)
        logits.append(score(hidden[:, 0]))
        tokens.append(begin + choose(logits[-1], slot))
        if slot == ACTION_TOKENS - 1:
            break
        position = prompt.positions[:, -1:] + 1 + slot
        seen = torch.nn.functional.pad(prompt.mask, (0, slot + 1), value=True)[:, None, None, :]
        hidden = llama(llama.embed_tokens(tokens[-1])[:, None], position, seen, cache)
    return ActionOutput(torch.stack(tokens, 1), torch.stack(logits, 1), torch.cat(states, 1))


def teacher_forced(model: OpenVLA, inputs: Inputs, tokens: Tensor) -> ActionOutput:
    """Returns the same as `decode` for given action tokens, in one pass and with gradients.

    Args:
        tokens: int64 [B, 7], action token ids. The last one is not fed because nothing after it is predicted.
    """
    sequence = model.splice(inputs.followed_by(tokens[:, :-1]))
    hidden = model.hidden(sequence)[:, -tokens.shape[1] :]
    return ActionOutput(tokens, model.action_logits(hidden), hidden)
