"""Errors a user can act on: one line that names what was wrong, where, and how to fix it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

LONGEST = 400  # characters of a message's line
LONGEST_ERROR = 2000
SHOWN = 80  # characters of a foreign value within a message


class UserError(Exception):
    """A mistake in the user's input. Commands print its message without a traceback and exit with 2.

    The message may quote foreign text: control characters are escaped, and long text is cut.
    """

    def __init__(self, message: object = "") -> None:
        text = printable(str(message)[:LONGEST_ERROR], keep="\n")
        super().__init__(text if len(str(message)) <= LONGEST_ERROR else f"{text} ...")


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for a near miss among `known`, else `; known: a, b, c`."""
    known = sorted(known)
    wrong = wrong[:SHOWN]
    close = [name for name in known if name.lower() == wrong.lower()] or get_close_matches(wrong, known, 1, 0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(known) or 'none'}"


def printable(text: object, keep: str = "") -> str:
    """Returns `text` with terminal control characters escaped, as `\\x1b`; those in `keep` stay."""
    return "".join(letter if letter in keep or _harmless(letter) else _escaped(letter) for letter in str(text))


def one_line(text: object, longest: int = LONGEST) -> str:
    """Returns `text` as one printable line of at most `longest` characters, cut in the middle."""
    line = printable(" ".join(str(text)[: 4 * longest].split()))
    if len(line) <= longest:
        return line
    head = longest * 2 // 3
    return f"{line[:head]} ... {line[head + 5 - longest :]}"


def shown(value: Any, longest: int = SHOWN) -> str:
    """Returns a foreign value's `repr` for a message, printable and cut to `longest` characters."""
    if isinstance(value, (str, bytes)):
        value = value[: 2 * longest]
    elif isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    try:
        return one_line(repr(value), longest)
    except (RecursionError, ValueError):  # endless nesting, or a number too long to convert
        return f"a {type(value).__name__}"


def _harmless(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
