"""Group-relative policy optimisation (Shao et al. 2024): PPO without a critic.

The other episodes from the same initial state provide the baseline. The reference's code uses this name for something
else (`advantages.as_coded_advantages`), available as `advantage: as-coded`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from vla_gen_bench.train.processes import Processes
from vla_gen_bench.train.rl import advantages as adv
from vla_gen_bench.train.rl import loop
from vla_gen_bench.train.rl.clipped import ClippedRecipe, clipped_steps
from vla_gen_bench.train.rl.experience import Experience
from vla_gen_bench.train.rl.learner import Learner
from vla_gen_bench.train.rl.rollout import Rollout


class GrpoRecipe(ClippedRecipe):
    """GRPO.

    Attributes:
        advantage: "group": an episode's return relative to its group, the same for all its actions. "as-coded": the
            reference's; the group then only sets how many episodes share an initial state (its "GRPO (s)": all).
    """

    trainer: Literal["grpo"]
    value: None = None
    group: int = Field(8, ge=1)
    advantage: Literal["group", "as-coded"] = "group"

    @model_validator(mode="after")
    def _compares(self) -> GrpoRecipe:
        if self.advantage == "group" and self.group < 2:
            raise ValueError("group: an episode alone cannot be compared; give 2 or more")
        return self


def train(
    recipe: GrpoRecipe,
    out: Path,
    processes: Processes,
    say: Callable[[str], None],
    options: loop.RlOptions,
) -> Path:
    """Trains by GRPO; see `loop.run`."""
    return loop.run(recipe, out, processes, say, improve, options)


def improve(recipe: GrpoRecipe, learner: Learner, rollout: Rollout) -> dict[str, float]:
    """Learns from one iteration; returns numbers for the curve."""
    if recipe.advantage == "as-coded":
        advantages = adv.as_coded_advantages(rollout.rewards.sum(axis=2), learner.processes.moments)
    else:
        worth = adv.group_advantages(rollout.returns, recipe.group)
        advantages = np.broadcast_to(worth, rollout.rewards.shape[:2])
    return clipped_steps(recipe, learner, Experience.of(rollout, advantages))
