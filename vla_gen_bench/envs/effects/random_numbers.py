"""Random numbers of effects that change from step to step: functions of (seed, step), the same everywhere."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from scipy.special import ndtri

BANK = 1 << 20


def uniform(seed: int, step: int, count: int) -> np.ndarray:
    """Returns `count` <= 8 numbers in (0, 1), float64: they depend on seed and step alone."""
    digest = hashlib.sha512(f"{seed}:{step}".encode()).digest()
    return (np.frombuffer(digest, "<u8", count) >> np.uint64(12)).astype(np.float64) / 2.0**52 + 2.0**-54


@lru_cache(maxsize=1)
def normal_bank() -> np.ndarray:
    """Returns float32 [2^20] of standard normal numbers, always the same.

    From the bits of PCG64, which numpy promises not to change, unlike what its generators make of them.
    """
    bits = np.random.PCG64(20_505_19789).random_raw(BANK)
    return ndtri((bits >> np.uint64(12)).astype(np.float64) / 2.0**52 + 2.0**-54).astype(np.float32)


def noise_start(seed: int, step: int, length: int) -> int:
    """Returns where in a bank of 2^20 numbers `length` of them begin for this step."""
    return int(uniform(seed, step, 1)[0] * (BANK - length))
