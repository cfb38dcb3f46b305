"""How a policy does without an input: does it use language, images, feedback? Flags rows not above their control."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_gen_bench.log.header import Header
from vla_gen_bench.report.compare import Comparison, once_per_comparison
from vla_gen_bench.report.contrasts import paired_contrast
from vla_gen_bench.report.scenarios import ScenarioInfo

INPUTS = {
    "language": "uses language",
    "image": "sees",
    "feedback": "needs feedback",
    "state": "uses the state",
}
EFFECTS = {"black_image": "image", "frozen_image": "feedback", "no_state": "state"}


@dataclass(frozen=True)
class Use:
    """How much better a policy does with an input than without it, over the same episodes.

    Attributes:
        difference, low, high: Of the success rates, with Newcombe's interval.
        pairs: Episodes.
        received: Whether the policy receives the input at all; if not, the difference is the noise of its sampling.
    """

    difference: float
    low: float
    high: float
    pairs: int
    received: bool = True

    @property
    def verdict(self) -> str:
        """Returns "yes" if the input helps, "no sign" if the interval contains 0, "worse" if it hurts."""
        if not self.received:
            return "not an input"
        return "yes" if self.low > 0 else "worse" if self.high < 0 else "no sign"


@dataclass(frozen=True)
class Control:
    """A row without an input, and its reference row with it; one `Use` per policy, None without pairs."""

    input: str
    info: ScenarioInfo
    reference: ScenarioInfo
    uses: tuple[Use | None, ...]


@once_per_comparison
def controls(comparison: Comparison) -> list[Control]:
    """Returns the rows that remove an input, each with the row that differs in nothing else."""
    infos = [row.info for row in comparison.rows]
    outcomes = comparison.outcomes
    bare = {_key(info.shift): place for place, info in enumerate(infos) if info.shift and not input_of(info)}
    found = []
    for place, info in enumerate(infos):
        taken = input_of(info)
        reference = bare.get(_key(_given_back(info.shift))) if taken and info.shift else None
        if reference is not None:
            uses = tuple(
                _use(outcomes[p, reference], outcomes[p, place], comparison.level, receives(run.header, str(taken)))
                for p, run in enumerate(comparison.runs)
            )
            found.append(Control(str(taken), info, infos[reference], uses))
    return found


def receives(header: Header, input: str) -> bool:
    """Returns whether the policy of a log receives an input; a privileged one acts on the simulator's state alone."""
    return not header.policy.privileged and (input != "state" or bool(header.sensors.get("state")))


def not_above_control(comparison: Comparison) -> dict[str, tuple[bool, ...]]:
    """Returns, by scenario, the policies for which the row is not clearly above the best control of the report.

    The best control is the row without an input (language, image or feedback), with IND as its reference, on which
    the policy does best: what it would get on any row without looking or listening. Rows that are controls themselves
    are skipped, and reports without controls give an empty result.
    """
    infos = [row.info for row in comparison.rows]
    blind = [it for it in controls(comparison) if it.reference.dimension == "ind" and it.input in ("language", "image")]
    if not blind:
        return {}
    outcomes = comparison.outcomes
    place = {info.id: at for at, info in enumerate(infos)}
    marks: dict[str, tuple[bool, ...]] = {}
    for info in infos:
        if not input_of(info):
            marks[info.id] = tuple(
                any(
                    _not_above(outcomes[p, place[info.id]], outcomes[p, place[it.info.id]], comparison.level)
                    for it in blind
                )
                for p in range(len(outcomes))
            )
    return {id: flags for id, flags in marks.items() if any(flags)}


def _not_above(ours: np.ndarray, control: np.ndarray, level: float) -> bool:
    use = _use(ours, control, level)
    return use is not None and use.low <= 0


def _use(given: np.ndarray, without: np.ndarray, level: float, received: bool = True) -> Use | None:
    shared = np.isfinite(given) & np.isfinite(without)
    if not shared.any():
        return None
    fields = paired_contrast(given[shared] == 1, without[shared] == 1, level)
    return Use(fields["difference"], fields["low"], fields["high"], fields["pairs"], received)


def input_of(info: ScenarioInfo) -> str | None:
    """Returns the input that a scenario removes, read from its shift; None if it removes none."""
    shift = info.shift or {}
    if "instruction" in shift:
        return "language"
    return next((EFFECTS[effect["name"]] for effect in shift.get("effects", ()) if effect["name"] in EFFECTS), None)


def _given_back(shift: Mapping[str, Any]) -> dict[str, Any]:
    rest = {axis: value for axis, value in shift.items() if axis != "instruction"}
    return {**rest, "effects": [effect for effect in rest.get("effects", ()) if effect["name"] not in EFFECTS]}


def _key(shift: Mapping[str, Any] | None) -> str:
    return repr(sorted((shift or {}).items(), key=lambda item: item[0]))
