"""A policy that samples actions and knows their probabilities, and a critic on its states.

Log-probabilities are float32, over all 256 action tokens, of the policy that samples: logits divided by the temperature
of training. The log-probability of an action (or chunk) is the sum over its tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla import actions as codec
from vla_gen_bench.policies.openvla.images import normalised
from vla_gen_bench.policies.openvla.model.sampling import entropy, log_probs, sampler
from vla_gen_bench.policies.openvla.model.value import SeparateCritic, ValueHead, initialise_value
from vla_gen_bench.policies.openvla.model.vla import Inputs
from vla_gen_bench.policies.openvla.oft import choose_tokens, score_tokens
from vla_gen_bench.policies.openvla.policy import draws
from vla_gen_bench.policies.openvla.processor import pad_prompts
from vla_gen_bench.protocol import ACTION_DIMS
from vla_gen_bench.train.rl.exploration import correlated_draws
from vla_gen_bench.train.rl.simulators import View
from vla_gen_bench.train.rl.state_critic import StateCritic
from vla_gen_bench.train.student import Student


class Sampling(Frozen):
    """How actions are sampled while collecting.

    Attributes:
        temperature: Below 1 the policy is surer than its logits, also in its log-probabilities; 0 = greedy, not for
            training. The paper trains at 1.
        top_k: Only the k most likely tokens; None = all. 50 is the reference's, by a default of transformers; recorded
            log-probabilities then differ from the distribution that the action was sampled from.
        correlation: Of the noise between successive control steps, per action number. Each action's probability
            is unchanged, but an episode drifts in one direction for about 1 / (1 - correlation) steps, where
            independent noise cancels itself. Not in the reference; see Hollenstein et al., Colored Noise in PPO (2024).
    """

    temperature: float = Field(1.0, ge=0)
    top_k: int | None = Field(None, ge=1)
    correlation: float = Field(0.0, ge=0, lt=1)


class ValueSettings(Frozen):
    """The critic.

    Attributes:
        source: What the value head reads. "h0": the state that gives the first action token, "hn": the last one's,
            "concat": all of them. "separate": h0 of a separate backbone, initialised as a copy of the policy's.
            "state": no image but the simulator's state, from a network of its own (asymmetric actor-critic, Pinto et
            al. 2018). It knows the value at every control step, so with `loss.ratio: action` each action of a chunk
            has an advantage of its own. It also knows the time, so `time_limit` may be "terminal". The policy sees
            neither.
        lr: Learning rate of the head; a separate backbone uses the policy's rate.
        warmup: First iterations, which train only the head: an untrained critic misleads.
        shared: Whether the value loss also shapes the backbone, as in the reference.
        new: Start from a new head even if the checkpoint has one.
        epochs: "state": passes over each iteration's states; other heads learn in the policy's steps.
    """

    source: Literal["h0", "hn", "concat", "separate", "state"] = "h0"
    lr: float = Field(3e-3, gt=0)
    warmup: int = Field(0, ge=0)
    shared: bool = True
    new: bool = False
    epochs: int = Field(8, ge=1)


@dataclass(frozen=True)
class Decision:
    """The next decision of B episodes: float32 actions [B, K, 7], token ids [B, 7 K], log-probs, values [B] or None."""

    actions: np.ndarray
    tokens: np.ndarray
    log_probs: np.ndarray
    values: np.ndarray | None


@dataclass(frozen=True)
class Score:
    """The current model's scores of given actions, with gradients.

    Attributes:
        log_prob: float32 [N], joint over all tokens of a decision.
        entropy: float32 [N], nats, mean over the tokens.
        values: float32 [N]; None without a critic.
        by_action: float32 [N, K], `log_prob` of each action; used by `loss.ratio: action`.
    """

    log_prob: Tensor
    entropy: Tensor
    values: Tensor | None
    by_action: Tensor | None = None


def by_action(log_probs: Tensor) -> Tensor:
    """Returns [..., K], the joint log-probability of each action, from those of its tokens, [..., 7 K]."""
    return log_probs.unflatten(-1, (-1, ACTION_DIMS)).sum(-1)


class ActorCritic:
    """A student that acts, and its critic.

    Args:
        critic: A `ValueHead` or `SeparateCritic`; None = no values.
        precision: "bfloat16": autocast in all passes. Log-probabilities are float32, computed from logits that, like
            the values, were rounded to bfloat16 inside.
        temperature: Of the log-probabilities and entropies.
        states: Whether rollouts keep the simulator's state, for a critic that reads it.

    Raises:
        UserError: The student acts by a regression head.
    """

    def __init__(
        self, student: Student, critic: nn.Module | None, precision: str = "float32", temperature: float = 1.0,
        states: bool = False,
    ) -> None:  # fmt: skip
        self.states = states
        self.student, self.critic, self.temperature = student, critic, temperature
        self.model, self.config, self.processor = student.model, student.config, student.processor
        self.device = self.model.device
        if self.config.acting.head != "tokens":
            raise UserError("model.head: a regression head gives no probabilities; RL needs head: tokens")
        self._autocast = precision == "bfloat16"

    @property
    def chunk(self) -> int:
        """K."""
        return self.config.acting.chunk

    def view(self, height: int, width: int) -> View:
        """Returns the part of camera images to keep so that `look` reproduces the processor's pixels exactly."""
        path = self.processor.image_path or self.config.acting.image_path
        squashable = path == "pil" and self.config.resize == "resize-naive"
        return View(height, width, self.config.image if squashable else None, self.states)

    def look(self, images: np.ndarray, prompts: Sequence[list[int]], squashed: bool) -> Inputs:
        """Returns uint8 [N, H, W, 3] and N prompts as a batch on the device."""
        ids, mask = pad_prompts(prompts, self.config.pad)
        if squashed:
            square = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255
            pixels = normalised(square, self.config)
        else:
            pixels = self.processor.pixels(images)
        return Inputs(ids, mask, pixels).to(self.device, self.model.dtype)

    @torch.no_grad()
    def act(self, inputs: Inputs, keys: Sequence[int], steps: Sequence[int], sampling: Sampling) -> Decision:
        """Chooses actions; each row's draws are keyed by its episode's key and its step, the decision's number."""
        slots = ACTION_DIMS * self.chunk
        if sampling.correlation:
            uniforms = correlated_draws(keys, steps, slots, sampling.correlation)
        else:
            uniforms = draws(keys, steps, slots)
        with self._cast():
            out = choose_tokens(self.model, inputs, sampler(uniforms, sampling.temperature, sampling.top_k))
            values = None if self.critic is None else self._values(inputs, out.tokens, out.hidden).cpu().numpy()
        chosen = log_probs(out.logits / self.temperature, out.tokens - self.config.action_range[0])
        tokens = out.tokens.cpu().numpy()
        return Decision(self.actions(tokens), tokens, chosen.cpu().numpy(), values)

    def actions(self, tokens: np.ndarray) -> np.ndarray:
        """Returns float32 [B, K, 7], robot units, from token ids [B, 7 K]."""
        scaled = codec.decode(tokens, self.config.base_vocab).reshape(len(tokens), -1, ACTION_DIMS)
        return codec.gripper_command(self.student.stats.unnormalise(scaled)).astype(np.float32)

    def score(self, inputs: Inputs, tokens: Tensor, value_only: bool = False, shared: bool = True) -> Score:
        """Scores earlier decisions.

        Args:
            tokens: int64 [N, 7 K].
            value_only: Gradients for the value head alone.
            shared: Whether values send gradients into the policy's backbone.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not value_only), self._cast():
            out = score_tokens(self.model, inputs, tokens)
        with self._cast():
            hidden = out.hidden if shared else out.hidden.detach()
            values = None if self.critic is None else self._values(inputs, tokens, hidden)
        logits = out.logits / self.temperature
        chosen = log_probs(logits, tokens - self.config.action_range[0])
        return Score(chosen.sum(-1), entropy(logits).mean(-1), values, by_action(chosen))

    def _values(self, inputs: Inputs, tokens: Tensor, hidden: Tensor) -> Tensor:
        if isinstance(self.critic, SeparateCritic):
            return self.critic(inputs, tokens)[:, 0]
        return self.critic(hidden)[:, 0]

    def _cast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast)


def build_critic(student: Student, settings: ValueSettings, seed: int) -> nn.Module:
    """Returns the critic of a recipe: the checkpoint's own value head if it has one of that kind, else a new one.

    A critic of the simulator's state is always new: checkpoints hold policies.

    Raises:
        UserError: The checkpoint's value head reads something other than `settings.source`, or gives several values.
    """
    if settings.source == "state":
        return StateCritic(torch.Generator().manual_seed(seed)).to(student.model.device)
    source = "h0" if settings.source == "separate" else settings.source
    head = None if settings.new else student.value_head
    if head is None:
        slots = ACTION_DIMS * student.config.acting.chunk
        head = ValueHead(student.config.text.width, source, slots=slots)
        initialise_value(head, torch.Generator().manual_seed(seed))
    if head.source != source or head.head_l3.out_features != 1:
        outputs = head.head_l3.out_features
        raise UserError(
            f"value.source: {settings.source} needs a value head on {source} with one output, the checkpoint's is on "
            f"{head.source} with {outputs}; give --set value.new=true for a new one"
        )
    head = head.float().to(student.model.device).requires_grad_(True)
    if settings.source != "separate":
        return head
    backbone = copy.deepcopy(student.model)
    backbone.language_model.lm_head.requires_grad_(False)  # a critic outputs no tokens
    return SeparateCritic(backbone, head)
