"""Runs a study: every part once, in the order of the graph; a part that fails stops only those that need it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

import vla_gen_bench
from vla_gen_bench.eval.open_log import now
from vla_gen_bench.log.folder import EvalLog
from vla_gen_bench.study.engines import Ended, Engine
from vla_gen_bench.study.inputs import inputs_of
from vla_gen_bench.study.ledger import Ending, Record, Standing, complete, product, read_record, standing, write_record
from vla_gen_bench.study.parts import Part
from vla_gen_bench.train.recipe import save_recipe

ERRORED = 1  # exit status of `vgb eval`: it finished, some episodes have no outcome
OnEvent = Callable[[str, Standing], None]
"""Called with a part's name and where it stands now."""


@dataclass
class Run:
    """One session of a study.

    Attributes:
        parts: By name, each after those it needs.
        engine: What runs them.
        on_event: Called whenever a part starts or ends.
        found: Where each part stands, as far as it is known.
    """

    parts: Mapping[str, Part]
    engine: Engine
    on_event: OnEvent = lambda name, standing: None
    found: dict[str, Standing] = field(default_factory=dict)
    _checkpoints: dict[str, str] = field(default_factory=dict)
    _began: dict[str, float] = field(default_factory=dict)

    def all(self) -> dict[str, Standing]:
        """Runs every part that is not finished; returns where each stands.

        Raises:
            KeyboardInterrupt: Once the running parts have stopped and are recorded as interrupted.
        """
        sorter = TopologicalSorter({name: part.after for name, part in self.parts.items()})
        sorter.prepare()
        waiting: deque[str] = deque()
        try:
            while sorter.is_active():
                waiting.extend(sorter.get_ready())
                while waiting and self.engine.free():
                    name = waiting.popleft()
                    if not self._start(self.parts[name]):
                        sorter.done(name)
                        waiting.extend(sorter.get_ready())
                if self._began:
                    sorter.done(self._end(self.engine.wait()))
        except BaseException:
            self.engine.stop()
            for name in list(self._began):
                self._record(self.parts[name], "interrupted")
            raise
        return self.found

    def _start(self, part: Part) -> bool:
        """Starts a part, unless it is finished or cannot run."""
        record = read_record(part)
        found = standing(part, record, self.found, self._checkpoints)
        if found.state in ("done", "changed", "blocked"):
            if record and record.checkpoint and found.state == "done":
                self._checkpoints[part.name] = record.checkpoint
            self._tell(part.name, found)
            return False
        part.notes.mkdir(parents=True, exist_ok=True)
        if part.recipe:
            save_recipe(part.recipe, part.notes)
        before = (record.seconds, record.attempts) if record else (0.0, 0)
        write_record(
            part,
            Record(
                status="running", inputs=inputs_of(part, self._checkpoints), command=part.public_command, started=now(),
                seconds=before[0], attempts=before[1] + 1, version=vla_gen_bench.__version__,
            ),
        )  # fmt: skip
        self._began[part.name] = time.monotonic()
        self._tell(part.name, Standing("running"))
        self.engine.start(part)
        return True

    def _end(self, ended: Ended) -> str:
        part = self.parts[ended.name]
        if ended.code == 0 and not complete(part):
            self._record(part, "failed", f"ended well, and {part.out} holds no result; do all nodes share this disk?")
        elif ended.code == 0:
            self._record(part, "done")
        elif part.recipe is None and ended.code == ERRORED:
            self._record(part, "failed", _errored(part) or ended.error)
        else:
            self._record(part, "failed", ended.error)
        return ended.name

    def _record(self, part: Part, status: Ending, error: str = "") -> None:
        record = read_record(part)
        assert record is not None
        seconds = record.seconds + time.monotonic() - self._began.pop(part.name)
        made = product(part) if status == "done" else {}
        record = record.model_copy(update={"status": status, "error": error, "seconds": seconds, **made})
        write_record(part, record)
        if record.checkpoint:
            self._checkpoints[part.name] = record.checkpoint
        self._tell(part.name, Standing(status, error, seconds))

    def _tell(self, name: str, found: Standing) -> None:
        self.found[name] = found
        self.on_event(name, found)


def _errored(part: Part) -> str:
    counts = EvalLog(part.out).counts().values()
    errors = sum(one.errors for one in counts)
    return f"{errors} episodes errored; the same command runs them again, {part.out} names the causes" if errors else ""
