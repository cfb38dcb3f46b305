"""The hindsight loss: a small head, used only in training, predicts what the demonstration itself reveals later.

It gives the image patches a short path to what acting needs: where the end effector is, whether it should be closed,
and where it will be when it closes and opens next (`frames.hindsight`).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_gen_bench.policies.openvla.config import OpenVLAConfig
from vla_gen_bench.policies.openvla.model.decoding import ACTION_TOKENS
from vla_gen_bench.train.demos import frames as fr

Reads = Literal["patches", "patches and states"]
HIDDEN = 128


class Hindsight(nn.Sequential):
    """The head.

    Args:
        reads: "patches": the image alone. "patches and states": also the mean of the states that choose the first
            action; they have read the sentence, which tells what will be grasped where several things lie.
    """

    def __init__(self, config: OpenVLAConfig, reads: Reads) -> None:
        vectors = config.patches if reads == "patches" else config.patches + 1
        layers = nn.Linear(vectors * config.text.width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, len(fr.AUXILIARY))
        super().__init__(*layers)
        self.reads = reads

    def loss(self, patches: Tensor, states: Tensor | None, wanted: Tensor, known: Tensor) -> Tensor:
        """Returns the mean error of the known targets, a scalar.

        Args:
            patches: [B, P, D], projected image patches.
            states: [B, S, D], the states that choose action tokens; None = zeros, where no sentence was read.
            wanted, known: float32 and bool [B, 13], in the order of `frames.AUXILIARY`.
        """
        read = [patches.flatten(1).float()]
        if self.reads != "patches":
            first = torch.zeros_like(patches[:, 0]) if states is None else states[:, :ACTION_TOKENS].mean(1)
            read.append(first.float())
        predicted = self(torch.cat(read, 1))
        known = known.to(predicted)
        errors = F.smooth_l1_loss(predicted, wanted.to(predicted), reduction="none")
        return (errors * known).sum() / known.sum().clamp(min=1)
