"""A model's structure as frozen data: two vision towers, a projector, a language model, and its decoding.

Letters in shapes: B = batch, P = image patches, L = prompt tokens, K = actions in a chunk, D = width of the language
model, A = 7 action dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from vla_gen_bench.errors import UserError, suggest

PixelRange = Literal["imagenet", "half"]
ResizeStrategy = Literal["resize-naive", "letterbox", "resize-crop"]
ImagePath = Literal["pil", "tensor", "tensor-bf16"]
Attention = Literal["causal", "bidirectional"]
Decoding = Literal["autoregressive", "parallel"]
Head = Literal["tokens", "l1"]

ACTION_BINS = 256
PROJECTOR_EXPANSION = 4  # fc1 is four times as wide as the fused features (`fused-gelu-mlp` of prismatic)


class CheckpointError(UserError):
    """A checkpoint cannot be used; the message names the problem, the file and what was expected."""


STEM_GROUP = 8  # channels that are normalised together


@dataclass(frozen=True)
class ViTConfig:
    """One vision tower.

    Attributes:
        width, depth, heads, mlp: Channels, blocks (including the unused last one), attention heads, hidden MLP size.
        patch: Side of a patch, pixels.
        image: Side of the square input, pixels; a multiple of `patch`.
        cls_token: Whether the first token is a class token.
        registers: Register tokens after it (DINOv2 "reg4": 4).
        layer_scale: Whether each residual branch is scaled per channel (DINOv2).
        attn_pool: Whether the checkpoint contains an attention-pooling head (SigLIP); it is never used here.
        pixels: How pixels are normalised: "imagenet" mean and std, or "half": 0.5 and 0.5.
        stem: Channels of 3x3 stride-2 convolutions before the patch convolution, which then covers patch / 2^n of
            their pixels. None in published models; at 64 px it learns to localise several times faster.
        stem_norm: Whether each of these convolutions is followed by group normalisation, `STEM_GROUP` channels a group.
    """

    width: int
    depth: int
    heads: int
    mlp: int
    patch: int
    image: int
    cls_token: bool = False
    registers: int = 0
    layer_scale: bool = False
    attn_pool: bool = False
    pixels: PixelRange = "half"
    stem: tuple[int, ...] = ()
    stem_norm: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise CheckpointError(f"vision tower: width {self.width} is no multiple of its {self.heads} heads")
        if self.image % self.patch:
            raise CheckpointError(f"vision tower: image side {self.image} is no multiple of the patch, {self.patch}")
        if self.patch % 2 ** len(self.stem):
            raise CheckpointError(f"vision tower: patch {self.patch} cannot be halved {len(self.stem)} times (stem)")
        odd = [channels for channels in self.stem if self.stem_norm and channels % STEM_GROUP]
        if odd:
            raise CheckpointError(f"vision tower: stem: stem_norm needs multiples of {STEM_GROUP}, not {odd[0]}")

    @property
    def patches(self) -> int:
        """P, the number of tokens the tower returns."""
        return (self.image // self.patch) ** 2

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches, which the features exclude."""
        return self.cls_token + self.registers


@dataclass(frozen=True)
class LlamaConfig:
    """The language model. The defaults are those of `LlamaConfig` in transformers 4.40.1, not those of Llama-2-7b.

    `openvla/openvla-7b` omits almost all of them from its config.json. Its `rms_norm_eps` is therefore 1e-6 at
    inference although Llama 2 was trained with 1e-5.
    """

    vocab: int = 32000
    width: int = 4096
    mlp: int = 11008
    layers: int = 32
    heads: int = 32
    kv_heads: int = 32
    max_positions: int = 2048
    rms_eps: float = 1e-6
    rope_theta: float = 10000.0
    bos: int = 1
    eos: int = 2

    def __post_init__(self) -> None:
        if self.width % self.heads or self.heads % self.kv_heads or self.head_dim % 2:
            raise CheckpointError(
                f"text_config: hidden_size {self.width}, {self.heads} heads and {self.kv_heads} key-value heads do not "
                "fit: each must divide the one before, and a head needs an even width"
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True)
class Acting:
    """This project's additional checkpoint fields, under the key `vla_gen_bench` of config.json.

    Attributes:
        decoding: "autoregressive": one token after the other. "parallel": all K x 7 in one pass (OFT).
        attention: Mask of parallel decoding. RLinf's variant is causal, openvla-oft's bidirectional.
        chunk: K.
        head: "tokens": 256 bins per number. "l1": numbers from a regression head on the states of parallel decoding,
            whose weights are in a separate file.
        image_path: How images were resized in training, see `images`.
        unnorm_key: The entry of `norm_stats` used by default.
    """

    decoding: Decoding = "autoregressive"
    attention: Attention = "causal"
    chunk: int = 1
    image_path: ImagePath = "pil"
    unnorm_key: str | None = None
    head: Head = "tokens"

    def __post_init__(self) -> None:
        kinds = {"decoding": Decoding, "attention": Attention, "image_path": ImagePath, "head": Head}
        for name, kind in kinds.items():
            if getattr(self, name) not in get_args(kind):
                raise CheckpointError(
                    f"{name}: '{getattr(self, name)}'{suggest(str(getattr(self, name)), get_args(kind))}"
                )
        if not isinstance(self.chunk, int) or self.chunk < 1:
            raise CheckpointError(f"chunk: expected a whole number >= 1, got {self.chunk!r}")
        if self.head == "l1" and self.decoding != "parallel":
            raise CheckpointError(f"head: l1 needs decoding: parallel, not {self.decoding}")
        if self.decoding == "autoregressive" and (self.chunk != 1 or self.attention != "causal"):
            raise CheckpointError(
                f"chunk {self.chunk} with {self.attention} attention needs decoding: parallel; "
                "autoregressive decoding is causal and gives one action"
            )


@dataclass(frozen=True)
class OpenVLAConfig:
    """A complete model.

    Attributes:
        vision: The two towers; their features are concatenated in this order, and so are their normalised pixels.
        text: The language model; its `vocab` includes the `pad_multiple` rows after the tokenizer's tokens.
        pad_multiple: Rows of the embedding beyond the tokenizer's vocabulary (`pad_to_multiple_of`).
        pad: Id of the padding token.
        resize: How an image becomes square, see `images`.
        norm_stats: Data set -> statistics, as in config.json.
        acting: See `Acting`.
        fields: The fields of config.json as read, to be written back.
    """

    vision: tuple[ViTConfig, ViTConfig]
    text: LlamaConfig
    pad_multiple: int
    pad: int
    resize: ResizeStrategy = "resize-naive"
    norm_stats: dict[str, Any] = field(default_factory=dict)
    acting: Acting = Acting()
    fields: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        first, second = self.vision
        if (first.image, first.patches) != (second.image, second.patches):
            raise CheckpointError(
                f"the vision towers see {first.image} and {second.image} px and give {first.patches} and "
                f"{second.patches} patches; fusing them on channels needs equal ones"
            )
        if self.base_vocab < ACTION_BINS:
            raise CheckpointError(f"{self.base_vocab} tokens leave no room for {ACTION_BINS} action tokens")

    @property
    def base_vocab(self) -> int:
        """Size of the tokenizer's vocabulary; its last 256 ids are the action tokens."""
        return self.text.vocab - self.pad_multiple

    @property
    def action_range(self) -> tuple[int, int]:
        """First action token and the one after the last: 31744, 32000 for the published model."""
        return self.base_vocab - ACTION_BINS, self.base_vocab

    @property
    def patches(self) -> int:
        return self.vision[0].patches

    @property
    def image(self) -> int:
        """Side of the square input, pixels."""
        return self.vision[0].image
