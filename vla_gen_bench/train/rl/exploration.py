"""Random draws for exploration: uniform, but correlated between successive control steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.signal import lfilter
from scipy.special import ndtr

from vla_gen_bench.protocol import ACTION_DIMS

STREAM = 0xC0107  # separates these draws from others keyed by an episode's key


def correlated_draws(keys: Sequence[int], decisions: Sequence[int], slots: int, correlation: float) -> torch.Tensor:
    """Returns float64 [B, slots] uniform in [0, 1); row b depends on `keys[b]` and `decisions[b]` only.

    Within an episode (one key), the draws for one action number follow each other over control steps as a
    stationary first-order autoregressive process, mapped through the normal distribution. Action tokens are ordered
    bins sampled by inversion, so an episode deviates to one side for a while instead of jittering.

    Args:
        decisions: 0, 1, 2, ... of each episode; one decision takes `slots` / 7 control steps.
        correlation: From one control step to the next, in [0, 1).
    """
    chunk = slots // ACTION_DIMS
    rows = []
    for key, decision in zip(keys, decisions, strict=True):
        fresh = np.random.default_rng((STREAM, key)).standard_normal(((decision + 1) * chunk, ACTION_DIMS))
        fresh[1:] *= np.sqrt(1 - correlation**2)
        process = lfilter([1.0], [1.0, -correlation], fresh, axis=0)
        rows.append(ndtr(process[-chunk:]).reshape(slots))
    return torch.from_numpy(np.stack(rows))
