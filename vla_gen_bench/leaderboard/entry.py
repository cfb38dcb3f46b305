"""A leaderboard entry: policy, suite, protocol, environment, training, results and evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, StrictBool, StrictInt

from vla_gen_bench.assets.world import FIRST_VERSION
from vla_gen_bench.data import read_json
from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.errors import UserError
from vla_gen_bench.strict_yaml import check_keys, parse

ID_PATTERN = r"^[a-z0-9][a-z0-9._+-]*$"
URL_PATTERN = r"^https?://[^\s\"'<>]+$"
LOG_PATTERN = rf"({URL_PATTERN})|(^logs/[a-z0-9._+-]+$)"
SOURCES = ("self", "reproduced", "paper")
WEIGHTS = ("shared", "finetuned", "none")


class PolicyInfo(Frozen):
    """The evaluated policy.

    Attributes:
        name, version, link, license, params, precision, lora_rank: As the submitter states them.
        adapter: The value of `--policy`: a name, `module:attr` or a folder.
        digest: Digest of the card and its checkpoint.
        checkpoint: Digest of a local checkpoint given on the command line.
        options: Arguments of the factory; they include the hub id of a checkpoint that was not local.
        action_spec_digest: Digest of the action spec that the policy reported.
        norm_stats_digest: SHA-256 of the statistics that un-normalise actions, if any.
    """

    name: str = Field(min_length=1)
    version: str | None = None
    link: str | None = Field(None, pattern=URL_PATTERN)
    license: str | None = None
    params: StrictInt | None = None
    precision: str | None = None
    lora_rank: StrictInt | None = None
    adapter: str | None = None
    digest: str | None = None
    checkpoint: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    action_spec_digest: str | None = None
    norm_stats_digest: str | None = None


class SuiteInfo(Frozen):
    """The evaluated episodes: `catalog` and `pack` are digests of the world's list of assets and of its files.

    Entries from before worlds had versions are of version 1.
    """

    id: str
    version: str | None = None
    digest: str | None = None
    world: str
    world_version: str = Field(FIRST_VERSION, pattern=r"^[1-9][0-9]*$")
    catalog: str | None = None
    pack: str | None = None


class Sensors(Frozen):
    """What `ProtocolInfo.sensors` may hold: `protocol.Needs` as a log records it."""

    state: StrictBool = False
    cameras: tuple[str, ...] = ()
    image_size: tuple[StrictInt, StrictInt] | None = None
    history: StrictInt = 1
    chunk_frames: StrictBool = False


class ProtocolInfo(Frozen):
    """How the policy was run and scored.

    Attributes:
        preset: "vgb" for the suites' own protocol, "table1" for the bug-compatible family, "paper" for the paper's.
        horizon: Control steps.
        decoding: As reported by the policy; None for a policy that does not sample.
        chunk, execute: Actions per call, and how many of them are executed (None: all).
        sensors: The policy's sensors, if they differ from the external image of the world's size alone: `state`,
            `cameras`, `image_size`, `history`, `chunk_frames`. Rows with other sensors are ranked apart.
        image_codec: What images pass through on the way to the policy, as the log records it: an adapter's JPEG, the
            codec of the connection to a server; "none" if nothing.
        manifest_digest: Digest of the keys and spec digests of all episodes.
    """

    preset: Literal["vgb", "table1", "paper"]
    metric: Literal["success_at_end", "success_once"] = "success_at_end"
    horizon: StrictInt
    control_hz: StrictInt
    episodes_per_seed: StrictInt
    seeds: tuple[StrictInt, ...] | None = None
    decoding: Any = None
    chunk: StrictInt | None = None
    execute: StrictInt | None = None
    sensors: dict[str, Any] = Field(default_factory=dict)
    image_codec: str = "none"
    manifest_digest: str | None = None


class EnvironmentInfo(Frozen):
    """Software and hardware of the last session that wrote the log."""

    harness: str | None = None
    git_commit: str | None = None
    git_dirty: StrictBool | None = None
    mani_skill: str | None = None
    sapien: str | None = None
    torch: str | None = None
    simulation: str | None = None
    rendering: str | None = None
    num_envs: StrictInt | None = None
    cpu: str | None = None
    gpu: str | None = None
    driver: str | None = None


class DataSet(Frozen):
    """A data set or simulated world that the policy was trained on, including pretraining."""

    name: str = Field(min_length=1)
    digest: str | None = None


class Seen(Frozen):
    """Ids of this benchmark's assets and phrasings that were in the training data; None = not stated."""

    objects: tuple[str, ...] | None = None
    receptacles: tuple[str, ...] | None = None
    tables: tuple[str, ...] | None = None
    phrasings: tuple[str, ...] | None = None


class TrainingInfo(Frozen):
    """The policy's training, as declared by the submitter.

    Attributes:
        algorithm: That of the last stage: sft, ppo, grpo, dpo, ...; "none" for a scripted policy.
        base: The base model.
        data: All data; empty only for a scripted policy.
        demonstrations, env_steps: Their numbers, if any were used.
        weights: "finetuned" on this task family, "shared" over several, "none".
        trained_on_suite: Whether episodes of the suite, or held-out parts of it, were used in training.
    """

    algorithm: str
    base: str | None = None
    data: tuple[DataSet, ...] = ()
    demonstrations: StrictInt | None = None
    env_steps: StrictInt | None = None
    weights: Literal["shared", "finetuned", "none"] | None = None
    seen: Seen = Seen()
    trained_on_suite: StrictBool | None = None


class Cell(Frozen):
    """Results of one scenario: counts, and the rate of the protocol's metric with its interval."""

    planned: StrictInt
    n: StrictInt
    errors: StrictInt
    success_at_end: StrictInt
    success_once: StrictInt | None = None
    rate: float
    low: float
    high: float


class Interval(Frozen):
    """Defines `low` and `high`."""

    method: Literal["wilson"] = "wilson"
    level: float = 0.95


class Trust(Frozen):
    """The evidence for the result.

    Attributes:
        source: "self" by the authors, "reproduced" by others, "paper" copied from a publication.
        log: `logs/<id>` below `leaderboard/`, or a URL; None for a paper.
        log_digest: SHA-256 over `run.json` and the rows.
        date: YYYY-MM-DD of the evaluation or publication.
        reference: URL of the publication.
    """

    source: Literal["self", "reproduced", "paper"]
    reproduced_by: str | None = None
    log: str | None = Field(None, pattern=LOG_PATTERN)
    log_digest: str | None = None
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\d$")
    reference: str | None = Field(None, pattern=URL_PATTERN)
    notes: str | None = None


class Entry(Frozen):
    """One policy on one suite in one world; the file is `entries/<id>.json`."""

    id: str = Field(pattern=ID_PATTERN)
    policy: PolicyInfo
    suite: SuiteInfo
    protocol: ProtocolInfo
    environment: EnvironmentInfo = EnvironmentInfo()
    training: TrainingInfo
    interval: Interval = Interval()
    results: dict[str, Cell]
    trust: Trust

    @property
    def measured(self) -> bool:
        """Whether this harness produced the entry, so that it needs a log."""
        return self.trust.source != "paper"


def parse_entry(data: Any, where: str) -> Entry:
    """Returns `data` as an entry; raises `UserError`, with a suggestion for an unknown key at any depth."""
    _check_depths(Entry, data, where)
    return parse(Entry, data, where)


def _check_depths(model: type[BaseModel], data: Any, where: str) -> None:
    check_keys(data, model.model_fields, where)
    joint = " " if where.endswith(":") else "."
    for name, field in model.model_fields.items():
        if name == "results" and isinstance(data.get(name), dict):
            for key, cell in data[name].items():
                check_keys(cell, Cell.model_fields, f"{where}{joint}{name}.{key}")
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and name in data:
            _check_depths(field.annotation, data[name], f"{where}{joint}{name}")


def is_url(log: str) -> bool:
    """Whether the log is behind a URL rather than below `leaderboard/`."""
    return "://" in log


def read_entry(path: Path) -> Entry:
    """Reads an entry file; raises `UserError` for invalid JSON or fields, or an id other than the file's name."""
    entry = parse_entry(read_json(path), f"{path}:")
    if entry.id != path.stem:
        raise UserError(f"{path}: id: is '{entry.id}'; expected '{path.stem}', the file's name")
    return entry


def entry_text(entry: Entry) -> str:
    """Returns the content of the entry's file."""
    data = entry.model_dump(mode="json")
    if not entry.protocol.sensors:
        del data["protocol"]["sensors"]  # written only if not the default, as in older entries
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
