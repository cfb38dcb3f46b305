"""`OpenVLAPolicy`: an OpenVLA checkpoint of any size and decoding as a policy of the benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla import actions as codec
from vla_gen_bench.policies.openvla.checkpoint.config_file import CONFIG_FILE
from vla_gen_bench.policies.openvla.checkpoint.loading import Loaded, count_parameters, load
from vla_gen_bench.policies.openvla.checkpoint.tokenizer import TOKENIZER_FILE, PromptTokenizer
from vla_gen_bench.policies.openvla.config import CheckpointError, Decoding, ImagePath, OpenVLAConfig
from vla_gen_bench.policies.openvla.model.decoding import ACTION_TOKENS
from vla_gen_bench.policies.openvla.model.sampling import sampler
from vla_gen_bench.policies.openvla.oft import choose_tokens, teacher
from vla_gen_bench.policies.openvla.options import DTYPES, Dtype, check_options
from vla_gen_bench.policies.openvla.processor import Processor
from vla_gen_bench.protocol import ActionSpec, Observation

AUGMENTED = "image_aug"  # part of the folder names from openvla's fine-tuning
# Below this many parameters a second thread slows evaluations down: -3 to -12% for nano and pico.
SMALL_MODEL = 20_000_000
SAMPLING_STREAM = 0x0FA  # separates this policy's draws from others keyed by the episode's seed


class OpenVLAPolicy:
    """OpenVLA: a vision-language-action model that writes actions as tokens, or in chunks as numbers (OpenVLA-OFT).

    The draw of every token is keyed by (episode seed, step, slot), so an observation gives the same action alone, in
    any batch and in any worker. This is exact up to float rounding: logits vary with the batch by about 1e-6 in
    float32, so about one token in a million may differ, more in bfloat16. `batch_size=1` removes even that.

    Args:
        checkpoint: A folder in Hugging Face layout, a peft adapter folder, or "owner/name" on the hub.
        device: "cpu", "cuda", "cuda:1", ...
        dtype: "float32", "bfloat16" or "float16".
        temperature: Sampling temperature; 0 = greedy. The paper evaluates at 0.6.
        top_k: Only the k most likely of the 256 tokens are eligible; None = all. RL4VLA used 50, by default. Refused
            for a checkpoint with a regression head, which draws no tokens.
        unnorm_key: Entry of the checkpoint's `norm_stats`; None = its own choice, or the only one.
        base: Base model of an adapter; None = the one named by the adapter. Refused for a full checkpoint.
        revision: Commit on the hub, of the checkpoint or of the base under an adapter in a folder; None = the one
            pinned in `policies/openvla/hub.yaml`.
        image_path: "pil", "tensor" or "tensor-bf16", see `images`; None = from the checkpoint.
        center_crop: Use only the central nine tenths of the image, as openvla evaluates checkpoints trained with
            image augmentation; None = no, but refuse a checkpoint whose name has it ("...--image_aug").
        batch_size: Largest number of episodes per forward pass; None = all.
        vision_heads: Attention heads of the vision towers, for checkpoints that do not specify them.
        decoding: "autoregressive" or "parallel": refuse a checkpoint with other decoding; None = accept any.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        UserError: An option is out of range.
    """

    memoryless = True

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "cpu",
        dtype: Dtype = "float32",
        temperature: float = 0.6,
        top_k: int | None = None,
        unnorm_key: str | None = None,
        base: str | None = None,
        revision: str | None = None,
        image_path: ImagePath | None = None,
        center_crop: bool | None = None,
        batch_size: int | None = None,
        vision_heads: Sequence[int] | None = None,
        decoding: Decoding | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "checkpoint")}
        check_options(given)
        heads = None if vision_heads is None else (vision_heads[0], vision_heads[1])
        loaded = load(checkpoint, base=base, revision=revision, device=device, dtype=DTYPES[dtype], vision_heads=heads)
        self.model, self.config = loaded.model.requires_grad_(False), loaded.config
        _check_crop(center_crop, checkpoint, loaded.folder)
        _check_decoding(decoding, self.config, loaded.folder)
        self.threads = 1 if count_parameters(self.model) < SMALL_MODEL else None
        _check_sampling(top_k, loaded)
        self.head = loaded.action_head and loaded.action_head.requires_grad_(False)
        tokenizer = PromptTokenizer.from_folder(_tokenizer_home(loaded), self.config)
        self.processor = Processor(self.config, tokenizer, image_path, bool(center_crop))
        self.stats = codec.action_stats(self.config, unnorm_key, f"{loaded.base / CONFIG_FILE}: norm_stats")
        self.temperature, self.top_k, self.batch_size = temperature, top_k, batch_size
        self.action_spec = ActionSpec(chunk=self.config.acting.chunk)
        sampled = {"temperature": temperature, "top_k": top_k} if self.head is None else {"head": "l1"}
        seen = {"center_crop": True} if center_crop else {}
        self.decoding = {**sampled, "device": device, "dtype": dtype, **seen}
        self._seeds: list[int] = []
        self._prompts: list[list[int]] = []

    def reset(self, instructions: Sequence[str], seeds: Sequence[int]) -> None:
        """Starts B new episodes; raises `UserError` for an instruction of only spaces or too long."""
        self._prompts = [self.processor.tokenizer.prompt(text) for text in instructions]
        self._seeds = [int(seed) for seed in seeds]

    def act(self, observation: Observation) -> np.ndarray:
        """Returns float32 [B, K, 7]; raises `UserError` for images that are not uint8 [B, H, W, 3]."""
        if len(observation) != len(self._prompts):
            raise UserError(f"act() got {len(observation)} episodes, reset() began {len(self._prompts)}")
        size = self.batch_size or len(observation)
        parts = [range(first, min(first + size, len(observation))) for first in range(0, len(observation), size)]
        normalised = np.concatenate([self._normalised(observation, rows) for rows in parts])
        return codec.gripper_command(self.stats.unnormalise(normalised)).astype(np.float32)

    @torch.inference_mode()
    def _normalised(self, observation: Observation, rows: range) -> np.ndarray:
        """Returns the actions of some episodes, float [rows, K, 7] in [-1, 1]."""
        images = observation.image[rows.start : rows.stop]
        inputs = self.processor.with_prompts(images, [self._prompts[b] for b in rows])
        inputs = inputs.to(self.model.device, self.model.dtype)
        if self.head is not None:
            return teacher(self.model, inputs, self.head).clamp(-1, 1).cpu().numpy()  # the training range
        steps = [int(observation.step[b]) for b in rows]
        uniforms = draws([self._seeds[b] for b in rows], steps, ACTION_TOKENS * self.config.acting.chunk)
        choose = sampler(uniforms, self.temperature, self.top_k)
        tokens = choose_tokens(self.model, inputs, choose).tokens.cpu().numpy()
        return codec.decode(tokens, self.config.base_vocab).reshape(len(rows), -1, ACTION_TOKENS)


def draws(seeds: Sequence[int], steps: Sequence[int], slots: int) -> torch.Tensor:
    """Returns float64 [B, slots] in [0, 1): row b depends only on `seeds[b]` and `steps[b]`."""
    keys = [(SAMPLING_STREAM, seed, step) for seed, step in zip(seeds, steps, strict=True)]
    return torch.from_numpy(np.stack([np.random.default_rng(key).random(slots) for key in keys]))


def _check_crop(wanted: bool | None, checkpoint: str | Path, folder: Path) -> None:
    """Refuses the full image for a checkpoint trained with random crops, unless explicitly requested."""
    if wanted is None and AUGMENTED in f"{Path(checkpoint).name} {folder.name}":
        raise CheckpointError(
            f"{folder}: by its name trained with image augmentation ({AUGMENTED}); openvla evaluates those on the "
            "centre of the image: give --policy-option center_crop=true, or false for the whole image"
        )


def _check_sampling(top_k: int | None, loaded: Loaded) -> None:
    if top_k is not None and loaded.action_head is not None:
        raise CheckpointError(
            f"top_k: {loaded.folder} has a regression head, which draws no tokens; leave top_k out, or give top_k=null"
        )


def _check_decoding(wanted: str | None, config: OpenVLAConfig, folder: Path) -> None:
    if wanted not in (None, config.acting.decoding):
        raise CheckpointError(
            f"{folder}: this checkpoint decodes {config.acting.decoding}, and {wanted} is asked for; "
            "--policy openvla runs any"
        )


def _tokenizer_home(loaded: Loaded) -> Path:
    return loaded.folder if (loaded.folder / TOKENIZER_FILE).is_file() else loaded.base
