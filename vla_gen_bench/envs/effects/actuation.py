"""Action effects: actions that reach the controller late, with noise, or scaled."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from scipy.special import ndtri

from vla_gen_bench.envs.effects.random_numbers import uniform

HOLD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)  # stay, gripper open: executed before the first action arrives


class Latency:
    """Executes each action `steps` control steps late; the arm holds still before the first one."""

    kind: ClassVar[str] = "action"

    def __init__(self, env: Any, rows: list[int], params: list[dict[str, Any]]) -> None:
        self._queues = [[torch.tensor(HOLD, device=env.device)] * row["steps"] for row in params]

    def apply(self, actions: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        for queue, action in zip(self._queues, actions, strict=True):
            queue.append(action.clone())
        return torch.stack([queue.pop(0) for queue in self._queues])


class ActionNoise:
    """Adds Gaussian noise to the six motion dimensions, keyed by the episode's `seed` and the step."""

    kind: ClassVar[str] = "action"

    def __init__(self, env: Any, rows: list[int], params: list[dict[str, Any]]) -> None:
        self._params = params

    def apply(self, actions: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        for action, step, row in zip(actions, steps.tolist(), self._params, strict=True):
            normal = torch.from_numpy(ndtri(uniform(row["seed"], step, 6))).to(action)
            action[:3] += normal[:3] * row["metres"]
            action[3:6] += normal[3:] * row["radians"]
        return actions


class ActionGain:
    """Multiplies the six motion dimensions by `gain`."""

    kind: ClassVar[str] = "action"

    def __init__(self, env: Any, rows: list[int], params: list[dict[str, Any]]) -> None:
        self._gain = torch.tensor([[row["gain"]] for row in params], device=env.device)

    def apply(self, actions: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        return torch.cat([actions[:, :6] * self._gain, actions[:, 6:]], dim=1)
