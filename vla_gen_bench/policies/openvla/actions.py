"""Converts robot actions to tokens and back: 256 bins per dimension, and statistics to scale a data set's actions.

Sources: openvla's `action_tokenizer.py` and `modeling_prismatic.predict_action`; RL4VLA's SimplerEnv wrapper for the
gripper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_gen_bench.errors import shown, suggest
from vla_gen_bench.policies.openvla.config import ACTION_BINS, CheckpointError, OpenVLAConfig
from vla_gen_bench.protocol import ACTION_DIMS

BINS = np.linspace(-1.0, 1.0, ACTION_BINS)
CENTRES = (BINS[:-1] + BINS[1:]) / 2  # 255: the two lowest token ids share the highest one
SPREAD_EPSILON = 1e-8  # keeps a constant dimension from dividing by zero when normalised
GRIPPER_OPEN_ABOVE = 0.5


def encode(normalised: np.ndarray, base_vocab: int) -> np.ndarray:
    """Returns int64 token ids for normalised actions; outside [-1, 1] they are clipped.

    `base_vocab - digitize(...)`: -1 is the last id (31999 of 32000), +1 the first (31744).
    """
    return base_vocab - np.digitize(np.clip(normalised, -1.0, 1.0), BINS)


def decode(ids: np.ndarray, base_vocab: int) -> np.ndarray:
    """Returns float64 normalised actions, the centres of the tokens' bins."""
    return CENTRES[np.clip(base_vocab - np.asarray(ids) - 1, 0, len(CENTRES) - 1)]


@dataclass(frozen=True)
class ActionStats:
    """The action scaling of one data set, from `norm_stats[key]["action"]`.

    Attributes:
        low, high: float64 [7], the 1st and 99th percentile: metres, radians.
        mask: bool [7], False for dimensions used unscaled (the gripper).
    """

    low: np.ndarray
    high: np.ndarray
    mask: np.ndarray

    def normalise(self, actions: np.ndarray) -> np.ndarray:
        """[..., 7] in robot units -> about [-1, 1], clipped there; constant dimensions become 0 (the middle bin)."""
        spread = self.high - self.low
        scaled = 2 * (actions - self.low) / (spread + SPREAD_EPSILON) - 1
        scaled = np.where(spread == 0, 0.0, np.clip(scaled, -1.0, 1.0))
        return np.where(self.mask, scaled, actions)

    def unnormalise(self, normalised: np.ndarray, epsilon: float = 0.0) -> np.ndarray:
        """[..., 7] in [-1, 1] -> robot units. `epsilon`: 1e-8 gives RLinf's and openvla-oft's result exactly."""
        scaled = 0.5 * (normalised + 1) * (self.high - self.low + epsilon) + self.low
        return np.where(self.mask, scaled, normalised)


def action_stats(config: OpenVLAConfig, key: str | None = None, where: str = "norm_stats") -> ActionStats:
    """Returns the statistics of data set `key`; None = the checkpoint's choice, or its only entry.

    Args:
        where: Location of the entries, for messages.

    Raises:
        CheckpointError: No such entry, several without a choice, or an entry whose lists do not have seven numbers.
    """
    key = key or config.acting.unnorm_key or (next(iter(config.norm_stats)) if len(config.norm_stats) == 1 else None)
    if key is None:
        raise CheckpointError(f"unnorm_key: none given; this checkpoint has {_listed(config.norm_stats)}")
    if key not in config.norm_stats:
        hint = suggest(key, config.norm_stats)
        listed = "" if "known:" in hint else f" This checkpoint has {_listed(config.norm_stats)}"
        raise CheckpointError(f"unnorm_key: no '{key}' in norm_stats{hint}{listed}")
    return parse_stats(config.norm_stats[key], f"{where}: {key}")


def parse_stats(entry: Any, where: str) -> ActionStats:
    """Reads one entry of `norm_stats`; a missing mask means that all dimensions are scaled, as in the reference."""
    action = entry.get("action") if isinstance(entry, Mapping) else None
    if not isinstance(action, Mapping):
        raise CheckpointError(f"{where}: no 'action'")
    columns = {}
    for name in ("q01", "q99", "mask"):
        if name not in action and name != "mask":
            raise CheckpointError(f"{where}.action: no '{name}'")
        columns[name] = _seven(action.get(name, [True] * ACTION_DIMS), name == "mask", f"{where}.action.{name}")
    if (columns["q01"] > columns["q99"])[columns["mask"]].any():
        raise CheckpointError(f"{where}.action: q01 exceeds q99")
    return ActionStats(columns["q01"], columns["q99"], columns["mask"])


def _seven(given: Any, flags: bool, where: str) -> np.ndarray:
    """Returns seven numbers, or flags (also as 0 and 1)."""
    try:
        values = np.asarray(given)
    except ValueError:  # lists of unequal lengths
        values = np.empty(0)
    kinds = values.shape == (ACTION_DIMS,) and values.dtype.kind in ("bi" if flags else "if")
    if not kinds or not (np.isin(values, (0, 1)) if flags else np.isfinite(values)).all():
        what = "true or false values" if flags else "finite numbers"
        raise CheckpointError(f"{where}: expected {ACTION_DIMS} {what}, got {shown(given)}")
    return values.astype(bool if flags else np.float64)


def gripper_command(actions: np.ndarray) -> np.ndarray:
    """Returns a copy of [..., 7] whose last number is +1 (open) above 0.5 and -1 (closed) elsewhere."""
    binary = actions.copy()
    binary[..., -1] = np.where(actions[..., -1] > GRIPPER_OPEN_ABOVE, 1.0, -1.0)
    return binary


def _listed(stats: Mapping[str, Any]) -> str:
    return ", ".join(sorted(stats)) or "none at all"
