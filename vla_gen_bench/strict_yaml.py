"""A strict YAML reader: plain data, unique keys, bounded size and depth; errors name `file: key.path`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from vla_gen_bench.data import WHOLE_BITS, mistake_text, read_text
from vla_gen_bench.errors import UserError, one_line, suggest
from vla_gen_bench.errors import shown as shown_value

Model = TypeVar("Model", bound=BaseModel)
YAML_LIMIT = 1 << 20
MAX_DEPTH = 20
LONGEST_NUMBER = 100  # characters; PyYAML reads a colon or an underscore as part of one
MAX_VALUES = 100_000  # aliases counted each time they are used
DIRECTION = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # a terminal shows other text than is there
PLAIN = (str, int, float, bool, type(None))
CONTAINERS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def read_yaml(path: Path, shown: str | None = None, error: type[UserError] = UserError) -> Any:
    """Returns the plain data of a YAML file; `shown` is its name in messages.

    Raises:
        UserError: Not a regular text file, bad syntax, a duplicate key, or a value that is not plain data.
    """
    shown = one_line(shown or path)
    return parse_yaml(read_text(path, shown=shown, limit=YAML_LIMIT, error=error), shown, error)


def parse_yaml(text: str, shown: str, error: type[UserError] = UserError) -> Any:
    """Returns the plain data of a YAML text; raises as `read_yaml`."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _Data(loader).of(node, "")
    except yaml.YAMLError as fault:
        raise error(f"{shown}: not valid YAML: {one_line(fault)}") from None
    except _Fault as fault:
        raise error(f"{shown}: {one_line(fault)}") from None


class _Fault(Exception):
    """A problem in a YAML text, as `key.path: what`."""


class _Loader(yaml.SafeLoader):
    """Limits the depth to more than any of our files needs and less than Python's recursion limit."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Fault(f"line {self.peek_event().start_mark.line + 1}: nested too deeply")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Data:
    """Converts nodes to plain data; counts values, which bounds aliases of aliases."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._left = MAX_VALUES

    def of(self, node: yaml.Node, path: str, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _Fault(f"more than {MAX_VALUES} values; aliases count each time they are used")
        if depth > MAX_DEPTH:
            raise _Fault(f"{path[:60]}: nested too deeply")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in CONTAINERS:
            raise _Fault(f"{_at(node, path)}: {node.tag} is not supported; give plain data")
        if isinstance(node, yaml.SequenceNode):
            return [self.of(item, f"{path}.{place}".lstrip("."), depth + 1) for place, item in enumerate(node.value)]
        return self._mapping(node, path, depth)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Fault(f"{_at(key_node, path)}: a key must be text, got a {key_node.id}")
            key = "<<" if key_node.tag == "tag:yaml.org,2002:merge" else self._scalar(key_node, path)
            here = f"{path}.{key}".lstrip(".")
            if not isinstance(key, str):
                raise _Fault(f"{here}: a key must be text, got {key!r}")
            if key in data:
                raise _Fault(f"{here}: key given twice (line {key_node.start_mark.line + 1})")
            data[key] = self.of(value, here, depth + 1)
        return data

    def _scalar(self, node: yaml.ScalarNode, path: str) -> Any:
        if len(node.value) > LONGEST_NUMBER and node.tag.endswith((":int", ":float")):
            raise _Fault(f"{_at(node, path)}: a number of too many digits")
        try:
            value = self._loader.construct_object(node)
        except yaml.YAMLError:
            raise _Fault(f"{_at(node, path)}: {node.tag} is not supported; give plain data") from None
        except Exception:  # PyYAML's constructors raise whatever their conversion does
            kind = node.tag.rsplit(":", 1)[-1]
            raise _Fault(f"{_at(node, path)}: {shown_value(node.value)} is no {kind}; quote it if it is text") from None
        if not isinstance(value, PLAIN):
            kind = type(value).__name__
            raise _Fault(f"{_at(node, path)}: {shown_value(node.value)} is read as a {kind}; quote it if it is text")
        if isinstance(value, float) and not math.isfinite(value):
            raise _Fault(f"{_at(node, path)}: expected a finite number, got {shown_value(node.value)}")
        if isinstance(value, int) and value.bit_length() > WHOLE_BITS:
            raise _Fault(f"{_at(node, path)}: {shown_value(value)} is too large")
        if isinstance(value, str):
            _check_text(value, node, path)
        return value


def _at(node: yaml.Node, path: str) -> str:
    line = f"line {node.start_mark.line + 1}"
    return f"{path} ({line})" if path else line


def _check_text(text: str, node: yaml.Node, path: str) -> None:
    """Refuses unpaired surrogates, controls but tab and line end, and marks that change the direction of text."""
    for letter in text:
        if letter in DIRECTION:
            raise _Fault(f"{_at(node, path)}: holds the direction control {ascii(letter)}; leave it out")
        if (letter < " " and letter not in "\t\n") or "\x7f" <= letter <= "\x9f" or "\ud800" <= letter <= "\udfff":
            raise _Fault(f"{_at(node, path)}: holds the control character {ascii(letter)}; leave it out")


def check_keys(data: Any, known: Iterable[str], where: str) -> None:
    """Raises `UserError` unless `data` is a mapping with only keys in `known`; `where` is `file: key.path`."""
    if not isinstance(data, dict):
        raise UserError(f"{where.removesuffix(':')}: expected a mapping, got {shown_value(data)}")
    joint = " " if where.endswith(":") else "."
    for key in data:
        if key not in known:
            name = one_line(key, 80)
            raise UserError(f"{where}{joint}{name}: unknown key '{name}'{suggest(name, known)}")


def parse(model: type[Model], data: Any, where: str) -> Model:
    """Returns `data` as `model`; the first mistake becomes a `UserError` that starts with `where` and the key path."""
    check_keys(data, model.model_fields, where)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        if not error.errors()[0]["loc"]:
            raise UserError(f"{where.removesuffix(':')}: {mistake_text(error)}") from None
        joint = " " if where.endswith(":") else "."
        raise UserError(f"{where}{joint}{mistake_text(error)}") from None
