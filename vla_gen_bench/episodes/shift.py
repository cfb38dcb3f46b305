"""`Shift`: what differs from training, as data; and `Scenario`, a named shift."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Any

from pydantic import Field

from vla_gen_bench.episodes.axes import AXES, EXPLICIT, FOUNDING_AXES, LEVELS, LISTS, POOL_LEVELS, Levels, Number
from vla_gen_bench.episodes.catalog import load_catalog, worlds
from vla_gen_bench.episodes.effects import find_effect, known_effects
from vla_gen_bench.episodes.spec import Effect, Frozen, digest_of
from vla_gen_bench.errors import UserError, one_line, suggest

UNSAID = ("min_distance", "displacement", "scale", "step")


class Choice(Frozen):
    """The pool an axis draws from and all severities of that pool.

    Attributes:
        pool: A named pool, or "explicit".
        params: Severities.
        items: Contents of an explicit pool: ids, templates, or degrees.
    """

    later_fields = frozenset({"items"})
    pool: str
    params: dict[str, float] = Field(default_factory=dict)
    items: tuple[str | float, ...] = ()


class Shift(Frozen):
    """What differs from the in-distribution setup. `Shift.parse` builds it and checks names and ranges.

    Attributes:
        name: Owner of the shift, for messages; not part of `resolved()`.
        axes: Only the axes the shift sets.
        effects: In order of application; their params are severities, not yet drawn values.
    """

    name: str = "ind"
    axes: dict[str, Choice] = Field(default_factory=dict)
    effects: tuple[Effect, ...] = ()

    @classmethod
    def parse(cls, data: Any, name: str = "shift", where: str = "shift") -> Shift:
        """Returns the shift written as `{axis: pool}` or `{axis: {pool: .., severity: ..}}`, `effects: [..]`.

        Raises:
            UserError: names `where` plus the key path of the first mistake.
        """
        data = _mapping({} if data is None else data, where)
        _known(data, [*AXES, "effects"], "axis", where)
        axes = {axis: _choice(axis, data[axis], f"{where}.{axis}") for axis in data if axis != "effects"}
        return cls(name=name, axes=axes, effects=_effects(data.get("effects", []), f"{where}.effects"))

    def __or__(self, other: Shift) -> Shift:
        """Returns both shifts together; raises `UserError` where both set one axis or name one effect."""
        for kind, mine, theirs in (
            ("axis", self.axes, other.axes),
            ("effect", {e.name for e in self.effects}, {e.name for e in other.effects}),
        ):
            both = sorted(set(mine) & set(theirs))
            if both:
                raise UserError(f"cannot combine '{self.name}' with '{other.name}': both set {kind} '{both[0]}'")
        return Shift(
            name=f"{self.name}+{other.name}",
            axes={**self.axes, **other.axes},
            effects=self.effects + other.effects,
        )

    def choice(self, axis: str) -> Choice:
        """Returns the pool `axis` draws from; the in-distribution one if the shift does not set it."""
        return self.axes.get(axis) or _standard(axis)

    def resolved(self) -> dict[str, Any]:
        """Returns choices and effects as JSON data, equal for equal episodes.

        It lists all original axes, and axes added later only if set.
        """
        later = [axis for axis in AXES if axis not in FOUNDING_AXES and self.choice(axis) != _standard(axis)]
        choices = {axis: self.choice(axis).canonical() for axis in (*FOUNDING_AXES, *later)}
        return {**choices, "effects": [effect.model_dump() for effect in self.effects]}

    def describe(self) -> str:
        """Returns a one-line description, for example `table unseen; noise alpha 0.3`."""
        parts = [
            _words(f"{axis} {_pool_words(at)}", at.params, numbers_of(axis, at.pool)) for axis, at in self.axes.items()
        ]
        parts += [
            _words(effect.name, effect.params, find_effect(effect.name).severities or {}) for effect in self.effects
        ]
        return "; ".join(parts) or "nothing"


LONGEST_LABEL = 200  # characters; a label is one line of a table


class Scenario(Frozen):
    """One row of a results table.

    Attributes:
        id: Unique in its suite; composed ones join theirs with "+".
        label: For tables.
        dimension: The kind of generalization the row measures; "mixed" for a composition across kinds.
        shift: What differs from training.
        sweep, level: The sweep (one disturbance at several strengths) and this row's level in it.
        strength: The level's severities as display text: "0.06 m".
        parts: The scenarios whose shifts this one combines.
        reference: For rows of `table1` only: the reference environment whose episode ids are decoded.
    """

    id: str
    label: str = Field(pattern=r"^[^\n\t]+$", max_length=LONGEST_LABEL)
    dimension: str
    shift: Shift = Shift()
    reference: dict[str, Any] | None = None
    sweep: str | None = None
    level: int | None = None
    strength: str = ""
    parts: tuple[str, ...] = ()

    def resolved(self) -> dict[str, Any]:
        """Returns the data that determines the episodes and their place in a report, without the label."""
        episodes = {"reference": self.reference} if self.reference else {"shift": self.shift.resolved()}
        later = {"sweep": self.sweep, "level": self.level, "parts": list(self.parts)}
        return {"id": self.id, "dimension": self.dimension, **episodes, **{k: v for k, v in later.items() if v}}

    def digest(self) -> str:
        """Returns 16 hex digits that change whenever the scenario's definition does."""
        return digest_of(self.resolved())


def compose(scenarios: list[Scenario]) -> Scenario:
    """Returns the scenario with all shifts at once; raises `UserError` where two set one axis."""
    for scenario in scenarios:
        if scenario.reference:
            raise UserError(f"'{scenario.id}' is a row of the reference and cannot be combined")
    shift = scenarios[0].shift
    for scenario in scenarios[1:]:
        shift = shift | scenario.shift
    dimensions = {scenario.dimension for scenario in scenarios} - {"ind"} or {"ind"}
    return Scenario(
        id="+".join(scenario.id for scenario in scenarios),
        label=one_line(" + ".join(scenario.label for scenario in scenarios), LONGEST_LABEL),
        dimension=dimensions.pop() if len(dimensions) == 1 else "mixed",
        shift=shift,
        parts=tuple(scenario.id for scenario in scenarios),
    )


def _standard(axis: str) -> Choice:
    """Returns the in-distribution choice of an axis."""
    return Choice(pool=next(iter(AXES[axis])))


def _words(what: str, params: Mapping[str, Any], numbers: Mapping[str, Number]) -> str:
    """Returns `what` with its severities, leaving out a distance, scale or step at its default."""
    told = [key for key in params if key not in UNSAID or key not in numbers or params[key] != numbers[key].default]
    return " ".join([what, *(f"{key} {params[key]}" for key in told)])


def _mapping(data: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: expected a mapping, got {data!r}")
    return data


def _known(names: Iterable[str], known: Iterable[str], what: str, where: str) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"{where}.{name}: unknown {what} '{name}'{suggest(str(name), known)}")


def numbers_of(axis: str, pool: str) -> Mapping[str, Number]:
    """Returns the severities of a pool; an explicit one has those of the axis's last named pool."""
    return list(AXES[axis].values())[-1] if pool == EXPLICIT else AXES[axis][pool]


def _pool_words(choice: Choice) -> str:
    return " or ".join(map(str, choice.items)) if choice.items else choice.pool


def _choice(axis: str, data: Any, where: str) -> Choice:
    items = data.get("pool") if isinstance(data, Mapping) else data
    if isinstance(items, list):
        data = {**(data if isinstance(data, Mapping) else {}), "pool": EXPLICIT}
        items = check_items(axis, items, where)
    pool, severities = _named(data, "pool", [*AXES[axis], *([EXPLICIT] if isinstance(items, tuple) else [])], where)
    severities = _levelled(severities, POOL_LEVELS.get((axis, pool)), f"{axis} {pool}", where)
    params = _severities(severities, numbers_of(axis, pool), where)
    return Choice(pool=pool, params=params, items=items if isinstance(items, tuple) else ())


def check_items(axis: str, items: list[Any], where: str) -> tuple[str | float, ...]:
    """Returns the items of an explicit pool; raises `UserError` for an unknown id or an axis that takes no list."""
    if axis not in LISTS:
        raise UserError(f"{where}: axis '{axis}' takes no list; expected one of {', '.join(AXES[axis])}")
    kind, wanted = (float, "degrees") if axis == "yaw" else (str, "text")
    fits = [isinstance(item, (int, float) if kind is float else str) and not isinstance(item, bool) for item in items]
    if not items or not all(fits) or len(set(items)) < len(items):
        raise UserError(f"{where}: expected a list of {wanted}, each once, got {items!r}")
    for item in items:
        _check_item(axis, item, where)
    return tuple(float(item) if kind is float else item for item in items)


def _check_item(axis: str, item: Any, where: str) -> None:
    kind = LISTS[axis]
    if kind is not None:
        known = sorted({id for world in worlds() for id in load_catalog(world).ids(kind)})
        if item not in known:
            raise UserError(f"{where}: no world has {kind} with the id '{item}'{suggest(item, known)}")
    elif axis == "phrasing":
        if not _is_template(item):
            raise UserError(f"{where}: template '{item}': expected no other braces than {{object}}, {{receptacle}}")


def _is_template(text: str) -> bool:
    """Returns whether the format fields are exactly the two plain names, without widths or attributes."""
    try:
        fields = [(name, spec, how) for _, name, spec, how in Formatter().parse(text) if name is not None]
    except ValueError:
        return False
    return all(field in (("object", "", None), ("receptacle", "", None)) for field in fields)


def _levelled(severities: dict[str, Any], levels: Levels | None, what: str, where: str) -> dict[str, Any]:
    """Returns severities with `level` replaced by its values."""
    if "level" not in severities:
        return severities
    level = severities.pop("level")
    if levels is None:
        raise UserError(f"{where}.level: {what} has no levels; write its severity")
    if type(level) is not int or level not in LEVELS:
        raise UserError(f"{where}.level: expected a whole number from 1 to 5, got {level!r}")
    for name in levels.values:
        if name in severities:
            raise UserError(
                f"{where}: both level and {name} are given; level {level} means {name} {levels.at(level)[name]}"
            )
    return {**severities, **levels.at(level)}


def _effects(data: Any, where: str) -> tuple[Effect, ...]:
    if not isinstance(data, list):
        raise UserError(f"{where}: expected a list of effects, got {data!r}")
    effects = tuple(_effect(item, f"{where}[{place}]") for place, item in enumerate(data))
    names = [effect.name for effect in effects]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where}: effect '{name}' given twice")
    return effects


def _effect(data: Any, where: str) -> Effect:
    name, severities = _named(data, "name", None, where)
    if ":" not in name:
        _named(name, "name", known_effects(), where)
    try:
        found = find_effect(name)
    except UserError as error:
        raise UserError(f"{where}.name: {error}") from error
    known, severities = found.severities, _levelled(severities, found.levels, f"effect '{name}'", where)
    return Effect(name=name, params=severities if known is None else _severities(severities, known, where))


def _named(data: Any, key: str, known: Iterable[str] | None, where: str) -> tuple[str, dict[str, Any]]:
    """Returns the name under `key` and the mapping's other entries; `data` may also be the name alone."""
    rest = {key: data} if isinstance(data, str) else dict(_mapping(data, where))
    name = rest.pop(key, None)
    if not isinstance(name, str) or (known is not None and name not in known):
        raise UserError(f"{where}.{key}: expected a name, got {name!r}{suggest(str(name), known or ())}")
    return name, rest


def _severities(data: Mapping[str, Any], numbers: Mapping[str, Number], where: str) -> dict[str, float]:
    _known(data, numbers, "severity", where)
    return {key: _severity(data.get(key, number.default), number, f"{where}.{key}") for key, number in numbers.items()}


def _severity(value: Any, number: Number, where: str) -> float:
    kind, wanted = (int, "a whole number") if number.whole else ((int, float), "a number")
    if isinstance(value, bool) or not isinstance(value, kind) or not number.low <= value <= number.high:
        raise UserError(f"{where}: expected {wanted} from {number.low:g} to {number.high:g}, got {value!r}")
    return value if number.whole else float(value)
