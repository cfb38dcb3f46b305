"""Converts observations to model inputs: images, prompts, and the targets of supervised training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla import actions as codec
from vla_gen_bench.policies.openvla.checkpoint.tokenizer import PromptTokenizer
from vla_gen_bench.policies.openvla.config import ImagePath, OpenVLAConfig
from vla_gen_bench.policies.openvla.images import to_pixels
from vla_gen_bench.policies.openvla.model.vla import IGNORED_LABEL, Inputs


@dataclass(frozen=True)
class Processor:
    """Turns images and instructions into `Inputs`.

    Attributes:
        image_path: How images are computed, see `images`; None = from the checkpoint.
        center_crop: Use only the central nine tenths, see `images`.
    """

    config: OpenVLAConfig
    tokenizer: PromptTokenizer
    image_path: ImagePath | None = None
    center_crop: bool = False

    def __call__(self, images: np.ndarray, instructions: Sequence[str]) -> Inputs:
        """Returns a batch on the CPU.

        Args:
            images: uint8 [B, H, W, 3], RGB.
            instructions: B sentences.
        """
        return self.with_prompts(images, [self.tokenizer.prompt(text) for text in instructions])

    def with_prompts(self, images: np.ndarray, prompts: Sequence[list[int]]) -> Inputs:
        """Like `__call__`, for prompts that are already token ids."""
        pixels = self.pixels(images)
        if len(pixels) != len(prompts):
            raise UserError(f"image: a batch of {len(pixels)} for {len(prompts)} instructions")
        ids, mask = pad_prompts(prompts, self.config.pad)
        return Inputs(ids, mask, pixels)

    def pixels(self, images: np.ndarray) -> Tensor:
        """uint8 [B, H, W, 3] -> [B, 6, image, image], see `images.to_pixels`."""
        return to_pixels(images, self.config, self.image_path or self.config.acting.image_path, self.center_crop)

    def action_tokens(self, normalised: np.ndarray) -> Tensor:
        """[B, K, 7] in [-1, 1] -> int64 token ids [B, 7 K]."""
        return torch.from_numpy(codec.encode(normalised, self.config.base_vocab)).flatten(1)

    def targets(self, inputs: Inputs, tokens: Tensor) -> tuple[Inputs, Tensor]:
        """Returns the training sequence and its labels: after the prompt, the action tokens and EOS are learned.

        `model.token_loss` over these is the reference's SFT loss (eight tokens, all 32064 ways). For autoregressive
        decoding only.
        """
        learned = torch.cat([tokens, tokens.new_full((len(tokens), 1), self.config.text.eos)], 1)
        labels = torch.cat([torch.full_like(inputs.ids, IGNORED_LABEL), learned], 1)
        return inputs.followed_by(learned), labels


def pad_prompts(prompts: Sequence[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Returns ids and mask, int64 [B, L], with padding between the first token (BOS) and the rest.

    In every row the patches then follow BOS, and the last column is the last prompt token (RL4VLA's layout).
    """
    if not prompts:
        raise UserError("instruction: an empty batch")
    longest = max(len(prompt) for prompt in prompts)
    gaps = [longest - len(prompt) for prompt in prompts]
    ids = [[prompt[0], *[pad] * gap, *prompt[1:]] for prompt, gap in zip(prompts, gaps, strict=True)]
    mask = [[1, *[0] * gap, *[1] * (len(prompt) - 1)] for prompt, gap in zip(prompts, gaps, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)
