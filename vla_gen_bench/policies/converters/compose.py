"""Parses the `adapter:` of a card into a list of converters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla_gen_bench.errors import UserError, one_line, suggest
from vla_gen_bench.policies.converters.base import Converter
from vla_gen_bench.policies.converters.images import Crop, Jpeg, Resize
from vla_gen_bench.policies.converters.numbers import (
    Cast,
    Ensemble,
    Gripper,
    Scale,
    Select,
    Unnormalise,
    with_statistics,
)
from vla_gen_bench.policies.converters.rotations import AbsolutePose, FromMeasured, RotationDelta
from vla_gen_bench.strict_yaml import check_keys, parse

CONVERTERS: dict[str, type[Converter]] = {
    "resize": Resize,
    "crop": Crop,
    "jpeg": Jpeg,
    "cast": Cast,
    "select": Select,
    "scale": Scale,
    "unnormalise": Unnormalise,
    "rotation": RotationDelta,
    "absolute": AbsolutePose,
    "deltas": FromMeasured,
    "gripper": Gripper,
    "ensemble": Ensemble,
}


def parse_adapter(entries: Any, where: str, folder: Path | None = None) -> list[Converter]:
    """Returns the converters of a list such as `[{jpeg: {quality: 95}}, gripper]`.

    Args:
        where: The list's name in messages, "policies/acme/card.yaml: adapter".
        folder: Folder of the files it names; None = the working directory.

    Raises:
        UserError: An unknown converter or argument, a bad value, a missing file.
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise UserError(f"{where}: is {type(entries).__name__}; expected a list such as [{{jpeg: {{quality: 95}}}}]")
    return [_parse(entry, f"{where}[{place}]", folder or Path()) for place, entry in enumerate(entries)]


def describe_adapter(converters: Sequence[Converter]) -> list[dict[str, Any]]:
    """Returns the converters as a card would list them, every argument written out."""
    names = {model: name for name, model in CONVERTERS.items()}
    return [{names[type(item)]: item.model_dump(mode="json", exclude_none=True)} for item in converters]


def _parse(entry: Any, where: str, folder: Path) -> Converter:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise UserError(f"{where}: expected one converter with its arguments, such as {{gripper: {{open: 1}}}}")
    [(name, arguments)] = entry.items()
    if name not in CONVERTERS:
        raise UserError(f"{where}: unknown converter '{one_line(name, 80)}'{suggest(str(name), CONVERTERS)}")
    model = CONVERTERS[name]
    check_keys(arguments or {}, model.model_fields, f"{where}.{name}")
    converter = parse(model, arguments or {}, f"{where}.{name}:")
    if isinstance(converter, Unnormalise) and converter.file is not None:
        return with_statistics(converter, folder, f"{where}.{name}")
    return converter
