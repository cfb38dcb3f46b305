"""Damage for files, drawn by Hypothesis: values of another kind put into sound data, and bytes changed."""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import yaml
from hypothesis import strategies as st

from vla_gen_bench.errors import UserError, printable

LIMIT_S = 20
LONGEST_MESSAGE = 1000

ODD_TEXT = [
    "",
    "x",
    "\u202e",
    "a\x1b[2Jb",
    "../../x",
    "/etc/passwd",
    "nan",
    "1e999",
    "9" * 30,
    "é" * 300,
    "a\nb",
    "a\0b",
    "~",
    "$x",
    "*",
]
ODD = st.one_of(
    st.sampled_from(
        [None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, -(10**20), 0.5, -1.5, 1e308, 1e-308, [], {}, [[]], {"": 0}]
    ),
    st.sampled_from(ODD_TEXT),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    ),
)


def _places(data: Any, path: tuple = ()) -> list[tuple]:
    """Returns the path of every value within plain data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, value in items for place in _places(value, (*path, key)))]


def _put(data: Any, path: tuple, value: Any, remove: bool) -> Any:
    if not path:
        return value
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return data


@st.composite
def changed_data(draw: st.DrawFn, data: Any) -> Any:
    """`data` with one to three values replaced, removed or added."""
    data = copy.deepcopy(data)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_places(data)))
        here = data
        for key in path:
            here = here[key]
        if isinstance(here, dict) and draw(st.booleans()):
            here[draw(st.sampled_from(ODD_TEXT) | st.text(max_size=8))] = copy.deepcopy(draw(ODD))
        else:
            data = _put(data, path, copy.deepcopy(draw(ODD)), remove=draw(st.integers(0, 3)) == 0)
    return data


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` cut off, with bytes replaced, or with some put in."""
    place = draw(st.integers(0, len(content)))
    kind = draw(st.sampled_from(["cut", "put in", "replace", "repeat", "nest"]))
    some = draw(
        st.binary(min_size=1, max_size=6)
        | st.sampled_from([b"\0", b"\xff", b"\xef\xbb\xbf", b"NaN", b"1e999", b"\\ud800", b"&a *a", b"!!binary x"])
    )
    if kind == "cut":
        return content[:place]
    if kind == "nest":
        return (
            content[:place]
            + draw(st.sampled_from([b"[", b"{", b"{a: ", b'{"a": '])) * draw(st.sampled_from([30, 3000]))
            + content[place:]
        )
    if kind == "repeat":
        return content[:place] + content[place // 2 :]
    return content[:place] + some + content[place + (len(some) if kind == "replace" else 0) :]


def json_damage(content: bytes) -> st.SearchStrategy[bytes]:
    return changed_data(json.loads(content)).map(lambda data: json.dumps(data).encode()) | changed_bytes(content)


def yaml_damage(content: bytes) -> st.SearchStrategy[bytes]:
    dumped = changed_data(yaml.safe_load(content)).map(lambda data: yaml.safe_dump(data, sort_keys=False).encode())
    return dumped | changed_bytes(content)


def lines_damage(content: bytes) -> st.SearchStrategy[bytes]:
    rows = [json.loads(line) for line in content.splitlines()]
    joined = changed_data(rows).map(
        lambda rows: (
            b"".join(json.dumps(row).encode() + b"\n" for row in rows or [] if True) if isinstance(rows, list) else b""
        )
    )
    return joined | changed_bytes(content)


@contextmanager
def time_limit(seconds: int = LIMIT_S):
    """Turns a reader that does not come to an end into a failure."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(read: Callable[[], object]) -> str:
    """Returns "read" or "refused"; raises for anything but a `UserError` of one printable line of reasonable length."""
    try:
        with time_limit():
            read()
    except UserError as error:
        message = str(error)
        assert message == printable(message), f"not one printable line: {message!r}"
        assert 0 < len(message) <= LONGEST_MESSAGE, f"{len(message)} characters: {message[:200]!r}"
        return "refused"
    return "read"
