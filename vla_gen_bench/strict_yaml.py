"""YAML without its surprises: duplicate keys are refused, and errors name `file: key.path`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from vla_gen_bench.errors import UserError, suggest

Model = TypeVar("Model", bound=BaseModel)
MAX_DEPTH = 20


def read_yaml(path: Path, shown: str | None = None) -> Any:
    """Returns the plain data of a YAML file; `shown` is what messages call it.

    Raises:
        UserError: unreadable file, bad syntax, or a key given twice.
    """
    shown = shown or str(path)
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        return None if node is None else _data(loader, node, shown, "")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{shown}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{shown}: not valid YAML: {' '.join(str(error).split())}") from None


def _data(loader: yaml.SafeLoader, node: yaml.Node, shown: str, path: str) -> Any:
    if path.count(".") > MAX_DEPTH:
        raise UserError(f"{shown}: {path[:60]}...: nested too deeply")
    if isinstance(node, yaml.SequenceNode):
        return [_data(loader, item, shown, f"{path}.{place}") for place, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
    data: dict[Any, Any] = {}
    for key_node, value in node.value:
        key = loader.construct_object(key_node, deep=True)
        here = f"{path}.{key}".lstrip(".")
        if not isinstance(key, str):
            raise UserError(f"{shown}: {here}: a key must be text, got {key!r}")
        if key in data:
            raise UserError(f"{shown}: {here}: key given twice (line {key_node.start_mark.line + 1})")
        data[key] = _data(loader, value, shown, here)
    return data


def check_keys(data: Any, known: Iterable[str], where: str) -> None:
    """Raises `UserError` unless `data` is a mapping with no other keys than `known`; `where` is `file: key.path`."""
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected a mapping, got {data!r}")
    joint = " " if where.endswith(":") else "."
    for key in data:
        if key not in known:
            raise UserError(f"{where}{joint}{key}: unknown key '{key}'{suggest(key, known)}")


def parse(model: type[Model], data: Any, where: str) -> Model:
    """Returns `data` as `model`; the first mistake becomes a `UserError` that starts with `where` and the key path."""
    check_keys(data, model.model_fields, where)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(_message(error.errors()[0], where)) from None


def _message(mistake: Any, where: str) -> str:
    what = mistake["msg"].removeprefix("Value error, ")
    if not mistake["loc"]:
        return f"{where.removesuffix(':')}: {what}"
    joint = " " if where.endswith(":") else "."
    path = ".".join(str(part) for part in mistake["loc"])
    return f"{where}{joint}{path}: {what[0].lower()}{what[1:]}, got {mistake['input']!r}"
