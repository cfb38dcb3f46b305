"""Parallel decoding of action chunks (OpenVLA-OFT): all K x 7 tokens in one pass.

The slots of the actions have zero embeddings; what distinguishes them is their position. As everywhere in a language
model, the state at one position speaks about the next token, so the slots' logits come from the last prompt token up
to the last slot but one. Two masks are in use: causal (RLinf's RL variant, discrete tokens, no `</s>`) and
bidirectional over the whole sequence (openvla-oft).

Each token is chosen independently of the others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vla_gen_bench.policies.openvla.config import Attention
from vla_gen_bench.policies.openvla.decoding import ACTION_TOKENS, ActionOutput
from vla_gen_bench.policies.openvla.model import Inputs, OpenVLA, Sequence
from vla_gen_bench.policies.openvla.sampling import Choose, greedy


def slot_states(model: OpenVLA, inputs: Inputs, chunk: int, attention: Attention) -> Tensor:
    """Returns the hidden states [B, 7 K, D] that speak about the action tokens, with gradients."""
    prompt = model.splice(inputs)
    slots = chunk * ACTION_TOKENS
    blank = prompt.embeds.new_zeros(len(inputs.ids), slots, prompt.embeds.shape[2])
    seen = prompt.mask.new_ones(len(inputs.ids), slots)
    sequence = Sequence(torch.cat([prompt.embeds, blank], 1), torch.cat([prompt.mask, seen], 1))
    return model.hidden(sequence, attention)[:, -slots - 1 : -1]


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


def parallel_forward(model: OpenVLA, inputs: Inputs, tokens: Tensor, attention: Attention) -> ActionOutput:
    """Returns the same for given tokens int64 [B, 7 K], with gradients: they are scored, not fed."""
    hidden = slot_states(model, inputs, tokens.shape[1] // ACTION_TOKENS, attention)
    return ActionOutput(tokens, model.action_logits(hidden), hidden)


class L1Head(nn.Module):
    """Continuous actions from the slots' states: the seven of one action side by side through a residual MLP.

    Two residual blocks (LayerNorm, linear, ReLU) between an input and an output layer, as in openvla-oft, which trains
    it on the L1 distance. Values are normalised actions, as the bins are.
    """

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or width
        entry = ACTION_TOKENS * width
        self.layer_norm1, self.fc1 = nn.LayerNorm(entry), nn.Linear(entry, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.ReLU()) for _ in range(2)
        )
        self.layer_norm2, self.fc2 = nn.LayerNorm(hidden), nn.Linear(hidden, ACTION_TOKENS)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, 7 K, D] -> float [B, K, 7]."""
        x = torch.relu(self.fc1(self.layer_norm1(hidden.unflatten(1, (-1, ACTION_TOKENS)).flatten(2))))
        for block in self.blocks:
            x = x + block(x)
        return self.fc2(self.layer_norm2(x))
