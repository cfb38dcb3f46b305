"""Random numbers for effects that vary by step: functions of (seed, step), identical on every machine."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from scipy.special import ndtri

BANK = 1 << 20


def uniform(seed: int, step: int, count: int, key: str = "") -> np.ndarray:
    """Returns `count` <= 8 numbers in (0, 1), float64, that depend only on seed, step and key."""
    digest = hashlib.sha512(":".join([str(seed), str(step), *([key] if key else [])]).encode()).digest()
    return (np.frombuffer(digest, "<u8", count) >> np.uint64(12)).astype(np.float64) / 2.0**52 + 2.0**-54


@lru_cache(maxsize=1)
def normal_bank() -> np.ndarray:
    """Returns float32 [2^20] of standard normal numbers, always the same.

    Computed from the raw bits of PCG64: numpy guarantees those, but not the output of its distributions.
    """
    bits = np.random.PCG64(20_505_19789).random_raw(BANK)
    return ndtri((bits >> np.uint64(12)).astype(np.float64) / 2.0**52 + 2.0**-54).astype(np.float32)


def window(bank: np.ndarray, seed: int, step: int, length: int, key: str = "") -> np.ndarray:
    """Returns `length` successive numbers of a bank of 2^20; where they begin depends only on seed, step and key.

    More than the bank has begin again at its start.
    """
    spare = BANK - length
    start = int(uniform(seed, step, 1, key)[0] * (spare if spare > 0 else BANK))
    return bank[start : start + length] if spare > 0 else np.take(bank, np.arange(start, start + length), mode="wrap")
