"""Errors a user can act on: one line that names what was wrong, where, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in what the user gave. Commands print its message without a traceback and exit with 2."""


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for a near miss among `known`, else `; known: a, b, c`."""
    known = sorted(known)
    close = get_close_matches(wrong, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(known) or 'none'}"
