"""Reads data files: JSON, JSON lines and text, plain or gzipped. `strict_yaml` builds on this too.

Input may come from anywhere. Every reader here requires a regular UTF-8 file of bounded size, accepts only standard
JSON (no NaN, no duplicate key, no unpaired surrogate), and names file, place and fault in one line. A type or a
pydantic model defines the expected data and is checked strictly: "1" is not a number.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import math
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from vla_gen_bench.errors import UserError, one_line
from vla_gen_bench.errors import shown as shown_value

T = TypeVar("T")

MIB = 1 << 20
JSON_LIMIT = 64 * MIB
LINES_LIMIT = 4096 * MIB  # a log of a million episodes with long instructions is below 1 GiB
LINE_LIMIT = 16 * MIB
MAX_DEPTH = 100
WHOLE_BITS = 63
# A line may hold numbers that `check_plain` refuses if it has, with every digit replaced by 0, a run of 19 digits or an
# exponent of three after a separator and a mantissa; digits of quoted digests seldom look like that.
ZEROED = bytes.maketrans(b"123456789E", b"000000000e")
LONG, EXPONENT, MANTISSA, SEPARATORS = b"0" * 19, re.compile(rb"0e\+?000"), b"0.-", b" :,[\t"
KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
KINDS += ((stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))


class Line(NamedTuple):
    """A line of a JSON-lines file: its value, or its problem ("" for none)."""

    number: int
    value: Any
    problem: str = ""


def gzipped(path: Path) -> Path:
    """Returns the name of the gzipped form of a file."""
    return path.with_name(path.name + ".gz")


def read_bytes(path: Path, *, shown: object = None, limit: int = JSON_LIMIT, error: type[UserError] = UserError):
    """Returns the content of a regular file.

    Args:
        path: The file; links are followed.
        shown: Its name in messages.
        limit: Maximum size in bytes.
        error: The kind of `UserError` to raise.

    Raises:
        UserError: Missing, unreadable, a folder, pipe or device, or larger than `limit`.
    """
    shown = path if shown is None else shown
    try:
        with _open(path, shown, error) as stream:
            content = stream.read(limit + 1)
    except OSError as fault:
        raise error(f"{one_line(shown)}: cannot be read: {one_line(fault.strerror or fault)}") from None
    if len(content) > limit:
        raise error(f"{one_line(shown)}: larger than {_size(limit)}; no such file has a reason to be")
    return content


def read_text(path: Path, *, shown: object = None, limit: int = JSON_LIMIT, error: type[UserError] = UserError) -> str:
    """Returns the text of a UTF-8 file without its byte order mark; raises as `read_bytes`."""
    shown = path if shown is None else shown
    return decoded(read_bytes(path, shown=shown, limit=limit, error=error), shown, error)


def decoded(content: bytes, shown: object, error: type[UserError] = UserError) -> str:
    """Decodes UTF-8 without its byte order mark; raises `UserError` naming `shown` and the place."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        raise error(f"{one_line(shown)}:{line}: not UTF-8 text (byte 0x{content[fault.start]:02x})") from None


def read_json(
    path: Path,
    kind: type[T] | Any = Any,
    *,
    shown: object = None,
    limit: int = JSON_LIMIT,
    error: type[UserError] = UserError,
) -> T:
    """Returns the data of a JSON file as `kind`.

    Args:
        path, shown, limit, error: As `read_bytes` takes them.
        kind: Any type pydantic accepts: `dict[str, Any]`, a model, ...

    Raises:
        UserError: As `read_bytes`; not JSON; or not of that kind: `file: key.path: what was expected`.
    """
    shown = path if shown is None else shown
    return parse_json(read_text(path, shown=shown, limit=limit, error=error), kind, shown=shown, error=error)


def parse_json(text: str | bytes, kind: type[T] | Any = Any, *, shown: object, error: type[UserError] = UserError) -> T:
    """Returns the data in a JSON text as `kind`; raises as `read_json`."""
    text = decoded(text, shown, error) if isinstance(text, bytes) else text
    try:
        data = json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse, parse_float=_finite)
        check_plain(data)
    except json.JSONDecodeError as fault:
        raise error(f"{one_line(shown)}:{fault.lineno}: not JSON: {fault.msg}") from None
    except (ValueError, RecursionError) as fault:
        raise error(f"{one_line(shown)}: not JSON: {_reason(fault)}") from None
    return checked(data, kind, shown, error)


def checked(data: Any, kind: type[T] | Any, where: object, error: type[UserError] = UserError) -> T:
    """Validates plain JSON data strictly as `kind`; raises `UserError` with `where: key.path: what was expected`."""
    if kind is Any:
        return data
    try:
        return _adapter(kind).validate_json(json.dumps(data), strict=True)
    except ValidationError as fault:
        raise error(f"{one_line(where)}: {mistake_text(fault)}") from None


def mistake_text(fault: ValidationError) -> str:
    """Returns the first mistake a model found, as `key.path: what was expected, got value`."""
    mistake = fault.errors(include_url=False)[0]
    what = mistake["msg"].removeprefix("Value error, ")
    path = ".".join(one_line(part, 60) for part in mistake["loc"])
    if not path and mistake["type"] == "value_error":
        return one_line(what)
    text = f"{what[:1].lower()}{what[1:]}, got {shown_value(mistake['input'])}"
    return one_line(f"{path}: {text}" if path else text)


def read_json_lines(
    path: Path, *, shown: object = None, limit: int = LINES_LIMIT, error: type[UserError] = UserError
) -> Iterator[Line]:
    """Yields the lines of a JSON-lines file, or of its gzipped form if only that exists.

    A line that is not JSON is yielded with its problem; the caller decides whether to accept it. The same holds for a
    last line without a line end ("unfinished"), which a killed process leaves.

    Raises:
        UserError: As `read_bytes`; damaged or truncated gzip; more than `limit` bytes once unpacked.
    """
    for number, content in read_byte_lines(path, shown=shown, limit=limit, error=error):
        yield parse_line(number, content)


def read_lines_text(
    path: Path, *, shown: object = None, limit: int = LINES_LIMIT, error: type[UserError] = UserError
) -> str:
    """Returns the text of a file, or of its gzipped form if only that exists; raises as `read_json_lines`."""
    content = b"".join(content for _, content in read_byte_lines(path, shown=shown, limit=limit, error=error))
    return decoded(content, path if shown is None else shown, error)


def read_byte_lines(
    path: Path, *, shown: object = None, limit: int = LINES_LIMIT, error: type[UserError] = UserError
) -> Iterator[tuple[int, bytes]]:
    """Yields (number, line with its end) of a file, or of its gzipped form; raises as `read_json_lines`."""
    packed = not os.path.lexists(path) and os.path.lexists(gzipped(path))
    place = gzipped(path) if packed else path
    shown = place if shown is None else shown
    total = 0
    try:
        with _open(place, shown, error) as stream:
            lines = io.BufferedReader(gzip.GzipFile(fileobj=stream)) if packed else stream
            for number, content in enumerate(iter(lambda: lines.readline(LINE_LIMIT), b""), 1):
                total += len(content)
                if total > limit:
                    raise error(f"{one_line(shown)}: larger than {_size(limit)}; no such file has a reason to be")
                yield number, content
    except (EOFError, zlib.error, gzip.BadGzipFile) as fault:
        raise error(f"{one_line(shown)}: damaged or truncated gzip ({one_line(fault)}); copy it again") from None
    except OSError as fault:
        raise error(f"{one_line(shown)}: cannot be read: {one_line(fault.strerror or fault)}") from None


def parse_line(number: int, content: bytes) -> Line:
    """Returns the value of a line of a JSON-lines file, or its problem."""
    if not content.endswith(b"\n"):
        return Line(number, None, "the last line is unfinished" if len(content) < LINE_LIMIT else "too long a line")
    try:
        value = _decoded_line(content)
        if content[:1] != b"{" or _is_suspicious(content):
            check_plain(value)
        return Line(number, value)
    except UnicodeDecodeError:
        return Line(number, None, "not UTF-8 text")
    except (ValueError, RecursionError) as fault:
        return Line(number, None, f"not JSON: {_reason(fault)}")


def _decoded_line(content: bytes) -> Any:
    """Returns the JSON value of a line, in which equal short texts are one object.

    `json`, several times slower, words what is wrong with a line, and finds a key that is given twice.
    """
    with suppress(ValueError):
        value = from_json(content, allow_inf_nan=False)
        if content.count(b":") <= _keys(value):  # more: a key is given twice, or a text has a colon
            return value
    value = LINE_DECODER.decode(content.decode("utf-8"))
    check_plain(value)
    return value


def _keys(value: Any) -> int:
    """Returns how many keys the objects in `value` have; fewer if objects are in a list that begins otherwise."""
    if type(value) is list:
        return sum(map(_keys, value)) if value and type(value[0]) in (dict, list) else 0
    if type(value) is not dict:
        return 0
    count = len(value)
    for item in value.values():
        if type(item) in (dict, list):
            count += _keys(item)
    return count


def _is_suspicious(content: bytes) -> bool:
    zeroed = content.translate(ZEROED)
    if LONG in zeroed:
        return True
    starts = (match.start() + 1 for match in EXPONENT.finditer(zeroed))  # shorter than 40: both its parts are < LONG
    return any(zeroed[max(start - 40, 0) : start].rstrip(MANTISSA)[-1:] in SEPARATORS for start in starts)


def _open(path: Path, shown: object, error: type[UserError]) -> BinaryIO:
    """Opens a regular file; never blocks on a pipe."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise error(f"{one_line(shown)}: no such file") from None
    except ValueError:
        raise error(f"{one_line(shown)}: no name of a file") from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = next((name for test, name in KINDS if test(mode)), "no regular file")
        raise error(f"{one_line(shown)}: is {kind}; expected a file")
    return os.fdopen(handle, "rb")


def check_plain(data: Any, depth: int = 0) -> None:
    """Raises `ValueError` for data that other JSON parsers accept.

    These are text with an unpaired surrogate, which cannot be written, numbers beyond machine range, and data nested
    too deeply.
    """
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(data, int) and data.bit_length() > WHOLE_BITS:
        raise ValueError(f"{shown_value(data)} is too large a whole number")
    if isinstance(data, float) and not math.isfinite(data):
        raise ValueError("a number is too large")
    if isinstance(data, str):
        if not data.isascii() and any("\ud800" <= letter <= "\udfff" for letter in data):
            raise ValueError(f"half of a surrogate pair in {shown_value(data)}")
    elif isinstance(data, dict):
        for key, value in data.items():
            check_plain(key, depth + 1)
            check_plain(value, depth + 1)
    elif isinstance(data, list):
        for value in data:
            check_plain(value, depth + 1)


def plain_or_text(value: Any) -> Any:
    """Returns data of others as JSON would give it back, or its `repr` if JSON cannot hold it (NaN, an array, ...)."""
    try:
        found = json.loads(json.dumps(value, allow_nan=False))
        check_plain(found)
        return found
    except (TypeError, ValueError, RecursionError):
        return shown_value(value)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {shown_value(next(name for name in names if names.count(name) > 1))} given twice")
    return data


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{shown_value(text)} is too large a number")
    return value


LINE_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse)


def _reason(fault: Exception) -> str:
    if isinstance(fault, RecursionError):
        return "nested too deeply"
    if isinstance(fault, json.JSONDecodeError):
        return fault.msg
    return "a whole number of too many digits" if "integer string conversion" in str(fault) else one_line(fault)


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB else f"{count} bytes"


@lru_cache(maxsize=None)
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def replace_file(path: Path, content: bytes | str) -> None:
    """Writes a file atomically and durably: any reader, even after a power cut, sees the old or the new content.

    Raises:
        OSError: The file cannot be written; the old content stays.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(draft, "wb") as file:  # not mkstemp: the umask must decide the file's permissions
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def ensure_writable(path: Path, fix: str = "write somewhere else", endings: Sequence[str] = ()) -> None:
    """Makes the folder of a file that a long command writes at its end, and raises `UserError` if that would fail.

    Args:
        fix: What the user can do instead.
        endings: What the name may end in, such as ".mp4", if the ending decides the format; none = anything.
    """
    if endings and path.suffix.lower() not in endings:
        raise UserError(f"{one_line(path)}: its name must end in {' or '.join(endings)}; {fix}")
    probe = path.with_name(f".{os.getpid()}.probe")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if path.exists():
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, "it may not be changed")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as fault:
        raise UserError(f"{one_line(path)}: cannot be written ({fault.strerror}); {fix}") from None


def sync_folder(folder: Path) -> None:
    """Flushes the names in `folder` to disk if the file system supports it."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems cannot sync a folder
    finally:
        os.close(handle)
