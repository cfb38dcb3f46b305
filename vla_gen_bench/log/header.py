"""`run.json`, typed: what ran, where, with which versions. Fields of other versions are kept and ignored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from vla_gen_bench.assets.world import FIRST_VERSION, world_label
from vla_gen_bench.data import mistake_text, read_json
from vla_gen_bench.errors import UserError, one_line
from vla_gen_bench.log.files import RUN_FILE
from vla_gen_bench.log.rows import Key

FORMAT = 1  # of the files of a log; one of a later format is not guessed at


class _Part(BaseModel):
    """Immutable; unknown fields are not an error."""

    model_config = ConfigDict(frozen=True, extra="allow")


class SuiteInfo(_Part):
    """The suite: `sources` are the names or files it was loaded from, `definition` is its full content."""

    id: str
    digest: str
    version: str | None = None
    sources: tuple[str, ...] = ()
    definition: dict[str, Any] | None = None


class PolicyInfo(_Part):
    """The policy: `ref` is the value of `--policy`, `options` the factory's arguments, `params` the parameter count."""

    name: str
    ref: str | None = None
    digest: str | None = None
    options: dict[str, Any] = {}
    checkpoint: str | None = None
    privileged: bool = False
    params: int | None = None


class WorldInfo(_Part):
    """The world and its version, with digests of its catalogue and files."""

    name: str
    version: str = FIRST_VERSION
    catalog: str | None = None
    pack: str | None = None

    @property
    def label(self) -> str:
        """Name and version: "builtin v2"."""
        return world_label(self.name, self.version)


class BackendInfo(_Part):
    """Where physics and rendering ran."""

    simulation: str | None = None
    rendering: str | None = None
    shader: str | None = None


class Manifest(_Part):
    """What a complete log holds: `episodes` counts those of all `scenarios` together.

    Attributes:
        seeds: In the order requested; earlier versions did not write it.
        digest: Over [scenario, seed, index, spec digest] of all episodes, by scenario, then seed.
    """

    scenarios: tuple[str, ...] = ()
    episodes: int = 0
    seeds: tuple[int, ...] = ()
    digest: str | None = None


@dataclass(frozen=True)
class Planned:
    """The episodes that the sessions of a log planned, all together.

    Attributes:
        keyed: (scenario, seed) -> number of episodes; their indices count from 0.
        counted: Scenario -> number of episodes, by sessions of older versions, which did not write their seeds.
    """

    keyed: Mapping[tuple[str, int], int] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def by(cls, manifest: Manifest) -> Planned:
        """Returns what one session planned: the same indices of each scenario and seed."""
        each = manifest.episodes // max(1, len(manifest.scenarios))
        if not manifest.seeds:
            return cls(counted=dict.fromkeys(manifest.scenarios, each))
        return cls(
            {(name, seed): each // len(manifest.seeds) for name in manifest.scenarios for seed in manifest.seeds}
        )

    def __or__(self, other: Planned) -> Planned:
        return Planned(_largest(self.keyed, other.keyed), _largest(self.counted, other.counted))

    @property
    def scenarios(self) -> set[str]:
        """The ids of all scenarios with planned episodes."""
        return {scenario for scenario, _ in self.keyed} | set(self.counted)

    def renamed(self, name: Callable[[str], str]) -> Planned:
        """Returns the same numbers for scenarios of other ids."""
        keyed = {(name(scenario), seed): count for (scenario, seed), count in self.keyed.items()}
        return Planned(keyed, {name(scenario): count for scenario, count in self.counted.items()})

    def missing(self, done: Iterable[Key]) -> Counter[str]:
        """Returns the number of planned episodes that are not among `done`, by scenario; without complete scenarios."""
        there: Counter[str] = Counter()
        by_seed: Counter[tuple[str, int]] = Counter()
        for scenario, seed, index in done:
            there[scenario] += 1
            by_seed[scenario, seed] += index < self.keyed.get((scenario, seed), 0)
        missing: Counter[str] = Counter()
        for (scenario, seed), count in self.keyed.items():
            missing[scenario] += count - by_seed[scenario, seed]
        return +(missing | (Counter(self.counted) - there))


def _largest(first: Mapping[Any, int], second: Mapping[Any, int]) -> dict[Any, int]:
    return {key: max(first.get(key, 0), second.get(key, 0)) for key in (*first, *second)}


class Session(_Part):
    """One session that wrote rows; `reused` says which of them it took over from other logs."""

    started: str = ""
    command: tuple[str, ...] = ()
    versions: dict[str, str | None] = {}
    git: dict[str, Any] | None = None
    hardware: dict[str, Any] = {}
    shard: str | None = None
    num_envs: int = 1  # missing in logs written before batches existed
    manifest: Manifest | None = None
    reused: tuple[dict[str, Any], ...] = ()
    rounding: dict[str, str] | None = None


class Header(_Part):
    """The content of `run.json`.

    Attributes:
        run: Digest of what all rows share; each row carries it. None in logs of older versions.
        rendered: Whether observations were rendered.
        sensors: The policy's sensors, if they are more than the world's image.
        action_spec, decoding, backend: As reported by the first worker; None until then.
        connection: Of a policy behind a server: address, codec, key map, converters; None for one in the process.
        adapter: The converters of a policy in the process.
    """

    suite: SuiteInfo
    policy: PolicyInfo
    world: WorldInfo
    format: int = Field(default=FORMAT, ge=1, le=FORMAT)
    run: str | None = None
    horizon: int | None = Field(default=None, ge=1)
    rendered: bool = True
    sensors: dict[str, Any] = {}
    simulator: dict[str, str | None] = {}
    backend: BackendInfo | None = None
    action_spec: dict[str, Any] | None = None
    decoding: Any = None
    connection: dict[str, Any] | None = None
    adapter: tuple[Any, ...] = ()
    warnings: tuple[Any, ...] = ()
    started: str | None = None
    sessions: tuple[Session, ...] = ()
    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def raw(self) -> dict[str, Any]:
        """The JSON object as it is stored in the file."""
        return self._raw

    @property
    def last(self) -> Session:
        """The session that wrote last; an empty one if there is none."""
        return self.sessions[-1] if self.sessions else Session()

    @property
    def image_codec(self) -> str:
        """What images pass through on the way to the policy, such as "jpeg q75 + json-numpy"; "none" if nothing.

        First an adapter's compression, then the codec of the connection to a server.
        """
        adapter = self.adapter if self.connection is None else self.connection.get("adapter")
        entries = [entry for entry in adapter or () if isinstance(entry, dict)]
        jpegs = [entry["jpeg"] for entry in entries if isinstance(entry.get("jpeg"), dict)]
        applied = [f"jpeg q{jpeg.get('quality', '?')}" for jpeg in jpegs]
        if self.connection is not None:
            applied.append(str(self.connection.get("codec", "unknown")))
        return one_line(" + ".join(applied) or "none")

    def planned(self) -> Planned:
        """Returns the episodes that the sessions planned, all together."""
        return reduce(or_, (Planned.by(session.manifest or Manifest()) for session in self.sessions), Planned())


def model_size(params: int | None) -> str:
    """Returns "0.85 M parameters" for 853,856; "" if the number is unknown."""
    if not params:
        return ""
    number = f"{params / 1e9:.1f} B" if params >= 1e9 else f"{params / 1e6:.2f} M" if params >= 1e4 else str(params)
    return f"{number} parameters"


def read_header(folder: Path) -> Header:
    """Reads `run.json`; raises `UserError` if it is missing, is not JSON, or lacks a required field."""
    data = read_raw_header(folder)
    try:
        header = Header.model_validate(data)
    except ValidationError as error:
        where = one_line(folder / RUN_FILE)
        raise UserError(f"{where}: {_mistake(error)}; not a log of this version of 'vgb eval'") from None
    header._raw.update(data)
    return header


def read_raw_header(folder: Path) -> dict[str, Any]:
    """Returns the raw JSON object of `run.json`; raises `UserError` if there is none."""
    path = folder / RUN_FILE
    if not path.exists():
        raise UserError(f"{one_line(folder)}: no evaluation log there ({RUN_FILE} not found)")
    return read_json(path, dict[str, Any])


def _mistake(error: ValidationError) -> str:
    mistake = error.errors()[0]
    place = [one_line(part) for part in mistake["loc"]]
    if mistake["type"] != "missing":
        return mistake_text(error)
    needed = {"suite": "digest", "world": "name", "policy": "name"}
    return f"no field '{'.'.join([*place, needed[place[0]]] if len(place) == 1 else place)}'"
