"""The axes along which an episode may differ from training, their named pools, and the severities a suite may set."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from typing import NamedTuple

JointOffset = tuple[float, float, float, float, float, float]


class Number(NamedTuple):
    """A severity: its default and the closed range a suite may set; `whole` allows integers only."""

    default: float
    low: float
    high: float
    whole: bool = False
    unit: str = ""


class Levels(NamedTuple):
    """The severities at levels 1 to 5.

    Attributes:
        values: Severity name -> its value at each of the five levels.
        reason: Why these values were chosen: a source or a measurement.
    """

    values: Mapping[str, tuple[float, ...]]
    reason: str

    def at(self, level: int) -> dict[str, float]:
        """Returns the severities of `level`, 1 to 5."""
        return {name: values[level - 1] for name, values in self.values.items()}


LEVELS = (1, 2, 3, 4, 5)


DISTRACTOR = {"min_distance": Number(0.15, 0.05, 0.20)}

CLUTTER = {"count": Number(2, 1, 4, whole=True, unit="objects"), **DISTRACTOR}
GRADE = {"grade": Number(3, 1, 5, whole=True)}
DISPLACEMENT = {"displacement": Number(0.03, 0.005, 0.10, unit="m")}

FOUNDING: dict[str, dict[str, dict[str, Number]]] = {
    "object": {"train": {}, "unseen": {}},
    "receptacle": {"train": {}, "unseen": {}},
    "distractor_object": {"none": {}, "train": DISTRACTOR, "unseen": DISTRACTOR},
    "distractor_receptacle": {"none": {}, "unseen": DISTRACTOR, "train": DISTRACTOR},
    "table": {"train": {}, "unseen": {}},
    "phrasing": {
        "train": {},
        "unseen": {},
        "paraphrase": GRADE,
        "polite": GRADE,
        "typos": {"count": Number(2, 1, 10, whole=True, unit="typing errors")},
        "spanish": {},
    },
    "layout": {"grid": {}, "ring": DISPLACEMENT, "outside": DISPLACEMENT},
    "yaw": {"train": {}, "unseen": {}},
    "joint_offset": {"none": {}, "unseen": {"scale": Number(1.0, 0.0, 2.0, unit="x 0.15 rad")}},
}
LATER: dict[str, dict[str, dict[str, Number]]] = {
    "clutter": {"none": {}, "train": CLUTTER, "unseen": CLUTTER},
    "instruction": {"own": {}, "none": {}, "other_object": {}, "other_episode": {}},
}
AXES: dict[str, dict[str, dict[str, Number]]] = {**FOUNDING, **LATER}
"""Axis -> pool -> severities. The first pool of each axis is the in-distribution one."""

FOUNDING_AXES = tuple(FOUNDING)
"""Those every suite's digest names. An axis added later counts only where a shift sets it, so no digest moves."""

EXPLICIT = "explicit"
"""The pool of a choice that lists what it draws from."""

LISTS = {
    "object": "objects",
    "receptacle": "receptacles",
    "distractor_object": "objects",
    "distractor_receptacle": "receptacles",
    "table": "tables",
    "phrasing": None,
    "yaw": None,
}
"""Axes whose pool may be a list: of ids of that kind in the catalogue, of templates (phrasing) or of degrees (yaw)."""

_CLUTTER_LEVELS = Levels(
    {"count": (1, 2, 3, 4, 4), "min_distance": (0.15, 0.15, 0.15, 0.15, 0.08)},
    "one to four more objects; at level 5 the four may lie 8 cm from the target, a hand's width of the gripper",
)
_GRADES = {"grade": LEVELS}
POOL_LEVELS: dict[tuple[str, str], Levels] = {
    ("layout", "outside"): Levels(
        {"displacement": (0.01, 0.02, 0.03, 0.045, 0.06)},
        "0.03 is the paper's unseen positions; 0.06 doubles it, and the expert still reaches everything",
    ),
    ("joint_offset", "unseen"): Levels(
        {"scale": (0.2, 0.4, 0.7, 1.0, 1.3)},
        "1.0 is the paper's unseen robot pose, up to 0.15 rad a joint and 0.6 at the wrist; 1.3 is a third beyond it",
    ),
    ("clutter", "train"): _CLUTTER_LEVELS,
    ("clutter", "unseen"): _CLUTTER_LEVELS,
    ("phrasing", "paraphrase"): Levels(
        _GRADES, "another verb; two steps; another order; a wish or question; embedded in unrelated talk"
    ),
    ("phrasing", "polite"): Levels(_GRADES, "from one word to three clauses around the unchanged instruction"),
    ("phrasing", "typos"): Levels({"count": (1, 2, 3, 4, 6)}, "people leave 1 to 2 typing errors in 20 letters"),
}


# Fact sheet 3.3. The reference has four more templates that no episode id reaches. Capitals, full stops and the
# typographic apostrophe of number 13 are copied from the source.
TEMPLATES = (
    "put {object} on {receptacle}",
    "Place the {object} on the {receptacle}",
    "set {object} on {receptacle}",
    "move the {object} to the {receptacle}",
    "Take the {object} and put it on the {receptacle}",
    "pick up {object} and set it down on {receptacle}",
    "please put the {object} on the {receptacle}",
    "Put {object} onto {receptacle}.",
    "place the {object} onto the {receptacle} surface",
    "Make sure {object} is on {receptacle}.",
    "on the {receptacle}, put the {object}",
    "put the {object} where the {receptacle} is",
    "Move the {object} from the table to the {receptacle}",
    "Move {object} so it\u2019s on {receptacle}.",
    "Can you put {object} on {receptacle}?",
    "{object} on the {receptacle}, please.",
    "the {object} should be placed on the {receptacle}.",
)

PHRASINGS = {"train": TEMPLATES[:1], "unseen": TEMPLATES[1:]}

PRETRAIN_PHRASINGS = {
    "train": (
        TEMPLATES[0],
        "bring the {object} to the {receptacle}",
        "carry {object} over to the {receptacle}",
        "lay the {object} down on {receptacle}",
        "the {object} goes on the {receptacle}",
        "deliver {object} to {receptacle}",
        "grab the {object}, then drop it on the {receptacle}",
        "on the {receptacle}: the {object}",
        "i would like {object} on the {receptacle}",
        "transfer the {object} onto the {receptacle}",
    ),
    "unseen": (
        "get the {object} and leave it on {receptacle}",
        "{receptacle} is where {object} belongs",
        "shift {object} onto the {receptacle}",
        "would you lift the {object} onto {receptacle}?",
    ),
}
"""Of world `pretrain`, none of them an unseen one of the benchmark; its "unseen" ones are for development."""


def phrasings(world: str, pool: str) -> tuple[str, ...]:
    """Returns the instruction templates in `pool` ("train" or "unseen") of a world."""
    return (PRETRAIN_PHRASINGS if world == "pretrain" else PHRASINGS)[pool]


JOINT_STEPS = (-0.15, -0.08, 0.0, 0.08, 0.15)
WRIST_ROTATE_STEPS = (-0.6, -0.3, 0.0, 0.3, 0.6)
LOW_REACH_RAD = 0.25


@lru_cache(maxsize=None)
def reference_joint_offsets() -> tuple[JointOffset, ...]:
    """Returns the reference's 14,375 offsets in radians, waist to wrist_rotate, including the all-zero one.

    It excludes offsets of 0.15 rad in the same direction at both shoulder and elbow: 5 * (5*5 - 2) * 5 * 5 * 5.
    """
    steps = product(*[JOINT_STEPS] * 5, WRIST_ROTATE_STEPS)
    return tuple(offset for offset in steps if abs(offset[1] + offset[2]) <= LOW_REACH_RAD)


@lru_cache(maxsize=None)
def unseen_joint_offsets() -> tuple[JointOffset, ...]:
    """Returns the 14,374 offsets that move at least one joint; the zero offset is the training pose."""
    return tuple(offset for offset in reference_joint_offsets() if any(offset))
