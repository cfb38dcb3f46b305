"""Value heads: predict an episode's remaining return from the language model's states in the action slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.policies.openvla.model.decoding import ACTION_TOKENS, teacher_forced
from vla_gen_bench.policies.openvla.model.vla import Inputs, OpenVLA

ValueInput = Literal["h0", "hn", "concat"]

INIT_STD = 0.02
RLINF_NAMES = {"mlp.0.": "head_l1.", "mlp.2.": "head_l2.", "mlp.4.": "head_l3."}
WRAPPINGS = ("module.", "value_head.")


class ValueHead(nn.Module):
    """Three layers with the exact GELU between: D -> 512 -> 128 -> outputs, the last one without bias.

    All weights start at N(0, 0.02), biases at 0. This is the reference's actual initialisation: its code has Kaiming,
    but `from_pretrained` overrides it.

    Args:
        width: D of the language model.
        source: "h0": the state at the last prompt token, after the final norm (the paper's). "hn": the state that
            predicts the last action token. "concat": all of them concatenated.
        outputs: 1, or K for one value per action of a chunk.
        slots: Action slots, for "concat".
        hidden: Widths of the two hidden layers.
    """

    def __init__(
        self,
        width: int,
        source: ValueInput = "h0",
        outputs: int = 1,
        slots: int = ACTION_TOKENS,
        hidden: tuple[int, int] = (512, 128),
    ) -> None:
        super().__init__()
        self.source = source
        entry = width * slots if source == "concat" else width
        self.head_l1, self.head_l2 = nn.Linear(entry, hidden[0]), nn.Linear(*hidden)
        self.head_l3 = nn.Linear(hidden[1], outputs, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """[B, slots, D], from `ActionOutput.hidden` -> float32 [B, outputs]."""
        picked = {"h0": states[:, 0], "hn": states[:, -1], "concat": states.flatten(1)}[self.source]
        x = picked.to(self.head_l1.weight.dtype)
        return self.head_l3(F.gelu(self.head_l2(F.gelu(self.head_l1(x))))).float()


@torch.no_grad()
def initialise_value(head: ValueHead, generator: torch.Generator) -> ValueHead:
    """Draws the weights of `head` from N(0, 0.02) and zeroes its biases."""
    for layer in (head.head_l1, head.head_l2, head.head_l3):
        layer.weight.normal_(0, INIT_STD, generator=generator)
        if layer.bias is not None:
            layer.bias.zero_()
    return head


def value_head_from(tensors: Mapping[str, Tensor], width: int, source: ValueInput | None = None) -> ValueHead:
    """Builds the head from its tensors, named as in RL4VLA (`head_l1`) or RLinf (`mlp.0`), prefixes allowed.

    Args:
        width: D of the language model.
        source: Its input; None = "h0" or "concat", by its input width ("hn" has the shape of "h0").

    Raises:
        CheckpointError: The tensors are not those of a value head, or the width fits no input.
    """
    renamed = {_rename(name): tensor for name, tensor in tensors.items()}
    expected = {"head_l1.weight", "head_l1.bias", "head_l2.weight", "head_l2.bias", "head_l3.weight"}
    if renamed.keys() != expected:
        raise CheckpointError(f"not a value head: tensors {sorted(tensors)}; expected {sorted(expected)}")
    hidden, entry = renamed["head_l1.weight"].shape
    slots, rest = divmod(entry, width)
    if rest:
        raise CheckpointError(f"value head: reads {entry} channels; expected {width}, the model's width, or a multiple")
    source = source or ("h0" if slots == 1 else "concat")
    if (source == "concat") != (slots > 1):
        raise CheckpointError(f"value head: reads {entry} channels, which does not fit '{source}'")
    sizes = (hidden, len(renamed["head_l2.weight"]))
    head = ValueHead(width, source, len(renamed["head_l3.weight"]), slots, sizes)
    try:
        head.load_state_dict(renamed)
    except RuntimeError as error:
        raise CheckpointError(f"value head: {' '.join(str(error).split())}") from None
    return head


class SeparateCritic(nn.Module):
    """A value function with its own backbone, the paper's alternative to a shared one (81.3 against 44.4 GB)."""

    def __init__(self, backbone: OpenVLA, head: ValueHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, inputs: Inputs, tokens: Tensor | None = None) -> Tensor:
        """Returns float32 [B, outputs].

        Args:
            tokens: int64 [B, 7], the actions; needed unless the head reads h0.
        """
        if self.head.source == "h0":
            return self.head(self.backbone.hidden(self.backbone.splice(inputs))[:, -1:])
        if tokens is None:
            raise ValueError(f"a value head on {self.head.source} needs the action tokens")
        return self.head(teacher_forced(self.backbone, inputs, tokens).hidden)


def _rename(name: str) -> str:
    for prefix in WRAPPINGS:
        name = name.removeprefix(prefix)
    for foreign, own in RLINF_NAMES.items():
        if name.startswith(foreign):
            return own + name.removeprefix(foreign)
    return name
