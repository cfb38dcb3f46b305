"""Cards and digests for policies given as objects."""

from __future__ import annotations

import hashlib
import inspect
import pickle
import sys
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.policies.card import Card, DeclaredNeeds, Source
from vla_gen_bench.policies.contract import PolicyError, check_spec
from vla_gen_bench.policies.identity import OWN_PACKAGE, code_digests
from vla_gen_bench.policies.importing import is_installed, look_in
from vla_gen_bench.protocol import Needs


class ObjectCard(Card):
    """The card of a policy object; its digest covers its code and its state."""

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
    look_in(None)
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


@dataclass(frozen=True)
class _Seen:
    """An object that has been evaluated: its identity in logs, and its fingerprint as its last run left it."""

    identity: str
    left: str


_SEEN: WeakKeyDictionary[Any, _Seen] = WeakKeyDictionary()


def _state(policy: Any) -> str:
    """Returns an object's identity: a digest of its code and state, kept while only its own runs change the state.

    An object that cannot be pickled gets a random one, so no other object continues its log.
    """
    now, whole = _fingerprint(policy)
    seen = _seen(policy)
    if seen is not None and now in (seen.identity, seen.left):
        return seen.identity
    identity = now if whole else uuid.uuid4().hex[:16]
    _remember(policy, _Seen(identity, now))
    return identity


def note_run(policy: Any) -> None:
    """Remembers the state in which a run left an object, which is not a change that its user made."""
    seen = _seen(policy)
    if seen is not None:
        _remember(policy, replace(seen, left=_fingerprint(policy)[0]))


def _seen(policy: Any) -> _Seen | None:
    try:
        return _SEEN.get(policy)
    except TypeError:  # no hash
        return None


def _remember(policy: Any, seen: _Seen) -> None:
    with suppress(TypeError):  # the object supports no weak references, or has no hash
        _SEEN[policy] = seen


def _fingerprint(policy: Any) -> tuple[str, bool]:
    """Returns a digest of an object's code and state, and whether it covers them wholly.

    If it cannot be pickled, the attributes that can be count.
    """
    hasher = _Hasher()
    whole = _feed_code(type(policy), hasher)
    if not hasher.pickled(policy):
        whole = False
        for name, value in sorted(getattr(policy, "__dict__", {}).items()):
            hasher.write(name.encode())
            hasher.pickled(value)
    return hasher.digest(), whole


def _feed_code(kind: type, hasher: _Hasher) -> bool:
    """Hashes the code of a class and its bases: whole modules, as of policies given by name; returns whether it could.

    Of classes in a script or a notebook their own source counts; of installed ones, nothing.
    """
    found = True
    for each in kind.__mro__:
        top = each.__module__.partition(".")[0]
        file = getattr(sys.modules.get(each.__module__), "__file__", None)
        if top in (OWN_PACKAGE, "builtins") or (file and is_installed(Path(file))):
            continue
        try:
            code = code_digests(f"{each.__module__}:{each.__name__}") if file and top != "__main__" else {}
            hasher.write(repr(sorted(code.items()) if code else inspect.getsource(each)).encode())
        except Exception:  # no source: typed in, or compiled
            found = False
    return found


class _Hasher:
    """A file that keeps a digest of what is written, so that pickles of large models need no memory."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return len(data)

    def pickled(self, value: Any) -> bool:
        """Hashes a value's pickle; returns False, with nothing hashed, if there is none."""
        before = self._hash.copy()
        try:
            pickle.Pickler(self, protocol=4).dump(value)
        except Exception:  # pickling runs the object's own code, which may raise anything
            self._hash = before
            return False
        return True

    def digest(self) -> str:
        return self._hash.hexdigest()[:16]
