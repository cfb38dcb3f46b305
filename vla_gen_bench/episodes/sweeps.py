"""Expands one row of a suite's YAML into several scenarios: levels, lists of severities, combinations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vla_gen_bench.episodes.axes import LEVELS, Number
from vla_gen_bench.episodes.effects import find_effect
from vla_gen_bench.episodes.shift import Scenario, Shift, compose, numbers_of
from vla_gen_bench.errors import UserError, shown, suggest
from vla_gen_bench.strict_yaml import parse


def expand(key: str, row: Mapping[str, Any], where: str) -> Iterator[Scenario]:
    """Yields the scenarios of a row with `levels:`, or with a list in place of a severity.

    `levels: [1, 3]` gives `key_1` and `key_3`; a list of n severities gives `key_1` to `key_n`, in its order.
    """
    for number, data in _variants(row, where):
        shift = Shift.parse(data, f"{key}_{number}", f"{where}.shift")
        strength = _strength(shift, row["shift"])
        label = f"{label_of(row, key, where)} ({strength})"
        own = {"id": f"{key}_{number}", "label": label, "dimension": row["dimension"], "shift": shift}
        yield parse(Scenario, {**own, "sweep": key, "level": number, "strength": strength}, where)


def is_sweep(row: Mapping[str, Any]) -> bool:
    """Returns whether a row describes several scenarios."""
    return "levels" in row or any(isinstance(value, list) for _, _, value in _severities(row.get("shift")))


def combined(key: str, row: Mapping[str, Any], scenarios: Mapping[str, Scenario], where: str) -> Scenario:
    """Returns the scenario of a row with `combine: [a, b]`, which applies the shifts of both scenarios."""
    parts = row["combine"]
    if not isinstance(parts, list) or len(parts) < 2:
        raise UserError(f"{where}.combine: expected a list of two scenarios or more, got {parts!r}")
    for part in parts:
        if not isinstance(part, str) or part not in scenarios:
            raise UserError(
                f"{where}.combine: unknown scenario {shown(part)}{suggest(str(part), scenarios)}; define it above"
            )
    try:
        both = compose([scenarios[part] for part in parts])
    except UserError as error:
        raise UserError(f"{where}.combine: {error}") from error
    wanted = {"id": key, "label": label_of(row, both.label, where), "dimension": row.get("dimension") or both.dimension}
    return parse(Scenario, {**dict(both), **wanted}, where)


def label_of(row: Mapping[str, Any], default: str, where: str) -> str:
    """Returns a row's label; raises `UserError` unless it is text."""
    label = row.get("label", default)
    if not isinstance(label, str):
        raise UserError(f"{where}.label: expected text, got {shown(label)}")
    return label


def _variants(row: Mapping[str, Any], where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    shift = row.get("shift") or {}
    lists = [(item, name, values) for item, name, values in _severities(shift) if isinstance(values, list)]
    if "levels" in row:
        yield from _levels(row["levels"], shift, lists, where)
        return
    lengths = {len(values) for *_, values in lists}
    if len(lengths) != 1 or lengths == {0}:
        raise UserError(f"{where}.shift: lists of severities must have one length, got {sorted(lengths)}")
    for place in range(lengths.pop()):
        yield place + 1, _with(shift, lambda name, value, at=place: value[at] if isinstance(value, list) else value)


def _levels(levels: Any, shift: Any, lists: list, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    right = isinstance(levels, list) and all(type(level) is int and level in LEVELS for level in levels)
    if not right or not levels or len(set(levels)) < len(levels):
        raise UserError(f"{where}.levels: expected some of {', '.join(map(str, LEVELS))}, each once, got {levels!r}")
    if lists:
        raise UserError(f"{where}: both levels and a list of {lists[0][1]} are given; give one of them")
    if not isinstance(shift, Mapping) or not shift:
        raise UserError(f"{where}.levels: there is no shift whose levels these are; give `shift: {{axis: pool}}`")
    for level in levels:
        yield level, _with(shift, lambda name, value: value, {"level": level})


def _severities(shift: Any) -> Iterator[tuple[str, str, Any]]:
    """Yields (axis or effect, severity, value) of an unparsed shift, skipping pools and malformed parts."""
    if not isinstance(shift, Mapping):
        return
    for axis, value in shift.items():
        for item in value if axis == "effects" and isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                name = str(item.get("name", axis))
                yield from ((name, key, inner) for key, inner in item.items() if key not in ("name", "pool"))


def _with(shift: Mapping[str, Any], pick: Any, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns a shift with every severity replaced by `pick(name, value)`, and `more` added."""

    def item(value: Any, key: str) -> Any:
        if isinstance(value, (str, list)):
            return {key: value, **more} if more else value
        if not isinstance(value, Mapping):
            return value
        picked = {name: inner if name == key else pick(name, inner) for name, inner in value.items()}
        return {**picked, **(more or {})}

    return {
        axis: [item(one, "name") for one in value]
        if axis == "effects" and isinstance(value, list)
        else item(value, "pool")
        for axis, value in shift.items()
    }


def _strength(shift: Shift, written: Mapping[str, Any]) -> str:
    """Returns the severities that differ among the levels, with their units: "0.06 m"."""
    parts = []
    for effect in shift.effects:
        numbers = find_effect(effect.name).severities or {}
        parts += [_amount(name, value, numbers.get(name)) for name, value in effect.params.items()]
    for axis, choice in shift.axes.items():
        numbers = numbers_of(axis, choice.pool)
        main = {name: it for name, it in choice.params.items() if name != "min_distance" or it != numbers[name].default}
        parts += [_amount(name, value, numbers[name]) for name, value in main.items()]
    return ", ".join(parts) or Shift.describe(shift)


def _amount(name: str, value: Any, number: Number | None) -> str:
    shown = f"{value:g}" if isinstance(value, (int, float)) else str(value)
    if number is None or not number.unit:
        return f"{name} {shown}"
    return f"{shown}{number.unit}" if number.unit.startswith("%") else f"{shown} {number.unit}"
