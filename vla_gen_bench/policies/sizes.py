"""How many parameters a policy has, without importing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.card import Card
from vla_gen_bench.policies.identity import base_of
from vla_gen_bench.policies.openvla.checkpoint.tensor_files import count_weights


def params_of(card: Card, checkpoint: Any = None) -> int | None:
    """Returns the number of parameters of a policy; None if neither its card nor its checkpoint tells.

    Args:
        checkpoint: The user's, which is run in place of the card's: the card's number is then of another model.
    """
    try:
        if checkpoint is None:
            return card.params if card.params is not None else _weights(card.checkpoint_path())
        return _weights(Path(checkpoint).expanduser()) if isinstance(checkpoint, str) else None
    except UserError:  # what is wrong is said where the policy is loaded
        return None


def _weights(folder: Path | None) -> int | None:
    if folder is None or not folder.is_dir():
        return None
    base = base_of(folder)  # an adapter has fewer tensors than the model that runs
    return count_weights(base or folder)
