"""What a user and a server say about a connection, checked before it is used: both come from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from vla_gen_bench.episodes.spec import Frozen
from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.policies.card import DeclaredNeeds
from vla_gen_bench.policies.remote.links import VGB
from vla_gen_bench.protocol import CAMERAS, ActionSpec, Needs
from vla_gen_bench.strict_yaml import parse

LONGEST_WAIT_S = 1e6
WAITING = ("start_s", "timeout_s", "first_timeout_s", "limit_mib", "api_key")  # no answer depends on these
Number = float


class Settings(Frozen):
    """The arguments of `RemotePolicy`, which defines them."""

    url: str
    keys: Any = None
    execute: int | None = Field(None, ge=1)
    start_s: Number = Field(60.0, ge=0, le=LONGEST_WAIT_S)
    timeout_s: Number = Field(30.0, gt=0, le=LONGEST_WAIT_S)
    first_timeout_s: Number = Field(300.0, gt=0, le=LONGEST_WAIT_S)
    limit_mib: Number = Field(64.0, gt=0, le=4096)
    images: Any = None
    api_key: str | None = None


def settings_of(options: Mapping[str, Any]) -> Settings:
    """Returns the user's options, checked; raises `UserError` naming a wrong one."""
    return parse(Settings, dict(options), f"{options.get('url')}: options")


class _Spec(BaseModel):
    """The used part of an `ActionSpec` on the wire."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    chunk: int = Field(ge=1, le=100_000)
    execute: int | None = Field(None, ge=1)
    low: tuple[float, float, float, float, float, float, float]
    high: tuple[float, float, float, float, float, float, float]


class _Greeting(BaseModel):
    """What `vgb serve` says about its policy."""

    action_spec: _Spec
    needs: dict[str, Any] = {}


@dataclass(frozen=True)
class Own:
    """What `vgb serve` says about its policy: the inputs it needs and its actions."""

    needs: Needs
    spec: ActionSpec


def own_of(greeting: Mapping[str, Any], url: str) -> Own | None:
    """Returns what `vgb serve` says about its policy; None for other servers.

    Raises:
        UserError: The server claims to be `vgb serve` and says something else.
    """
    sent = greeting.get(VGB)
    if not sent:
        return None
    where = f"{url}: greeting.{VGB}"
    if not isinstance(sent, Mapping):
        raise UserError(f"{where}: is {type(sent).__name__}; expected a map, as 'vgb serve' sends it")
    known = {name: sent[name] for name in _Greeting.model_fields if name in sent}
    found = parse(_Greeting, known, where)
    needs = parse(DeclaredNeeds, found.needs, f"{where}.needs")
    for camera in needs.cameras:
        if camera not in CAMERAS:
            raise UserError(f"{where}.needs.cameras: unknown camera '{camera}'{suggest(camera, CAMERAS)}")
    return Own(needs.plain(), ActionSpec(**found.action_spec.model_dump()))
