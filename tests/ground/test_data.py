"""Readers of files: whatever stands in a file, the answer is its data or one line that names file, place and fault."""

import gzip
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_gen_bench.data import (
    Line,
    check_plain,
    parse_line,
    plain_or_text,
    read_bytes,
    read_json,
    read_json_lines,
    read_text,
    replace_file,
)
from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.errors import UserError, one_line, printable, shown
from vla_gen_bench.strict_yaml import MAX_DEPTH, parse_yaml, read_yaml


class Point(Frozen):
    x: int
    names: tuple[str, ...] = ()


def _file(folder: Path, content: bytes | str, name: str = "f") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _refused(read, *arguments, **options) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700 and printable(message) == message
    return message


def test_json_is_read_as_its_model(tmp_path):
    assert read_json(_file(tmp_path, '\ufeff{"x": 1, "names": ["a"]}'), Point) == Point(x=1, names=("a",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"\xff{}", ":1: not UTF-8 text (byte 0xff)"),
        ("{", ":1: not JSON: Expecting property name"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 500 + "]" * 500, "nested too deeply"),
        ("[NaN]", "NaN is no number"),
        ("[1e999]", "'1e999' is too large a number"),
        ("9" * 5000, "too many digits"),
        ('{"a": 1, "a": 2}', "key 'a' given twice"),
        (r'"\ud800"', "half of a surrogate pair"),
        ('{"x": "1"}', "x: input should be a valid integer, got '1'"),
        ('{"x": 1.5}', "x: input should be a valid integer, got 1.5"),
        ("[1]", "input should be an object"),
        ('{"x": 1, "names": [2]}', "names.0: input should be a valid string, got 2"),
        ('{"x": 1, "\\u001b[2J": 2}', r"\x1b[2J: extra inputs are not permitted"),
    ],
)
def test_bad_json_is_refused_in_one_line(tmp_path, text, expected):
    path = _file(tmp_path, text)
    message = _refused(read_json, path, Point)
    assert message.startswith(str(path)) and expected in message


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe" in _refused(read_text, tmp_path / "pipe")
    assert "is a folder" in _refused(read_text, tmp_path)
    assert "is a device" in _refused(read_yaml, Path("/dev/zero"))
    assert "no such file" in _refused(read_json, tmp_path / "absent")
    assert "no name of a file" in _refused(read_json, Path("a\0b"))
    assert "cannot be read: File name too long" in _refused(read_json, tmp_path / ("n" * 300))


def test_a_file_larger_than_its_cap_is_refused(tmp_path):
    assert read_bytes(_file(tmp_path, "x" * 10), limit=10) == b"x" * 10
    assert "larger than 9 bytes" in _refused(read_bytes, tmp_path / "f", limit=9)


def test_json_lines_name_each_bad_line_and_keep_the_others(tmp_path):
    content = b'{"a": 1}\n\xff\n{"a": NaN}\n[\n' + b"[" * 100_000 + b'\n"\\ud800"\n7\n{"a'
    lines = list(read_json_lines(_file(tmp_path, content)))
    assert lines[0] == Line(1, {"a": 1}) and lines[6] == Line(7, 7)
    problems = [line.problem for line in lines]
    assert problems[1:4] == ["not UTF-8 text", "not JSON: NaN is no number", "not JSON: Expecting value"]
    assert problems[4] == "not JSON: nested too deeply" and "surrogate" in problems[5]
    assert problems[7] == "the last line is unfinished"


def test_gzipped_lines_are_read_where_only_they_are_there(tmp_path):
    _file(tmp_path, gzip.compress(b"1\n2\n"), "rows.jsonl.gz")
    assert [line.value for line in read_json_lines(tmp_path / "rows.jsonl")] == [1, 2]
    _file(tmp_path, "3\n", "rows.jsonl")
    assert [line.value for line in read_json_lines(tmp_path / "rows.jsonl")] == [3]


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-9], lambda c: c[:20], lambda c: b"no gzip", lambda c: c[:40] + b"x" * 9]
)
def test_damaged_gzip_is_named(tmp_path, damage):
    packed = gzip.compress(os.urandom(200).hex().encode() + b"\n")
    path = _file(tmp_path, damage(packed), "rows.jsonl.gz")
    message = _refused(lambda: list(read_json_lines(tmp_path / "rows.jsonl")))
    assert message.startswith(str(path)) and "damaged or truncated gzip" in message


def test_a_gzip_bomb_ends_at_the_cap(tmp_path):
    _file(tmp_path, gzip.compress(b"0" * 5_000_000), "rows.jsonl.gz")
    assert "larger than 1 MiB" in _refused(lambda: list(read_json_lines(tmp_path / "rows.jsonl", limit=1 << 20)))


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "more than 100000 values"),
        ("a: &a [*a]", "nested too deeply"),
        ("[" * 5000, "line 1: nested too deeply"),
        ("a: " + "{b: " * (MAX_DEPTH + 1), "nested too deeply"),
        ("a: 2001-99-99", "a (line 1): '2001-99-99' is no timestamp"),
        ("a: 2001-01-01", "a (line 1): '2001-01-01' is read as a date; quote it"),
        ("a: 0x_", "'0x_' is no int"),
        ("a: !!bool maybe", "'maybe' is no bool"),
        ("a: !!binary '%'", "is read as a bytes"),
        ("a: !!python/object:os.system {}", "is not supported; give plain data"),
        ("a: !x y", "is not supported; give plain data"),
        ("a: !!set {b}", "is not supported"),
        ("a: .nan", "expected a finite number, got '.nan'"),
        ("a: 1e999", "a: 1e999"),
        ("a: " + "9" * 5000, "a number of too many digits"),
        ('a: "\\x1b[2J"', r"holds the control character '\x1b'"),
        ('a: "\\ud800"', r"holds the control character '\ud800'"),
        ('a: "\\u202eb"', r"holds the direction control '\u202e'"),
        ("? [a]\n: b", "a key must be text, got a sequence"),
        ("1: b", "a key must be text, got 1"),
        ("a: 1\na: 2", "a: key given twice (line 2)"),
        ("a: *b", "undefined alias"),
        ("a: b\n---\nc: d", "expected a single document"),
    ],
)
def test_bad_yaml_is_refused_in_one_line(tmp_path, text, expected):
    if expected == "a: 1e999":  # text for YAML 1.1, which wants a point in a number
        assert parse_yaml(text, "f") == {"a": "1e999"}
        return
    assert expected in _refused(read_yaml, _file(tmp_path, text))


def test_aliases_of_reasonable_size_are_data():
    assert parse_yaml("a: &a {x: 1}\nb: *a", "f") == {"a": {"x": 1}, "b": {"x": 1}}


def test_messages_cannot_drive_a_terminal():
    assert printable("a\x1b[31m\u202eé 字\n", keep="\n") == "a\\x1b[31m\\u202eé 字\n"
    assert one_line("a\n b\t c") == "a b c"
    assert len(one_line("x" * 9000)) <= 400 and one_line("ab" * 500, 50).count("...") == 1
    assert shown(10**5000) == "a whole number of 16610 bits" and len(shown("x" * 10_000_000)) <= 80
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "a list"
    with pytest.raises(ValueError, match="nested"):
        check_plain(deep)


def test_a_file_is_replaced_whole_and_as_readable_as_the_umask_lets_it_be(tmp_path):
    old = os.umask(0o022)
    try:
        replace_file(_file(tmp_path, "old"), "new")
    finally:
        os.umask(old)
    assert (tmp_path / "f").read_text() == "new" and os.listdir(tmp_path) == ["f"]
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o644
    with pytest.raises(OSError):
        replace_file(tmp_path / "absent" / "f", "new")


def test_the_message_of_a_user_error_is_harmless_and_bounded():
    assert str(UserError("a\x1b]0;x\x07: bad\n  more")) == "a\\x1b]0;x\\x07: bad\n  more"
    assert len(str(UserError("x" * 10**7))) < 2100


@pytest.mark.parametrize("number", ["1e999", "-1.5E+999", "1" * 30, "[1e999]", '{"b": [0, 1e400]}'])
def test_a_line_with_a_number_of_no_machine_is_bad(tmp_path, number):
    lines = list(
        read_json_lines(_file(tmp_path, f'{{"digest": "7e123", "a": {number}}}\n{{"digest": "7e1234567", "a": 1}}\n'))
    )
    assert "large" in lines[0].problem and lines[1].problem == ""


LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    LEAVES | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
JSON_LINES = st.builds(json.dumps, st.dictionaries(st.text(), VALUES), ensure_ascii=st.booleans())


@settings(max_examples=100, deadline=None)
@given(JSON_LINES)
def test_the_fast_parser_of_lines_agrees_with_json(text):
    line = text.encode() + b"\n"
    assert parse_line(1, line) == Line(1, json.loads(text), "")


@pytest.mark.parametrize(
    "text", ['{"a": "1e999"}', '{"digest": "3e0001234567890123456789"}', '{"a": 9223372036854775807}']
)
def test_digits_in_a_digest_are_no_large_number(text):
    assert parse_line(1, text.encode() + b"\n").value == json.loads(text)


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '{"a": 1, "a" : 1}', '{"b": {"a": 1, "a"\t: 2}}', '[{"a":1,"a":1}]'])
def test_a_key_given_twice_is_refused(text):
    """Other readers may take the first value, or the last one."""
    assert parse_line(1, text.encode() + b"\n").problem == "not JSON: key 'a' given twice"


@pytest.mark.parametrize("text", ['{"a": "\\":\\":"}', '{"a\\":": 1}', '{"a": ["x :", "\\" :"]}'])
def test_a_text_that_looks_like_keys_is_one(text):
    assert parse_line(1, text.encode() + b"\n") == Line(1, json.loads(text), "")


def test_a_number_of_many_digits_before_its_exponent_is_refused():
    assert "too large" in parse_line(1, b'{"a": 1.23456789012345678e+308, "b": 123456789012345.25E999}\n').problem


def test_data_of_others_is_kept_where_json_can_hold_it_and_shown_where_not():
    assert plain_or_text({"a": (1, 2.5), "b": None}) == {"a": [1, 2.5], "b": None}
    assert plain_or_text(float("nan")) == "nan" and plain_or_text({"a": b"x"}) == "{'a': b'x'}"
    circle: list[Any] = []
    circle.append(circle)
    assert plain_or_text(circle) == "[[...]]"
