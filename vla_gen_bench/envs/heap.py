"""How glibc keeps the memory of textures that come and go. Where there is no glibc, nothing here does anything."""

from __future__ import annotations

import ctypes
import os

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1  # <malloc.h>
_MIB = 2**20
SETTINGS = {
    # Of the five copies SAPIEN makes of a 2048x2048 image four go back to the system at once. Left to itself glibc
    # raises the bound to 32 MiB and keeps them. What a step of one episode allocates at 640x480 is below 5 MB.
    "MALLOC_MMAP_THRESHOLD_": (_MMAP_THRESHOLD, 16 * _MIB),
    # Setting one bound ends glibc's own adjustment of the other, which would stay at 128 KiB.
    "MALLOC_TRIM_THRESHOLD_": (_TRIM_THRESHOLD, 32 * _MIB),
}


def settle() -> None:
    """Applies `SETTINGS` to this process, and MALLOC_ARENA_MAX, which acts by itself at the start of a process only.

    What the user set in the environment wins.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    for name, (option, value) in SETTINGS.items():
        if name not in os.environ:
            libc.mallopt(option, value)
    arenas = os.environ.get("MALLOC_ARENA_MAX", "")
    if arenas.isdigit():
        libc.mallopt(_ARENA_MAX, int(arenas))


def return_free_memory() -> None:
    """Gives back to the system what was freed and kept for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
