"""`Suite`: scenarios plus a protocol, read from YAML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, StrictInt, field_validator, model_validator

from vla_gen_bench.bounds import EPISODES, MOST_SEEDS
from vla_gen_bench.episodes.draw import FIRST_TRAINING_SEED, draw, draw_for_env, draw_training, training_scenario
from vla_gen_bench.episodes.effects import find_effect
from vla_gen_bench.episodes.shift import Scenario, Shift, compose
from vla_gen_bench.episodes.spec import Frozen, digest_of
from vla_gen_bench.episodes.streams import POOLS_VERSION
from vla_gen_bench.episodes.sweeps import combined, expand, is_sweep
from vla_gen_bench.errors import UserError, one_line, suggest
from vla_gen_bench.strict_yaml import check_keys, parse, read_yaml

__all__ = [
    "Protocol",
    "Scenario",
    "Suite",
    "draw",
    "draw_for_env",
    "draw_training",
    "load_suite",
    "read_suite",
    "suite_from",
    "training_scenario",
    "union",
]

DIMENSIONS = ("ind", "vision", "semantics", "execution")
# Folders are named after a suite; union() joins ids with "+".
ID_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$"
LONGEST_ID = 150
LONGEST_HORIZON = 100_000
SUITE_KEYS = ("id", "version", "title", "description", "protocol", "quick", "dimensions", "include", "scenarios")
SCENARIO_KEYS = ("label", "dimension", "shift", "reference", "levels", "combine")


class Protocol(Frozen):
    """How a suite is run and scored.

    Attributes:
        episodes_per_seed: Episodes of each scenario for each seed; their indices count from 0.
        seeds: Evaluation seeds, below 1,000,000.
        horizon: Control steps per episode; episodes never end early.
        metric: The headline number.
    """

    episodes_per_seed: int = Field(default=64, ge=1, le=EPISODES.high, strict=True)
    seeds: tuple[StrictInt, ...] = (0, 1, 2)
    horizon: int = Field(default=80, ge=1, le=LONGEST_HORIZON, strict=True)
    metric: Literal["success_at_end", "success_once"] = "success_at_end"

    @field_validator("seeds")
    @classmethod
    def _distinct_evaluation_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError("expected distinct seeds, at least one")
        if len(seeds) > MOST_SEEDS:
            raise ValueError(f"expected at most {MOST_SEEDS} seeds")
        if not all(0 <= seed < FIRST_TRAINING_SEED for seed in seeds):
            raise ValueError(f"evaluation seeds are 0 to {FIRST_TRAINING_SEED - 1}")
        return seeds


class Quick(Frozen):
    """A subset of the protocol's episodes to run first; the full protocol resumes its log.

    Attributes:
        episodes_per_seed, seeds: At most those of the protocol.
    """

    episodes_per_seed: int = Field(default=16, ge=1, strict=True)
    seeds: tuple[StrictInt, ...] = (0,)


class Suite(Frozen):
    """A versioned set of scenarios.

    Attributes:
        id, version, title, description: Of the suite.
        protocol: How it is run.
        quick: Which of its episodes `vgb eval --quick` runs; not part of the digest.
        scenarios: By id, in the order of the table.
        path: The source file; None for a suite built in code.
    """

    id: str = Field(pattern=ID_PATTERN, max_length=LONGEST_ID)
    version: str
    title: str = ""
    description: str = ""
    protocol: Protocol = Protocol()
    quick: Quick = Quick()
    scenarios: dict[str, Scenario]
    path: Path | None = None

    @model_validator(mode="after")
    def _quick_is_a_share(self) -> Suite:
        full, seeds = self.protocol, set(self.quick.seeds)
        if self.quick.episodes_per_seed > full.episodes_per_seed or not seeds or not seeds <= set(full.seeds):
            if "quick" in self.model_fields_set:
                raise ValueError("quick: expected at most the protocol's episodes_per_seed, and some of its seeds")
            small = min(Quick().episodes_per_seed, full.episodes_per_seed)
            object.__setattr__(self, "quick", Quick(episodes_per_seed=small, seeds=full.seeds[:1]))
        return self

    @model_validator(mode="after")
    def _one_family(self) -> Suite:
        if len({scenario.reference is None for scenario in self.scenarios.values()}) > 1:
            raise ValueError("rows of the reference (table1) and shifts of our own cannot share a suite")
        return self

    @property
    def family(self) -> str:
        """Returns "reference" for rows that follow the reference's episode ids (`table1`), else "shifts"."""
        return "reference" if any(scenario.reference for scenario in self.scenarios.values()) else "shifts"

    def digest(self) -> str:
        """Returns 16 hex digits over everything that decides which episodes run and how they are scored.

        Titles, labels and the file's layout are excluded, so fixing a typo keeps old logs comparable.
        """
        rows = [scenario.resolved() for scenario in self.scenarios.values()]
        head = {"id": self.id, "version": self.version, "pools": POOLS_VERSION}
        return digest_of({**head, "protocol": self.protocol.canonical(), "scenarios": rows})

    def definition(self) -> dict[str, Any]:
        """Returns the complete suite as JSON data, from which `suite_from` rebuilds it."""
        return self.model_dump(mode="json", exclude={"path"})

    def select(self, ids: Sequence[str] | None = None) -> list[Scenario]:
        """Returns the named scenarios, all if `ids` is None; "unseen_table + noise_weak" composes two shifts into one.

        Raises:
            UserError: unknown id (with a suggestion), or two shifts that set the same axis.
        """
        chosen = [self._one(text) for text in ids] if ids else list(self.scenarios.values())
        return list({scenario.id: scenario for scenario in chosen}.values())

    def _one(self, text: str) -> Scenario:
        parts = [part.strip() for part in text.split("+")]
        for part in parts:
            if part not in self.scenarios:
                raise UserError(f"suite '{self.id}': unknown scenario '{part}'{suggest(part, self.scenarios)}")
        found = [self.scenarios[part] for part in parts]
        return found[0] if len(found) == 1 else compose(found)


def suite_from(definition: Any, where: str) -> Suite:
    """Rebuilds a suite from `Suite.definition`; raises `UserError`, starting with `where`, if that is invalid."""
    return parse(Suite, definition, where)


def load_suite(name_or_path: str) -> Suite:
    """Returns the suite with that name or file; `vla_gen_bench.episodes.lookup` lists where names are searched."""
    from vla_gen_bench.episodes.lookup import find_suite

    path, shown = find_suite(name_or_path)
    return read_suite(path, shown)


def union(suites: Sequence[Suite]) -> Suite:
    """Returns one suite with the scenarios of all; a shared scenario appears once.

    Raises:
        UserError: The suites differ in protocol, define a scenario differently, or mix table1 with our own suites.
    """
    first, *others = suites
    if not others:
        return first
    for other in others:
        if other.family != first.family:
            raise UserError(
                f"suites '{first.id}' and '{other.id}' are of two families and cannot share a suite; "
                "evaluate them one by one"
            )
        if other.protocol != first.protocol:
            raise UserError(f"suites '{first.id}' and '{other.id}' have different protocols; evaluate them one by one")
    scenarios: dict[str, Scenario] = {}
    for suite in suites:
        for scenario in suite.scenarios.values():
            _add(scenarios, scenario, f"suites {', '.join(suite.id for suite in suites)}")
    ids = list(dict.fromkeys(suite.id for suite in suites))
    versions = "+".join(dict.fromkeys(suite.version for suite in suites))
    fields = {"id": "+".join(ids), "version": versions, "protocol": first.protocol, "quick": first.quick}
    return parse(Suite, {**fields, "scenarios": scenarios}, f"suites {'+'.join(ids)}:")


def read_suite(path: Path, shown: str | None = None, including: tuple[Path, ...] = ()) -> Suite:
    """Returns the suite a YAML file describes.

    Args:
        path: The file.
        shown: Its name in messages.
        including: The chain of files whose `include` led to this one.

    Raises:
        UserError: Invalid file; the message has `file: key.path` and the problem.
    """
    shown = shown or str(path)
    if path.resolve() in including:
        raise UserError(f"{shown}: include: the suite includes itself")
    data = read_yaml(path, shown)
    check_keys(data, SUITE_KEYS, f"{shown}:")
    if "id" not in data:
        raise UserError(f"{shown}: no id given; start with `id: {path.stem}`")
    scenarios = _included(data.get("include", []), path, shown, (*including, path.resolve()))
    own, dimensions = data.get("scenarios", {}), _dimensions(data.get("dimensions", []), shown)
    check_keys(own, own, f"{shown}: scenarios")
    for key, row in own.items():
        where = f"{shown}: scenarios.{key}"
        for scenario in _rows(key, row, dimensions, scenarios, where):
            _add(scenarios, scenario, where)
    if not scenarios:
        raise UserError(f"{shown}: no scenarios; give `scenarios:` or `include:`")
    protocol = parse(Protocol, data.get("protocol", {}), f"{shown}: protocol")
    fields = {key: data[key] for key in ("id", "version", "title", "description") if key in data}
    if "quick" in data:
        fields["quick"] = parse(Quick, data["quick"], f"{shown}: quick")
    _check_steps(scenarios.values(), protocol.horizon, shown)
    return parse(Suite, {**fields, "protocol": protocol, "scenarios": scenarios, "path": path}, f"{shown}:")


def _check_steps(scenarios: Iterable[Scenario], horizon: int, shown: str) -> None:
    """Raises `UserError` for an effect on the state whose step an episode does not reach: it would never act."""
    for scenario in scenarios:
        for effect in scenario.shift.effects:
            step = effect.params.get("step")
            late = isinstance(step, (int, float)) and step > horizon
            if late and find_effect(effect.name).kind == "state":
                raise UserError(
                    f"{shown}: scenarios.{scenario.id}: effect '{effect.name}' acts after step {step:g}, "
                    f"but an episode has {horizon}; give a smaller step or a longer protocol.horizon"
                )


def _included(names: Any, path: Path, shown: str, including: tuple[Path, ...]) -> dict[str, Scenario]:
    """Looks up each name first next to the including file, then through `load_suite`."""
    from vla_gen_bench.episodes.lookup import find_suite

    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{shown}: include: expected a list of suite names, got {names!r}")
    scenarios: dict[str, Scenario] = {}
    for name in names:
        beside = path.parent / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
        found, called = (beside, f"{Path(shown).parent / beside.name}") if beside.is_file() else find_suite(name)
        for scenario in read_suite(found, called, including).scenarios.values():
            _add(scenarios, scenario, f"{shown}: include.{name}")
    return scenarios


def _add(scenarios: dict[str, Scenario], scenario: Scenario, where: str) -> None:
    there = scenarios.setdefault(scenario.id, scenario)
    if there.resolved() != scenario.resolved():
        raise UserError(f"{where}: scenario '{scenario.id}' is already defined differently")


def _dimensions(names: Any, shown: str) -> tuple[str, ...]:
    """Returns the dimensions a suite may use: the built-in ones and its own."""
    if not isinstance(names, list) or not all(isinstance(name, str) and _is_id(name) for name in names):
        raise UserError(f"{shown}: dimensions: expected a list of names of letters, digits and _, got {names!r}")
    return (*DIMENSIONS, *names)


def _is_id(text: str) -> bool:
    return text.isascii() and text.replace("_", "").isalnum()


def _rows(
    key: str, data: Any, dimensions: tuple[str, ...], known: dict[str, Scenario], where: str
) -> Iterable[Scenario]:
    """Returns the scenarios of one row: one, or one per level."""
    check_keys(data, SCENARIO_KEYS, where)
    if not _is_id(key) or len(key) > LONGEST_ID:
        rule = f"a scenario id is made of letters, digits and _, at most {LONGEST_ID} of them"
        raise UserError(f"{one_line(where)}: {rule}")
    allowed = (*dimensions, "mixed", None) if "combine" in data else dimensions
    if data.get("dimension") not in allowed:
        given = data.get("dimension")
        hint = suggest(str(given), dimensions) or "; one of your own is declared with `dimensions: [..]`"
        raise UserError(f"{where}.dimension: got {given!r}{hint}")
    if "combine" in data:
        wrong = {"shift", "reference", "levels"} & set(data)
        if wrong:
            raise UserError(f"{where}: give combine or {wrong.pop()}, not both")
        return [combined(key, data, known, where)]
    if "reference" not in data and is_sweep(data):
        return expand(key, data, where)
    if "levels" in data:
        raise UserError(f"{where}: give reference or levels, not both")
    return [_scenario(key, data, where)]


def _scenario(key: str, data: Any, where: str) -> Scenario:
    if "shift" in data and "reference" in data:
        raise UserError(f"{where}: give shift or reference, not both")
    fields = {"id": key, "label": data.get("label", key), "dimension": data["dimension"]}
    if "reference" in data:
        from vla_gen_bench.episodes.table1 import parse_reference

        return parse(Scenario, {**fields, "reference": parse_reference(data["reference"], f"{where}.reference")}, where)
    return parse(Scenario, {**fields, "shift": Shift.parse(data.get("shift"), key, f"{where}.shift")}, where)
