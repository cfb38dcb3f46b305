"""An evaluation's log folder while it runs: what it already holds, and when each file is written.

Nothing is moved or written before the policy has loaded, and `run.json` appears with the first row, so a run that ends
earlier leaves the folder as it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_gen_bench.assets.world import FIRST_VERSION
from vla_gen_bench.episodes.spec import digest_of
from vla_gen_bench.episodes.suite import Suite
from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.rounding import elsewhere
from vla_gen_bench.log.files import EPISODES_FILE, RUN_FILE, present, read_lines
from vla_gen_bench.log.header import FORMAT, read_raw_header
from vla_gen_bench.log.rows import Key, Row
from vla_gen_bench.log.writer import LogWriter
from vla_gen_bench.policies.registry import resolve
from vla_gen_bench.policies.remote.address import FACTORY
from vla_gen_bench.policies.remote.links import DIGEST, VGB
from vla_gen_bench.policies.remote.settings import WAITING

if TYPE_CHECKING:
    from vla_gen_bench.eval.reuse import Reused


class OpenLog:
    """A log folder open for an evaluation, by the one process that holds its lock.

    Args:
        folder: The log folder.
        identity: What must be equal for two sessions to share a log.
        suite: Stored in full in the header, where reports find it on any machine.
        sources: Names or files the suite was loaded from.
        params: The parameter count, if known.
        fresh: Move an existing log aside once the policy has loaded.

    Attributes:
        rows: Finished episodes that are kept.
        notes: Messages about them for the user.
        reused: Episodes of other logs, which `begin` takes over.

    Raises:
        UserError: The existing log is of another run, or damaged.
    """

    def __init__(
        self,
        folder: Path,
        identity: dict[str, Any],
        suite: Suite,
        sources: Sequence[str],
        params: int | None = None,
        fresh: bool = False,
    ) -> None:
        self.folder, self.writer = folder, LogWriter(folder)
        self._run = digest_of(identity)
        self._header = {
            "format": FORMAT,
            "run": self._run,
            **identity,
            "suite": {**identity["suite"], "sources": list(sources), "definition": suite.definition()},
            "policy": {**identity["policy"], "params": params},
            "started": now(),
            "sessions": [],
        }
        self._aside = fresh and any(present(folder / name) for name in (RUN_FILE, EPISODES_FILE))
        self._written = False
        self.rows: dict[Key, Row] = {}
        self.notes: list[str] = []
        self.reused: list[Reused] = []
        if not fresh and has_rows(folder):
            if not (folder / RUN_FILE).exists():
                raise UserError(f"{folder}: rows without their {RUN_FILE}; give --fresh to move them aside, or --out")
            self._resume(identity)

    def _resume(self, identity: dict[str, Any]) -> None:
        there = read_raw_header(self.folder)
        check_identity(self.folder, there, identity)
        self._run = there.get("run") or self._run  # `check_identity` accepts what the digest does not
        self.rows, self.notes = self.writer.restore(self._run)
        definition = self._header["suite"]["definition"]
        suite = {"definition": definition, **there["suite"]}
        self._header = {**there, "run": self._run, "suite": suite, "sessions": list(there.get("sessions", ()))}

    def processors(self, rounding: Mapping[str, str]) -> str:
        """Returns the processors of earlier episodes whose rounding is another one; "" if there are none."""
        own = [] if self._aside else self._header["sessions"]
        return elsewhere([*own, *(session for log in self.reused for session in log.sessions)], rounding)

    def begin(self, info: Mapping[str, Any], session: dict[str, Any]) -> None:
        """Called when the policy has loaded: moves an earlier log aside if requested, and takes over what is reused.

        Args:
            info: Header fields reported by the first worker.
            session: Added to the header's `sessions`.

        Raises:
            UserError: The log there is of another policy that was served at the same address, or one that is reused
                is of a policy that reported something else.
        """
        for log in self.reused:
            log.check(info)
        if not self._aside:
            check_server(self._header, info)
        if self._aside:
            self.writer.move_aside()
        facts = {name: value for name, value in info.items() if name != "rounding"}  # of the machine, not the run
        session = {**session, "rounding": info.get("rounding")}
        session |= {"reused": [log.to_json() for log in self.reused]} if self.reused else {}
        self._header |= {**facts, "sessions": [*self._header["sessions"], session]}
        for row, actions in (found for log in self.reused for found in log.rows.values()):
            self.append(row, actions)

    def append(self, row: dict[str, Any], actions: str | None) -> None:
        """Writes a row, and the header before the first row."""
        if not self._written:
            self._start()
        self.writer.append({**row, "run": self._run}, actions)

    def _start(self) -> None:
        self.writer.write_header(self._header)
        self.writer.unpack()
        if not self.rows:
            self.writer.clear()
        self._written = True


def has_rows(folder: Path) -> bool:
    """Whether a log has at least one complete line; without one, any run may start in its folder."""
    whole = (line for line in read_lines(folder / EPISODES_FILE) if line.endswith(b"\n"))
    return next(whole, None) is not None


def check_identity(folder: Path, there: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raises `UserError` if a log's header is of another run than `identity`."""
    if found := difference(there, identity):
        part = f" (--fresh --reuse {folder} keeps its equal episodes)" if found.startswith("suite ") else ""
        raise UserError(
            f"{folder}: the log there is of another run: {found}; give another folder with --out, or --fresh to move "
            f"it aside{part}"
        )


def difference(there: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """Returns the first difference of a log's header from `identity`, such as "horizon is 80, now 60", or ""."""
    world = {"version": FIRST_VERSION, **there["world"]}
    theirs = _flat({"sensors": {}, **there, "world": world})
    for name, ours in _flat({"sensors": {}, **identity}).items():
        if theirs.get(name) != ours and not (name == "policy options" and _only_waits(there, identity)):
            return f"{name} is {theirs.get(name)!r}, now {ours!r}"
    return ""


def _only_waits(there: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Whether the policy is a server, and its options differ only in those on which no answer depends."""
    logged, given = (side["policy"].get("options") or {} for side in (there, identity))
    differing = {name for name in {*logged, *given} if logged.get(name) != given.get(name)}
    if not differing <= {*WAITING}:
        return False
    try:
        return resolve(identity["policy"]["ref"]).factory == FACTORY
    except UserError:  # a policy given as an object
        return False


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {"suite digest": ...} for {"suite": {"digest": ...}}; a missing field counts as None."""
    rows: dict[str, Any] = {}
    for name, value in identity.items():
        if isinstance(value, dict) and name != "sensors":  # `sensors` is compared as one value: it omits default keys
            rows |= {f"{name} {key}": inner for key, inner in value.items()}
        else:
            rows[name] = value
    return rows


def check_specs(folder: Path, rows: Mapping[Key, Row], digests: Mapping[Key, str]) -> None:
    """Raises `UserError` if the log sampled an episode differently; `digests` are the current ones."""
    for key, digest in digests.items():
        if key in rows and rows[key].spec_digest != digest:
            raise UserError(
                f"{folder}: episode {rows[key].name} in the log was drawn differently; use --out or --fresh"
            )


def now() -> str:
    """Returns the current time in the format of `run.json`: UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def check_server(header: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    """Raises `UserError` if the server describes itself differently than the log's server did."""
    if found := server_difference(header, info):
        raise UserError(
            f"the log there, with the server at {info['connection']['url']}, is of another {found}; "
            "give another folder with --out, or --fresh to move it aside"
        )


def server_difference(header: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    """Returns how a server describes itself differently than the log's server did, "" if it does not."""
    before, now_ = (given.get("connection", {}).get("server") for given in (header, info))
    if before is None or now_ is None:
        return ""
    logged, served = _digest_of(before), _digest_of(now_)
    if logged is None:
        now_ = _without_digest(now_)  # the log began before `vgb serve` reported one
    if before == now_:
        return ""
    if logged and served and logged != served:
        return f"policy: its card, code, checkpoint or options have changed (digest {logged}, now {served})"
    names = sorted(name for name in {*before, *now_} if before.get(name) != now_.get(name))
    return f"server: its {', '.join(names)} differ"


def _digest_of(server: Mapping[str, Any]) -> str | None:
    """Returns the digest of the served policy from a server's description; None for a server that reports none."""
    own = server.get(VGB)
    return own.get(DIGEST) if isinstance(own, dict) else None


def _without_digest(server: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a server's description without that digest, which vla-eval's greeting holds at two places."""
    found = {name: _without_digest(value) if isinstance(value, dict) else value for name, value in server.items()}
    if isinstance(found.get(VGB), dict):
        found[VGB] = {name: value for name, value in found[VGB].items() if name != DIGEST}
    return found
