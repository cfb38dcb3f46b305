"""The reference's environments as data: the digits of their episode ids, and their deviations from our default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

PREFIX = "PutOnPlateInScene25"
"""Of every environment id; `ENVS` leaves it out."""


class Digit(NamedTuple):
    """A digit of an episode id: its size per `obj_set` and the offset added to its value."""

    name: str
    train: tuple[int, int]
    test: tuple[int, int]
    all: tuple[int, int]


def _same(name: str, size: int) -> Digit:
    return Digit(name, (size, 0), (size, 0), (size, 0))


def _split(name: str, train: int, unseen: int) -> Digit:
    return Digit(name, (train, 0), (unseen, train), (train + unseen, 0))


OBJECT = _same("object", 16)
PLATE = _same("receptacle", 1)
TABLE = _same("table", 16)
PAIR = _same("position", 784)
TRIPLE = _same("position", 2104)
YAW = _same("yaw", 4)
ANY_OBJECT = _split("object", 16, 9)
ANY_RECEPTACLE = _split("receptacle", 1, 16)
ANY_TABLE = _split("table", 16, 5)
EXTRA = _split("extra", 1, 16)
JOINTS = _split("extra", 1, 14375)
OTHER_OBJECT = Digit("other", (15, 0), (8, 0), (24, 0))
OTHER_RECEPTACLE = Digit("other", (16, 0), (15, 0), (16, 0))


class Env(NamedTuple):
    """One reference environment.

    Attributes:
        digits: Most significant first.
        extra: What the "extra" digit indexes: "" | "texture" | "noise" | "phrasing" | "joints".
        alpha: Strength of an overlay effect.
        third: What occupies the third position, from the start or later: "" | "object" | "receptacle" | "goal".
        deviations: Settings in which the reference deviates from our default, with its values.
    """

    digits: tuple[Digit, ...]
    extra: str = ""
    alpha: float = 0.0
    third: str = ""
    deviations: Mapping[str, Any] = {}


def _overlay(kind: str, alpha: float) -> Env:
    return Env((OBJECT, EXTRA, PLATE, TABLE, PAIR, YAW), extra=kind, alpha=alpha)


ENVS: dict[str, Env] = {
    "Main-v3": Env((ANY_OBJECT, PLATE, ANY_TABLE, PAIR, YAW)),
    "VisionImage-v1": Env((OBJECT, PLATE, ANY_TABLE, PAIR, YAW)),
    "VisionTexture03-v1": _overlay("texture", 0.3),
    "VisionTexture05-v1": _overlay("texture", 0.5),
    "VisionWhole03-v1": _overlay("noise", 0.3),
    "VisionWhole05-v1": _overlay("noise", 0.5),
    "Carrot-v1": Env((ANY_OBJECT, PLATE, TABLE, PAIR, YAW)),
    "Plate-v1": Env((OBJECT, ANY_RECEPTACLE, TABLE, PAIR, YAW)),
    "Instruct-v1": Env((OBJECT, EXTRA, PLATE, TABLE, PAIR, YAW), extra="phrasing"),
    "MultiCarrot-v1": Env(
        (ANY_OBJECT, OTHER_OBJECT, PLATE, TABLE, TRIPLE, YAW),
        third="object",
        deviations={"spawn_heights": [0.95, 0.92, 1.0], "distance_test": "float64", "self_distractor": True},
    ),
    "MultiPlate-v1": Env(
        (OBJECT, ANY_RECEPTACLE, OTHER_RECEPTACLE, _same("table", 21), TRIPLE, YAW),
        third="receptacle",
        deviations={"spawn_heights": [1.0, 0.92, 0.96], "distance_test": "float64", "tables": "all"},
    ),
    "Position-v1": Env(
        (OBJECT, PLATE, TABLE, _split("position", 784, 628), _split("yaw", 4, 4)),
    ),
    "EEPose-v1": Env(
        (OBJECT, JOINTS, PLATE, TABLE, PAIR, YAW),
        extra="joints",
        deviations={"zero_offset": True},
    ),
    "PositionChangeTo-v1": Env(
        (OBJECT, PLATE, TABLE, TRIPLE, YAW),
        third="goal",
        deviations={"spawn_heights": [0.95, 0.92, 1.0], "distance_test": "float64", "keep_velocity": True},
    ),
}


def _three_heights(value: Any) -> bool:
    """Metres, world frame: above the table top at 0.870."""
    return isinstance(value, list) and len(value) == 3 and all(isinstance(z, float) and 0.87 < z < 1.5 for z in value)


# Allowed values of each deviation. A value other than the reference's fixes the oddity and changes the ids.
ALLOWED: dict[str, Callable[[Any], bool]] = {
    "spawn_heights": _three_heights,
    "distance_test": lambda value: value in ("float64", "exact"),
    "self_distractor": lambda value: isinstance(value, bool),
    "tables": lambda value: value in ("all", "train"),
    "zero_offset": lambda value: isinstance(value, bool),
    "keep_velocity": lambda value: isinstance(value, bool),
}
