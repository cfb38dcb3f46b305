"""Cards and digests for policies given as objects."""

from __future__ import annotations

import hashlib
import inspect
import pickle
import uuid
from dataclasses import asdict
from typing import Any
from weakref import WeakKeyDictionary

from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.policies.card import Card, DeclaredNeeds, Source
from vla_gen_bench.policies.contract import PolicyError, check_spec
from vla_gen_bench.protocol import Needs


class ObjectCard(Card):
    """The card of a policy object; its digest covers the class's source and the object's state."""

    state: str

    def digest(self, own_checkpoint: bool = True) -> str:
        return digest_of({"factory": self.factory, "state": self.state})


def card_of_object(policy: Any, name: str | None = None) -> Card:
    """Returns a card for a policy object.

    Args:
        policy: An object with `reset`, `act` and `action_spec`, optionally `privileged` and `needs`.
        name: Its name in tables; None = its class's name.

    Raises:
        PolicyError: It is not a policy.
    """
    kind = type(policy)
    needs = getattr(policy, "needs", Needs())
    if not isinstance(needs, Needs):
        raise PolicyError(f"policy '{kind.__name__}': needs is {type(needs).__name__}; expected Needs(...)")
    card = ObjectCard(
        name=name or kind.__name__,
        title=name or kind.__name__,
        summary=(inspect.getdoc(kind) or "no description").splitlines()[0],
        factory=f"{kind.__module__}:{kind.__qualname__.replace('<locals>.', '')}",
        privileged=bool(getattr(policy, "privileged", False)),
        needs=DeclaredNeeds(**asdict(needs)),
        state=_state(policy),
    ).with_source(Source("reference"))
    check_spec(card.label, policy)
    return card


_SEEN: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _state(policy: Any) -> str:
    """Returns the digest of source and state from the first call for this object, because running changes its state."""
    try:
        return _SEEN.setdefault(policy, _digest(policy))
    except TypeError:  # the object supports no weak references or no hash
        return _digest(policy)


def _digest(policy: Any) -> str:
    """Returns a digest of source and state; a random one if either is unavailable, so no log continues another's."""
    try:
        source = inspect.getsource(type(policy))
        return hashlib.sha256(source.encode() + pickle.dumps(policy)).hexdigest()[:16]
    except Exception:  # pickling runs the object's own code, which may raise anything
        return uuid.uuid4().hex[:16]
