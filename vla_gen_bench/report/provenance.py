"""What a reader must know about the runs of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vla_gen_bench.errors import printable
from vla_gen_bench.log.header import model_size
from vla_gen_bench.report.load import Run


def remarks(runs: Sequence[Run]) -> list[str]:
    """Returns sentences on suite and world, privileged policies, and unintended differences between runs."""
    header = runs[0].header
    suite, world = header.suite, header.world
    digests = f"suite {suite.id} {suite.version or ''} ({suite.digest}), world {world.label}"
    source = f"Source: {digests} ({world.catalog}); runs: {', '.join(str(run.folder) for run in runs)}."
    notes = [printable(source)]
    sizes = [f"{run.label} {model_size(run.header.policy.params)}" for run in runs if run.header.policy.params]
    if sizes:
        notes.append(f"Model sizes: {', '.join(dict.fromkeys(sizes))}.")
    privileged = dict.fromkeys(run.label for run in runs if run.header.policy.privileged)
    if privileged:
        notes.append(f"Privileged, sees the simulator's state and is never marked best: {', '.join(privileged)}.")
    for what, values in (("simulator", _simulators(runs)), ("backend", _backends(runs))):
        if len(set(values)) > 1:
            sides = "; ".join(f"{run.label}: {value}" for run, value in zip(runs, values))
            notes.append(printable(f"The runs differ in {what}, which may move every trajectory: {sides}."))
    return notes


def _simulators(runs: Sequence[Run]) -> list[str]:
    return [_words(run.header.simulator) for run in runs]


def _backends(runs: Sequence[Run]) -> list[str]:
    return [str(run.header.backend and run.header.backend.simulation) for run in runs]


def _words(parts: dict[str, Any]) -> str:
    return " ".join(f"{name} {value}" for name, value in sorted(parts.items()))
