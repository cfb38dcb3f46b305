"""The numbers a supervised run logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vla_gen_bench.train.demos.frames import PHASES
from vla_gen_bench.train.sft.imitation import GRIPPER

if TYPE_CHECKING:
    from vla_gen_bench.train.sft.trainer import SftRecipe

NUMBERS = (
    "step", "samples", "wall_s", "samples_per_s", "lr", "loss", "auxiliary", "grounding", "grad_norm",
    "val_loss", "val_x_mm", "val_y_mm", "val_z_mm", "val_yaw_rad", "val_gripper",
    "val_close_z_mm", "val_carry_z_mm", "val_switch", "success", "success_once", "grasped", "episodes",
)  # fmt: skip


def validation_numbers(loss: float, errors: np.ndarray, phases: np.ndarray) -> dict[str, float | None]:
    """Returns the `val_` columns from errors [N, 7] in robot units and the phases [N] of the frames."""

    def mean(values: np.ndarray) -> float | None:
        return float(values.mean()) if len(values) else None

    close, carry = (phases == PHASES.index(name) for name in ("close", "carry"))
    switch = close | (phases == PHASES.index("release"))
    right = errors[:, GRIPPER] < 1.0
    millimetres = 1e3 * errors[:, :3].mean(axis=0)
    return {
        "val_loss": loss,
        **{f"val_{axis}_mm": float(value) for axis, value in zip("xyz", millimetres, strict=True)},
        "val_yaw_rad": float(errors[:, 5].mean()),
        "val_gripper": float(right.mean()),
        "val_close_z_mm": mean(1e3 * errors[close, 2]),
        "val_carry_z_mm": mean(1e3 * errors[carry, 2]),
        "val_switch": mean(right[switch]),
    }


def progress_line(numbers: dict[str, float], recipe: SftRecipe, wall_s: float) -> str:
    """Returns the progress line for a terminal."""
    left = (recipe.steps - numbers["step"]) * recipe.batch / max(numbers["samples_per_s"], 1e-9)
    line = (
        f"step {numbers['step']:,}/{recipe.steps:,}  loss {numbers['loss']:.3f}  aux {numbers['auxiliary']:.3f}  "
        f"lr {numbers['lr']:.2g}  {numbers['samples_per_s']:.0f} samples/s  {wall_s / 60:.1f} min, {left / 60:.0f} left"
    )
    if "val_loss" in numbers:
        line += "  |  val " + "  ".join(
            f"{key.removeprefix('val_')} {value:.3g}"
            for key, value in numbers.items()
            if key.startswith("val_") and value is not None
        )
    if "success" in numbers:
        line += f"  |  closed loop {numbers['success']:.2f}, grasped {numbers['grasped']:.2f}"
    return line
