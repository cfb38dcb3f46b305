"""Tunes glibc's handling of memory for short-lived textures. Without glibc, this module does nothing."""

from __future__ import annotations

import ctypes
import os

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1  # <malloc.h>
_MIB = 2**20
SETTINGS = {
    # With this bound, four of SAPIEN's five copies of a 2048x2048 image return to the system at once. By default glibc
    # raises the bound to 32 MiB and keeps them. A step of one episode at 640x480 allocates less than 5 MB.
    "MALLOC_MMAP_THRESHOLD_": (_MMAP_THRESHOLD, 16 * _MIB),
    # Setting one bound stops glibc from adjusting the other, which would stay at 128 KiB.
    "MALLOC_TRIM_THRESHOLD_": (_TRIM_THRESHOLD, 32 * _MIB),
}


def settle() -> None:
    """Applies `SETTINGS` and MALLOC_ARENA_MAX, which glibc itself reads only at process start, to this process.

    The user's environment variables win.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    for name, (option, value) in SETTINGS.items():
        if name not in os.environ:
            libc.mallopt(option, value)
    arenas = os.environ.get("MALLOC_ARENA_MAX", "")
    if arenas.isdecimal():
        libc.mallopt(_ARENA_MAX, int(arenas))


def return_free_memory() -> None:
    """Returns freed memory that glibc keeps to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
