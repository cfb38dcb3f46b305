"""A rollout as decisions to learn from: the actions, their worth, and the current policy's scores of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla_gen_bench.train.rl.actor_critic import Score, by_action
from vla_gen_bench.train.rl.learner import Learner
from vla_gen_bench.train.rl.rollout import Rollout


@dataclass(frozen=True)
class Experience:
    """N = T x B decisions: their rollout, and PPO's reference values, float32 [N] each.

    Attributes:
        advantages: Or [N, K], one per action.
        by_action: float32 [N, K], `log_probs` of each action.
    """

    rollout: Rollout
    log_probs: Tensor
    advantages: Tensor
    values: Tensor
    returns: Tensor
    by_action: Tensor

    @classmethod
    def of(cls, rollout: Rollout, advantages: np.ndarray, returns: np.ndarray | None = None) -> Experience:
        """Returns the decisions of a rollout with their returns, [T, B], and advantages, [T, B] or [T, B, K]."""
        values = rollout.values[:-1]
        columns = (rollout.log_probs.sum(-1), advantages, values, values if returns is None else returns)
        rows = (torch.from_numpy(np.asarray(column, np.float32)).flatten(0, 1) for column in columns)
        return cls(rollout, *rows, by_action(torch.from_numpy(rollout.log_probs)).flatten(0, 1))

    def __len__(self) -> int:
        return len(self.advantages)

    def score(self, learner: Learner, rows: np.ndarray, **how: bool) -> Score:
        """Returns the learner's current scores of some decisions."""
        rollout = self.rollout
        t, b = np.divmod(rows, rollout.tokens.shape[1])
        inputs = learner.actor.look(rollout.images[t, b], [rollout.prompts[row] for row in b], rollout.squashed)
        tokens = torch.from_numpy(rollout.tokens[t, b]).to(learner.actor.device)
        return learner.actor.score(inputs, tokens, **how)
