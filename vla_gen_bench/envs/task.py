"""The task's rules as pure functions on batched tensors, and the counters kept over an episode.

Thresholds are those of the reference (put_on_in_scene_multi.py:376-492, widowx.py:40-68). Success requires neither a
released object nor stillness, and its xy radius uses the largest of three half sizes. Both are kept, because changing
them would change the meaning of every published number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

GRASP_FORCE_N = 0.5
GRASP_ANGLE_DEG = 85.0
HOLD_STEPS = 5
XY_SLACK_M = 0.01
Z_SLACK_M = 0.05
CONTACT_FORCE_N = 0.03


def grasping(force: torch.Tensor, opening: torch.Tensor) -> torch.Tensor:
    """Returns whether a finger presses on an object.

    Args:
        force: [..., 3] newtons, on the finger by the object.
        opening: [..., 3] unit direction in which this finger opens.

    Returns:
        [...] bool: at least 0.5 N within 85 degrees of the opening direction.
    """
    size = torch.linalg.norm(force, dim=-1)
    cosine = (force * opening).sum(-1) / size.clamp(min=1e-12)
    angle = torch.rad2deg(torch.arccos(cosine.clamp(-1.0, 1.0)))
    return (size >= GRASP_FORCE_N) & (angle <= GRASP_ANGLE_DEG)


def placed_on(
    offset: torch.Tensor, object_extent: torch.Tensor, receptacle_extent: torch.Tensor, contact: torch.Tensor
) -> torch.Tensor:
    """Returns whether an object rests on a receptacle.

    Args:
        offset: [..., 3] metres, object origin minus receptacle origin.
        object_extent, receptacle_extent: [..., 3] world-aligned sizes after settling, metres.
        contact: [..., 3] newtons, force between the two.

    Returns:
        [...] bool.
    """
    half_object, half_receptacle = object_extent / 2, receptacle_extent / 2
    near = torch.linalg.norm(offset[..., :2], dim=-1) <= half_receptacle.amax(-1) + XY_SLACK_M
    height = offset[..., 2]
    gap = height - half_receptacle[..., 2] - half_object[..., 2]
    above = (height > 0) & (gap <= Z_SLACK_M)
    return near & above & (torch.linalg.norm(contact, dim=-1) > CONTACT_FORCE_N)


@dataclass
class Progress:
    """The history of an episode, [B] each; `update` is called exactly once per control step and once at reset."""

    hold_steps: torch.Tensor
    grasped_ever: torch.Tensor
    held_ever: torch.Tensor
    success_ever: torch.Tensor
    first_success_step: torch.Tensor
    wrong_touched: torch.Tensor
    wrong_grasped: torch.Tensor
    wrong_placed: torch.Tensor
    potential: torch.Tensor
    reward: torch.Tensor

    @classmethod
    def start(cls, batch: int, device: torch.device) -> Progress:
        def full(value, dtype) -> torch.Tensor:
            return torch.full((batch,), value, dtype=dtype, device=device)

        flags = [full(False, torch.bool) for _ in range(6)]
        return cls(
            full(0, torch.int32), *flags[:3], full(-1, torch.int32), *flags[3:], full(0.0, torch.float32),
            full(0.0, torch.float32),
        )  # fmt: skip

    def update(
        self, step: torch.Tensor, grasped: torch.Tensor, success: torch.Tensor, wrong: dict[str, torch.Tensor]
    ) -> None:
        """Advances all counters.

        Args:
            step: [B] control steps done so far, 0 at reset.
            grasped, success: [B] bool, current values.
            wrong: [B] bool each: "touched" and "grasped" a distractor object, "placed" = a distractor object
                on the receptacle, or any object on a distractor receptacle. Impossible events may be omitted.
        """
        self.hold_steps = torch.where(grasped, self.hold_steps + 1, 0)
        self.grasped_ever = self.grasped_ever | grasped
        self.held_ever = self.held_ever | (self.hold_steps >= HOLD_STEPS)
        first = success & ~self.success_ever
        self.first_success_step = torch.where(first, step.to(torch.int32), self.first_success_step)
        self.success_ever = self.success_ever | success
        for name, now in wrong.items():
            setattr(self, f"wrong_{name}", getattr(self, f"wrong_{name}") | now)
        self._pay(success)

    def _pay(self, success: torch.Tensor) -> None:
        """Sets the reward to the change of a potential: 0.1 grasped ever, 0.1 held ever, 1.0 placed after a grasp."""
        potential = 0.1 * self.grasped_ever + 0.1 * self.held_ever + 1.0 * (success & self.grasped_ever)
        self.reward = potential - self.potential
        self.potential = potential
