"""Turns a run and its author's declarations into an entry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla_gen_bench.assets.world import FIRST_VERSION
from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.leaderboard.derive import Log, derived, suite_of
from vla_gen_bench.leaderboard.entry import Entry, Seen, parse_entry
from vla_gen_bench.leaderboard.validation import log_problems


def make_entry(
    run: Path, log: Log, declared: Mapping[str, Mapping[str, Any]], id: str | None, log_url: str | None
) -> Entry:
    """Returns the entry of a log folder.

    Args:
        run: The log folder of `vgb eval`, for messages.
        log: The log in that folder.
        declared: Section -> field -> value, for facts outside the log: "policy", "training", "environment", "trust".
        id: Name of the entry; None = built from policy, suite and world.
        log_url: Where the log can be fetched; None = the log will be copied to `logs/<id>`.

    Raises:
        UserError: The log cannot become an entry; one line per reason.
    """
    suite = suite_of(log.header.suite.id, log.header)
    reasons = list(log_problems(log, suite))
    if reasons:
        raise UserError("\n".join(f"{run}: {reason}" for reason in reasons))
    sections = derived(log, suite)
    for section, values in declared.items():
        sections[section] = {**sections.get(section, {}), **values}
    if sections["policy"].get("params") is None:
        sections["policy"]["params"] = log.header.policy.params
    name = id or default_id(sections["policy"]["name"], log)
    sections["trust"]["log"] = log_url or f"logs/{name}"
    return parse_entry({"id": name, **sections}, f"{run}:")


def default_id(policy: str, log: Log) -> str:
    """Returns `<policy>-<suite>-<world>` in lower case; worlds from version 2 on add `-v2`.

    Characters other than letters, digits and ._+- are replaced.
    """
    world = log.header.world
    version = "" if world.version == FIRST_VERSION else f"-v{world.version}"
    text = f"{policy}-{log.header.suite.id}-{world.name}{version}".lower()
    return re.sub(r"[^a-z0-9._+-]+", "-", text).strip("-._+")


def parse_data(items: Sequence[str]) -> list[dict[str, str | None]]:
    """Returns data sets for ["bridge", "demos=sha256:12ab"]: a name, or name=digest."""
    pairs = (item.partition("=") for item in items)
    return [{"name": name.strip(), "digest": digest or None} for name, _, digest in pairs]


def parse_seen(items: Sequence[str]) -> dict[str, list[str]]:
    """Returns {"objects": ["carrot", "apple"]} for ["objects=carrot,apple"].

    Raises:
        UserError: The kind is none of `Seen`'s fields.
    """
    seen: dict[str, list[str]] = {}
    for item in items:
        kind, equals, ids = item.partition("=")
        if not equals or kind not in Seen.model_fields:
            raise UserError(f"--seen {item}: expected KIND=ID,ID,...{suggest(kind, Seen.model_fields)}")
        separator = ";" if kind == "phrasings" else ","
        seen.setdefault(kind, []).extend(id.strip() for id in ids.split(separator) if id.strip())
    return seen
