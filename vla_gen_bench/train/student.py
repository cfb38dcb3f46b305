"""From a recipe to a model ready to train: weights, statistics, tokenizer, adapter, optimiser, averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla.actions import ActionStats, action_stats
from vla_gen_bench.policies.openvla.checkpoint.config_file import parse_config, size
from vla_gen_bench.policies.openvla.checkpoint.fresh import acting_as, new_action_head, new_model, new_tokenizer
from vla_gen_bench.policies.openvla.checkpoint.loading import load
from vla_gen_bench.policies.openvla.checkpoint.saving import save
from vla_gen_bench.policies.openvla.checkpoint.tokenizer import TOKENIZER_FILE, PromptTokenizer, benchmark_sentences
from vla_gen_bench.policies.openvla.config import OpenVLAConfig
from vla_gen_bench.policies.openvla.model.l1_head import L1Head
from vla_gen_bench.policies.openvla.model.lora import LoraConfig, add_lora, merge
from vla_gen_bench.policies.openvla.model.value import ValueHead
from vla_gen_bench.policies.openvla.model.vla import OpenVLA
from vla_gen_bench.policies.openvla.processor import Processor
from vla_gen_bench.train.recipe import Adapter, ModelChoice, Optimiser, Recipe

GRIPPER_UNSCALED = [True] * 6 + [False]
ACTING = ("decoding", "attention", "chunk", "head", "unnorm_key", "image_path")  # fields of `Acting` a recipe may set
NO_DECAY = ("cls_token", "reg_token", "pos_embed", "embed_tokens.weight")


@dataclass
class Student:
    """A model in training.

    Attributes:
        model: In training mode, on its device.
        processor: Its tokenizer and image size.
        stats: Statistics that scale actions.
        value_head: The checkpoint's value head, if it has one.
        action_head: Regression head of the L1 variant of OFT.
    """

    model: OpenVLA
    processor: Processor
    stats: ActionStats
    value_head: ValueHead | None = None
    action_head: L1Head | None = None

    @property
    def config(self) -> OpenVLAConfig:
        return self.model.config

    @property
    def trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def build_student(recipe: Recipe, statistics: dict[str, Any] | None, device: torch.device) -> Student:
    """Returns the model that a recipe starts from.

    Args:
        statistics: An entry for `norm_stats`, from `action_statistics`; None = the checkpoint's own.

    Raises:
        UserError: The checkpoint cannot be used, or a new model is requested without statistics.
    """
    choice = recipe.model
    if choice.size is not None:
        if statistics is None:
            raise UserError("model.size: a new model needs demonstrations to scale its actions")
        config = _configured(size(choice.size), choice, recipe.name, statistics)
        worlds = dict.fromkeys(("builtin", "rl4vla", recipe.world))
        tokenizer = new_tokenizer(config, benchmark_sentences(worlds))
        model, heads = new_model(config, recipe.seed), (None, None)
    else:
        loaded = load(checkpoint_of(choice.checkpoint), revision=choice.revision, device=device, dtype=torch.float32)
        config = _configured(loaded.config, choice, recipe.name, statistics)
        model, heads = loaded.model, (loaded.value_head, loaded.action_head)
        model.config = config
        home = loaded.folder if (loaded.folder / TOKENIZER_FILE).is_file() else loaded.base
        tokenizer = PromptTokenizer.from_folder(home, config)
    model = model.to(device).train().requires_grad_(True)
    if recipe.adapter:
        model.requires_grad_(False)
        add_lora(model, _lora(recipe.adapter), torch.Generator().manual_seed(recipe.seed))
    value_head, action_head = heads
    if config.acting.head == "l1" and action_head is None:
        action_head = new_action_head(config, recipe.seed)
    action_head = action_head.to(device).requires_grad_(True) if action_head else None
    return Student(model, Processor(config, tokenizer), action_stats(config), value_head, action_head)


def checkpoint_of(name: str) -> str | Path:
    """Returns the checkpoint folder of a policy whose card names one; any other text unchanged."""
    from vla_gen_bench.resources import CHECKPOINT, data_dir

    folder = data_dir() / "policies" / name / CHECKPOINT
    return folder if folder.is_dir() else name


def _configured(
    config: OpenVLAConfig, choice: ModelChoice, key: str, statistics: dict[str, Any] | None
) -> OpenVLAConfig:
    changes = {name: value for name in ACTING if (value := getattr(choice, name)) is not None}
    if statistics is not None:
        config = parse_config({**config.fields, "norm_stats": {key: statistics}}, "config")
        changes["unnorm_key"] = key
    return acting_as(config, **changes)


def _lora(adapter: Adapter) -> LoraConfig:
    return LoraConfig(rank=adapter.rank, alpha=adapter.alpha)


def action_statistics(actions: np.ndarray, episodes: int) -> dict[str, Any]:
    """Returns a `norm_stats` entry for float32 [F, 7]; the gripper is not scaled."""
    values = np.asarray(actions, np.float64)
    entry = {name: getattr(values, name)(axis=0).tolist() for name in ("mean", "std", "min", "max")}
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    action = {**entry, "q01": low.tolist(), "q99": high.tolist(), "mask": GRIPPER_UNSCALED}
    return {"action": action, "num_transitions": len(values), "num_trajectories": episodes}


def build_optimiser(parameters: dict[str, nn.Parameter], settings: Optimiser) -> torch.optim.AdamW:
    """Returns AdamW with weight decay on matrices only."""
    decayed = [p for name, p in parameters.items() if p.ndim > 1 and not name.endswith(NO_DECAY)]
    others = [p for name, p in parameters.items() if not (p.ndim > 1 and not name.endswith(NO_DECAY))]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all parameter groups."""
    for group in optimiser.param_groups:
        group["lr"] = rate


class Watched:
    """Keeps the newest output of a module, for losses on it; older ones are freed.

    Attributes:
        output: With its gradients; None before the first pass.
    """

    def __init__(self, module: nn.Module) -> None:
        self.output: Tensor | None = None
        module.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.output = output


@dataclass
class Averaged:
    """Exponential moving average of weights; `decay` 0 = the weights themselves."""

    model: nn.Module
    decay: float
    values: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.decay and not self.values:
            self.values = {name: value.detach().clone() for name, value in self._live().items()}

    def _live(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Adds the current weights; early on they weigh more (decay at most (1 + step) / (10 + step))."""
        if self.decay:
            part = 1 - min(self.decay, (1 + step) / (10 + step))
            live = self._live()
            torch._foreach_lerp_(list(self.values.values()), [live[name].detach() for name in self.values], part)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Temporarily puts the average into the model."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in self._live().items() if self.decay else ():
            average = self.values[name].clone()
            self.values[name].copy_(value)
            value.copy_(average)


def write_checkpoint(
    student: Student, folder: Path, dtype: torch.dtype | None = None, value_head: ValueHead | None = None
) -> None:
    """Writes the weights in Hugging Face layout, with adapters merged; the model in training is unchanged.

    Raises:
        UserError: They cannot be written.
    """
    import copy

    from safetensors import SafetensorError

    model = student.model
    if any("lora_" in name for name, _ in model.named_parameters()):
        model = merge(copy.deepcopy(model))
    heads = {"value_head": value_head or student.value_head, "action_head": student.action_head}
    try:
        save(folder, model, student.processor.tokenizer, dtype=dtype, **heads)
    except SafetensorError as error:  # raised for a full disk
        raise UserError(f"{folder}: cannot be written ({error}); the state is kept, the same command resumes") from None
