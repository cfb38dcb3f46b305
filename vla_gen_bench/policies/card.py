"""`Card`: the contents of a policy's `policies/<name>/card.yaml`, readable without importing the policy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator

from vla_gen_bench.episodes.spec import Frozen, digest_of
from vla_gen_bench.errors import UserError, one_line, printable
from vla_gen_bench.policies.identity import card_files, checkpoint_digests, code_digests, option_files
from vla_gen_bench.policies.importing import look_in
from vla_gen_bench.protocol import EXTERNAL, Needs
from vla_gen_bench.strict_yaml import check_keys, parse, read_yaml

CARD_FILE = "card.yaml"
NAME_PATTERN = r"^[A-Za-z0-9_][\w.:+-]*$"
REFERENCE_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"


class DeclaredActions(Frozen):
    """What the card promises about the policy's `ActionSpec`; a loaded policy that differs is refused."""

    chunk: int | None = Field(None, ge=1)
    execute: int | None = Field(None, ge=1)


class DeclaredNeeds(Frozen):
    """The policy's inputs, see `protocol.Needs`; `image_size: 256` is short for [256, 256]."""

    state: bool = False
    cameras: tuple[str, ...] = Field((EXTERNAL,), min_length=1)
    image_size: tuple[int, int] | None = None
    history: int = Field(1, ge=1, le=64)
    chunk_frames: bool = False

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value

    def plain(self) -> Needs:
        """Returns the same as a `Needs`."""
        return Needs(**self.model_dump())


class Training(Frozen):
    """The policy's training, as declared by its author.

    Attributes:
        method: How it was trained in its last stage: "none" for scripted policies, sft, ppo, grpo, dpo, ...
        base: The model it started from.
        data: Every data set and simulated world it saw, one entry each, pretraining included.
        saw_unseen: True if the data included held-out assets, tables, phrasings or placements; None = unknown.
    """

    method: str = "none"
    base: str | None = None
    data: tuple[str, ...] = ()
    saw_unseen: bool | None = None


@dataclass(frozen=True)
class Source:
    """The origin of a card.

    Attributes:
        kind: "built-in" (this project's `policies/`), "plugin" (an entry point), "folder" (a card by path) or
            "reference" (`module:attr`).
        folder: The card's folder; None without a card file.
        distribution: "name version" of the plugin's package.
    """

    kind: Literal["built-in", "plugin", "folder", "reference"]
    folder: Path | None = None
    distribution: str | None = None

    def __str__(self) -> str:
        return self.distribution or self.kind


class Card(Frozen):
    """A policy's card. The keys of `card.yaml` are these attributes, no others.

    Attributes:
        name: The folder's name; what `--policy` takes.
        title, summary: One line each.
        factory: "module:attr"; called with `kwargs`, the `--policy-option`s and `checkpoint`, it returns the `Policy`.
        kwargs: Plain arguments of the factory.
        privileged: True if it reads the simulator's state; such runs are kept off the leaderboard.
        action_spec: Promises about the chunk, checked at loading.
        needs: Its inputs in addition to the external image.
        adapter: Converters around the policy, see `policies.converters`; each is {name: {argument: value}}.
        worlds: "all", or the worlds it can act in.
        checkpoint: File or folder, relative to the card; the factory gets it as an absolute `Path` named `checkpoint`.
        params: Number of parameters.
        training: Its training data and method.
        license: SPDX identifier of code and weights.
        links: Label -> URL.
    """

    later_fields: ClassVar[frozenset[str]] = frozenset({"needs", "adapter"})

    name: str = Field(pattern=NAME_PATTERN)
    title: str
    summary: str
    factory: str = Field(pattern=REFERENCE_PATTERN)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    privileged: bool = False
    action_spec: DeclaredActions = DeclaredActions()
    needs: DeclaredNeeds = DeclaredNeeds()
    adapter: tuple[str | dict[str, Any], ...] = ()
    worlds: Literal["all"] | tuple[str, ...] = "all"
    checkpoint: str | None = None
    params: int | None = Field(default=None, ge=0)
    training: Training = Training()
    license: str | None = None
    links: dict[str, str] = Field(default_factory=dict)
    _source: Source = PrivateAttr(default=Source("reference"))

    @field_validator("checkpoint")
    @classmethod
    def _stay_relative(cls, value: str | None) -> str | None:
        if value is not None and Path(value).is_absolute():
            raise ValueError("must be relative to the card's folder")
        return value

    @property
    def source(self) -> Source:
        return self._source

    @property
    def label(self) -> str:
        """The policy's name in messages: `policy 'acme' (acme_vla 0.3)`."""
        origin = f" ({self.source.distribution})" if self.source.distribution else ""
        return f"policy '{printable(self.name)}'{origin}"

    def with_source(self, source: Source) -> Card:
        """Returns this card with its `source` set."""
        copy = self.model_copy()
        copy._source = source
        return copy

    def checkpoint_path(self) -> Path | None:
        """Returns the checkpoint's absolute path, None without one; raises `UserError` if it is missing."""
        if self.checkpoint is None or self.source.folder is None:
            return None
        path = (self.source.folder / self.checkpoint).resolve()
        if not os.path.exists(path):  # unlike `Path.exists`, also answers for a name that is too long
            where, what = self.source.folder / CARD_FILE, one_line(path)
            raise UserError(f"{where}: checkpoint: no file or folder '{what}'; see the README.md beside the card")
        return path

    def check_world(self, world: str) -> None:
        """Raises `UserError` unless the policy can act in `world`."""
        if self.worlds != "all" and world not in self.worlds:
            raise UserError(f"{self.label} acts in {one_line(', '.join(self.worlds), 200)}, not in world '{world}'")

    def digest(self, own_checkpoint: bool = True) -> str:
        """Returns 16 hex digits over the card, the plugin's version, the policy's code and all checkpoint bytes.

        Independent of the folder's location. Reads the full checkpoint: call it once per run. The code of built-in
        policies belongs to this package and is not included; a log records its version and commit.

        Args:
            own_checkpoint: False if the user gives another checkpoint; the card's may then be missing.
        """
        path = self.checkpoint_path() if own_checkpoint else None
        files = {} if path is None else checkpoint_digests(path)
        own = {"card": self.canonical(), "from": self.source.distribution, "checkpoint": files}
        return digest_of({**own, **self._code()})

    def _code(self) -> dict[str, dict[str, str]]:
        """Returns the digests of the policy's source from `identity`; empty for a built-in policy."""
        folder = self.source.folder
        if self.source.kind == "built-in":
            return {}
        look_in(folder)
        if folder is None:
            return {"code": code_digests(self.factory)}
        checkpoint = folder / self.checkpoint if self.checkpoint else None
        files = option_files({key: value for key, value in self.kwargs.items() if _is_absolute(value)})
        return {
            "code": code_digests(self.factory) | card_files(folder, checkpoint),
            **({"files": files} if files else {}),
        }


def _is_absolute(value: Any) -> bool:
    """Whether an argument is a path that means the same in every working directory."""
    return isinstance(value, str) and value.startswith(("/", "~"))


def load_card(file: Path, kind: Literal["built-in", "folder"] = "folder") -> Card:
    """Reads and validates a `card.yaml`.

    Raises:
        UserError: The file is missing, not YAML, or has an unknown or bad key; the message is `file: key.path: what`.
    """
    data = read_yaml(file)
    for key, model in (("action_spec", DeclaredActions), ("needs", DeclaredNeeds), ("training", Training)):
        if isinstance(data, dict) and key in data:
            check_keys(data[key], model.model_fields, f"{file}: {key}")
    card = parse(Card, data, f"{file}:")
    if kind == "built-in" and card.name != file.parent.name:
        raise UserError(f"{file}: name: is '{card.name}'; expected '{file.parent.name}', the folder's name")
    return card.with_source(Source(kind, file.parent.resolve()))
