"""All possible faults of an entry: each is one line that names the field and the expected value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from vla_gen_bench.data import mistake_text
from vla_gen_bench.episodes.axes import PHRASINGS
from vla_gen_bench.episodes.catalog import load_catalog
from vla_gen_bench.episodes.draw import draw
from vla_gen_bench.episodes.suite import Suite, load_suite, suite_from
from vla_gen_bench.errors import UserError
from vla_gen_bench.leaderboard.derive import Log, derived, rate, suite_of
from vla_gen_bench.leaderboard.entry import Entry, Sensors
from vla_gen_bench.log.rows import Key

PAPER_SUITE, PAPER_WORLD = "table1 (paper)", "rl4vla"
SHOWN_EPISODES = 3


def problems(entry: Entry, log: Log | None) -> Iterator[str]:
    """Yields the faults of an entry, none for a valid one.

    Args:
        entry: As read from its file.
        log: Its log; None for a paper's row or if the log is not available: then only the entry's own fields are
            checked.
    """
    yield from _counts(entry)
    yield from _sensors(entry)
    yield from _trust(entry)
    if not entry.measured:
        yield from _paper(entry)
        return
    yield from _training(entry)
    try:
        suite = suite_of(entry.suite.id, log and log.header)
        catalog = load_catalog(entry.suite.world)
    except UserError as error:
        yield f"suite: {error}"
        return
    yield from _same("suite.digest", entry.suite.digest, suite.digest(), "this checkout has")
    yield from _same("suite.catalog", entry.suite.catalog, catalog.digest(), "this checkout has")
    if set(entry.results) != set(suite.scenarios):
        yield f"results: expected exactly the suite's scenarios: {', '.join(suite.scenarios)}"
    if log is not None:
        yield from log_problems(log, suite)
        yield from _recomputed(entry, log, suite)


def log_problems(log: Log, suite: Suite) -> Iterator[str]:
    """Yields what keeps a log off the leaderboard: another suite, a privileged policy, episodes not as planned."""
    header = log.header
    if header.policy.privileged:
        yield f"log: policy '{header.policy.name}' is privileged: it reads the simulator's state"
    yield from _same("log: suite digest", header.suite.digest, suite.digest(), "this checkout has")
    yield from _same("log: horizon", header.horizon, suite.protocol.horizon, "the suite has")
    yield from _episodes(log, suite)


def _episodes(log: Log, suite: Suite) -> Iterator[str]:
    planned, rows = _planned(json.dumps(suite.definition()), log.header.world.name), log.rows
    wrong = {
        "errored": [key for key, row in rows.items() if not row.ok],
        "missing": [key for key in planned if key not in rows],
        "not of the suite": [key for key in rows if key not in planned],
        "there twice": list(dict.fromkeys(log.twice)),
        "drawn differently": [key for key, row in rows.items() if planned.get(key, row.spec_digest) != row.spec_digest],
    }
    for what, keys in wrong.items():
        if keys:
            names = ", ".join("/".join(map(str, key)) for key in keys[:SHOWN_EPISODES])
            more = ", ..." if len(keys) > SHOWN_EPISODES else ""
            yield f"log: {len(keys)} of {len(planned)} planned episodes {what}: {names}{more}"


@lru_cache(maxsize=8)
def _planned(definition: str, world: str) -> dict[Key, str]:
    """Returns the spec digest of every episode of a suite, sampled again once; 2 s for the 3,072 of `all`."""
    suite = suite_from(json.loads(definition), "suite")
    protocol = suite.protocol
    return {
        (scenario.id, seed, index): draw(scenario, world, seed, index).digest()
        for scenario in suite.scenarios.values()
        for seed in protocol.seeds
        for index in range(protocol.episodes_per_seed)
    }


def _recomputed(entry: Entry, log: Log, suite: Suite) -> Iterator[str]:
    """Compares every field that follows from the log, exactly."""
    stated = entry.model_dump(mode="json")
    for path, value in _leaves(derived(log, suite)):
        there: Any = stated
        for name in path:
            there = there.get(name) if isinstance(there, dict) else None
        yield from _same(".".join(path), there, value, "the log gives")


def _leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        whole = not isinstance(value, dict) or name in ("decoding", "options", "sensors")
        yield from [((*path, name), value)] if whole else _leaves(value, (*path, name))


def _same(what: str, stated: Any, expected: Any, who: str) -> Iterator[str]:
    if stated != expected:
        yield f"{what}: is {stated}, {who} {expected}"


def _counts(entry: Entry) -> Iterator[str]:
    """Checks that rates and intervals follow from k and n."""
    if not entry.results:
        yield "results: no scenario"
    for id, cell in entry.results.items():
        if cell.n < 1:
            yield f"results.{id}.n: is {cell.n}; expected at least one episode"
            continue
        k = getattr(cell, entry.protocol.metric)
        if k is None or not 0 <= k <= cell.n:
            yield f"results.{id}.{entry.protocol.metric}: is {k} of n = {cell.n} episodes"
            continue
        if cell.errors or cell.n != cell.planned:
            yield f"results.{id}: {cell.n} of {cell.planned} episodes finished, {cell.errors} errored; all must finish"
        for name, value in rate(k, cell.n).items():
            yield from _same(f"results.{id}.{name}", getattr(cell, name), value, f"{k}/{cell.n} gives")


def _sensors(entry: Entry) -> Iterator[str]:
    try:
        Sensors.model_validate_json(json.dumps(entry.protocol.sensors), strict=True)
    except ValidationError as error:
        yield f"protocol.sensors: {mistake_text(error)}"


def _trust(entry: Entry) -> Iterator[str]:
    trust = entry.trust
    if trust.source == "reproduced" and not trust.reproduced_by:
        yield "trust.reproduced_by: not given; say who reproduced it"
    if trust.source != "reproduced" and trust.reproduced_by:
        yield f"trust.reproduced_by: given, but trust.source is '{trust.source}'"
    if entry.measured and not (trust.log and trust.log_digest):
        yield "trust.log: a measured entry needs its log and log_digest"
    if trust.source == "paper" and not trust.reference:
        yield "trust.reference: not given; say which publication"


def _paper(entry: Entry) -> Iterator[str]:
    """A published number is never compared: its episodes are its own, and so are its suite, world and preset."""
    yield from _same("suite.id", entry.suite.id, PAPER_SUITE, "a paper's row has")
    yield from _same("suite.world", entry.suite.world, PAPER_WORLD, "a paper's row has")
    yield from _same("suite.digest", entry.suite.digest, None, "a paper's row has")
    yield from _same("protocol.preset", entry.protocol.preset, "paper", "a paper's row has")
    rows = load_suite("table1").scenarios
    if unknown := [id for id in entry.results if id not in rows]:
        yield f"results.{unknown[0]}: no such scenario; expected some of: {', '.join(rows)}"


def _training(entry: Entry) -> Iterator[str]:
    training = entry.training
    if training.algorithm != "none" and not training.data:
        yield "training.data: not declared; name every data set and simulated world the policy learned from"
    if training.algorithm != "none" and training.weights in (None, "none"):
        yield "training.weights: not declared; expected finetuned or shared"
    if training.trained_on_suite is None:
        yield "training.trained_on_suite: not declared; expected true or false"


def flags(entry: Entry) -> list[str]:
    """Returns why a row is flagged: training on held-out parts of the suites. Flagged rows are shown, never ranked."""
    found = ["trained on the suite"] if entry.training.trained_on_suite else []
    for kind, seen in entry.training.seen:
        if kind == "phrasings":
            unseen = set(PHRASINGS["unseen"])
        else:
            unseen = set(load_catalog(entry.suite.world).ids(kind, "unseen"))
        leaked = sorted(unseen & set(seen or ()))
        if leaked:
            found.append(f"saw {len(leaked)} of {len(unseen)} unseen {kind}: {', '.join(leaked[:SHOWN_EPISODES])}")
    return found
