"""A critic that reads the simulator's state: it values every control step, and is fitted apart from the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_gen_bench.train.rl import advantages as adv
from vla_gen_bench.train.rl.state_numbers import NUMBERS

if TYPE_CHECKING:
    from vla_gen_bench.train.rl.learner import Learner
    from vla_gen_bench.train.rl.rollout import Rollout

WIDTH = 256
BATCH = 512
BOUND = 1.5
STREAM = 0x57A7E


class StateCritic(nn.Module):
    """Three layers with GELU between; the last one starts at zero, so nothing is expected at first.

    Values stay within +-`BOUND`, somewhat more than an episode's rewards add up to: in a state unlike all it learned
    from, for example of an object thrown off, its error would have no limit.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NUMBERS, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1)
        )
        for layer in self.layers[::2]:
            nn.init.zeros_(layer.bias)
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
        nn.init.zeros_(self.layers[-1].weight)

    def forward(self, states: Tensor) -> Tensor:
        """float32 [..., NUMBERS] -> [...]."""
        return BOUND * torch.tanh(self.layers(states)[..., 0] / BOUND)


def estimate(
    learner: Learner, rollout: Rollout, gamma: float, lam: float, foresee: bool, by_action: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns advantages, and the values and targets of all control steps, float64 [T K, B] each.

    A target is the discounted sum of all rewards after a state: with a low lambda, what a critic expects of distant
    rewards would travel a few steps an iteration.

    Within a chunk an action is credited with what follows it, and judged by the value of the state it met. That
    state depends on the actions before it, not on the action itself, so the policy gradient stays unbiased.

    Args:
        gamma, lam: Per control step.
        by_action: Whether advantages are those of actions, [T, B, K]; otherwise those of decisions, [T, B].
    """
    decisions, episodes, chunk = rollout.rewards.shape
    with torch.no_grad():
        states = torch.from_numpy(rollout.states).to(learner.actor.device)
        values = learner.critic(states).double().cpu().numpy()
    rewards = rollout.rewards.transpose(0, 2, 1).reshape(-1, episodes).astype(np.float64)
    advantages, _ = adv.gae(rewards, values[:-1], values[-1] * foresee, gamma, lam)
    _, returns = adv.gae(rewards, values[:-1], values[-1] * foresee, gamma, 1.0)
    if by_action:
        advantages = advantages.reshape(decisions, chunk, episodes).swapaxes(1, 2)
    else:
        advantages = advantages[::chunk]
    return advantages, values[:-1], returns


def fit(learner: Learner, states: np.ndarray, returns: np.ndarray, epochs: int) -> float:
    """Fits the critic to the returns of states, [N, NUMBERS] and [N]; returns the last pass's mean squared error."""
    device = learner.actor.device
    states, returns = (torch.from_numpy(np.asarray(rows, np.float32)).to(device) for rows in (states, returns))
    share = max(1, BATCH // learner.processes.count)
    for epoch in range(epochs):
        random = np.random.default_rng((STREAM, learner.recipe.seed, learner.iteration, epoch))
        losses = []
        for rows in np.array_split(random.permutation(len(states)), max(1, round(len(states) / share))):
            loss = F.mse_loss(learner.critic(states[rows]), returns[rows])
            learner.step([loss], value_only=True)
            losses.append(float(loss.detach()))
    return float(np.mean(losses))
