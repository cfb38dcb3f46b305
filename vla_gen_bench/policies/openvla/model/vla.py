"""The model: image patches spliced into a prompt, a language model over both, and masks for both decoding modes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_gen_bench.policies.openvla.config import Attention, OpenVLAConfig
from vla_gen_bench.policies.openvla.model.llama import LanguageModel
from vla_gen_bench.policies.openvla.model.vision import FusedVision, Projector

IGNORED_LABEL = -100
INIT_STD = 0.02  # Llama's initializer_range


@dataclass(frozen=True)
class Inputs:
    """A batch of prompts with their images.

    Attributes:
        ids: int64 [B, L], BOS in column 0. Shorter prompts are padded after BOS (`processor.pad_prompts`), so
            the last column is the last prompt token of every row.
        mask: int64 or bool [B, L], 0 at padding.
        pixels: float [B, 6, image, image].
    """

    ids: Tensor
    mask: Tensor
    pixels: Tensor

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Inputs:
        """Returns the batch on `device`, its pixels as `dtype`."""
        return Inputs(self.ids.to(device), self.mask.to(device), self.pixels.to(device, dtype))

    def followed_by(self, tokens: Tensor) -> Inputs:
        """Returns the batch with int64 [B, n] `tokens` after the prompts."""
        return replace(self, ids=torch.cat([self.ids, tokens], 1), mask=F.pad(self.mask, (0, tokens.shape[1]), value=1))


@dataclass(frozen=True)
class Sequence:
    """The language model's input: embeddings [B, tokens, D] and a bool mask [B, tokens], False at padding."""

    embeds: Tensor
    mask: Tensor

    @property
    def positions(self) -> Tensor:
        """int64 [B, tokens]: number of real tokens before each; padding does not affect the others' positions."""
        return (self.mask.long().cumsum(1) - 1).clamp(min=0)

    def may_see(self, attention: Attention = "causal") -> Tensor:
        """Returns bool [B, 1, tokens, tokens], True where the query (row) may attend to the key (column)."""
        keys = self.mask[:, None, None, :]
        size = self.mask.shape[1]
        everywhere = torch.ones(size, size, dtype=torch.bool, device=self.mask.device)
        allowed = keys & (everywhere.tril() if attention == "causal" else everywhere)
        # Padding attends to itself: a query without keys would be NaN.
        return allowed | torch.eye(size, dtype=torch.bool, device=self.mask.device)


class OpenVLA(nn.Module):
    """The network of `openvla/openvla-7b` at any size, with its tensor names.

    Attributes:
        config: Its sizes.
        dead: Tensors of the checkpoint that no output depends on, see `checkpoint.dead`.
    """

    def __init__(self, config: OpenVLAConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_backbone = FusedVision(config)
        self.projector = Projector(config)
        self.language_model = LanguageModel(config.text)
        self.dead: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        return self.language_model.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.language_model.model.embed_tokens.weight.dtype

    def splice(self, inputs: Inputs) -> Sequence:
        """Inserts the projected patches between BOS and the rest of the prompt: [B, 1 + P + L - 1, D].

        If there are fewer images than prompts, each image is encoded once and repeated for consecutive prompts.
        """
        words = self.language_model.model.embed_tokens(inputs.ids)
        patches = self.projector(self.vision_backbone(inputs.pixels))
        patches = patches.repeat_interleave(len(words) // len(patches), 0) if len(patches) < len(words) else patches
        mask = inputs.mask.bool()
        seen = mask.new_ones(patches.shape[:2])
        return Sequence(
            torch.cat([words[:, :1], patches, words[:, 1:]], 1), torch.cat([mask[:, :1], seen, mask[:, 1:]], 1)
        )

    def hidden(self, sequence: Sequence, attention: Attention = "causal", trace: list[Tensor] | None = None) -> Tensor:
        """Returns the hidden states [B, tokens, D] after the final norm; `trace` as for `Llama`."""
        return self.language_model.model(sequence.embeds, sequence.positions, sequence.may_see(attention), trace=trace)

    def forward(self, inputs: Inputs) -> Tensor:
        """Returns float32 logits [B, P + L, vocab] over the full vocabulary at every position."""
        return self.language_model.logits(self.hidden(self.splice(inputs)))

    def action_logits(self, hidden: Tensor) -> Tensor:
        """Returns float32 [..., 256]: logits of the action tokens, lowest id first. Computes nothing else."""
        return self.language_model.row_logits(hidden, self.config.action_range)


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean next-token cross-entropy over the full vocabulary, as the reference's SFT.

    Args:
        logits: [B, P + L, vocab], from `OpenVLA.forward`.
        labels: int64 [B, L], the target ids; -100 is ignored. This function adds the patches' positions.
    """
    patches = labels.new_full((len(labels), logits.shape[1] - labels.shape[1]), IGNORED_LABEL)
    targets = torch.cat([labels[:, :1], patches, labels[:, 1:]], 1)[:, 1:]
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=IGNORED_LABEL)


@torch.no_grad()
def initialise(model: OpenVLA, generator: torch.Generator) -> OpenVLA:
    """Draws weights for training from scratch: N(0, 0.02), convolutions by fan-in, biases 0, norms 1."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0, fan_in**-0.5, generator=generator)
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            module.weight.normal_(0, INIT_STD, generator=generator)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            module.bias.zero_()
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_token", "reg_token", "pos_embed")):
            parameter.normal_(0, INIT_STD, generator=generator)
    return model
