"""How this processor rounds what an episode depends on.

PyTorch takes square roots and matrix products from libraries that choose their code by the make of processor, and their
last bits differ. The arm's controller takes a root in every step; contact amplifies its last bit until an episode ends
otherwise. So equal episodes are equal bit for bit only where these digests are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from vla_gen_bench.log import provenance


def rounding() -> dict[str, str]:
    """Returns 8 hex digits each of what the arm's controller ("controller") and networks ("network") compute with."""
    import torch

    roots = torch.sqrt(torch.linspace(1e-3, 4, 4096))
    angles = torch.linspace(-1, 1, 4096)
    square = ((torch.arange(64 * 64) * 7919 % 2003) / 2003 - 0.5).reshape(64, 64)
    return {
        "controller": _digest(roots, torch.sin(angles), torch.cos(angles)),
        "network": _digest(square @ square.T),
    }


def elsewhere(sessions: Iterable[Mapping[str, Any]], here: Mapping[str, str]) -> str:
    """Returns the processors of the sessions that rounded otherwise than `here`; "" if none did.

    Sessions of older versions did not record it: then another model of processor counts as another rounding.
    """
    mine, others = provenance.hardware()["cpu"], {}
    for session in sessions:
        theirs, cpu = session.get("rounding"), (session.get("hardware") or {}).get("cpu")
        if theirs != dict(here) if theirs else cpu not in (None, mine):
            others[cpu or "another processor"] = None
    return ", ".join(map(str, others))


def _digest(*tensors: Any) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:8]
