"""The reference's episode ids, decoded bug for bug, for the `table1` suite.

A reference environment numbers its initial states: it reads `id % num_episodes` in mixed radix, most significant digit
first, and each digit indexes a list. `table1_envs` holds digits and oddities as data. The catalogue's order maps list
positions to asset ids, so a world for `table1` needs lists of the reference's sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import Any

from vla_gen_bench.episodes.axes import TEMPLATES, reference_joint_offsets, unseen_joint_offsets
from vla_gen_bench.episodes.built_in_effects import teleport
from vla_gen_bench.episodes.catalog import Catalog, load_catalog
from vla_gen_bench.episodes.geometry import (
    PAIR_DISTANCE_M,
    ROUNDING_M,
    YAWS,
    Point,
    distance,
    grid,
    pairs,
    quaternion,
    ring,
)
from vla_gen_bench.episodes.spec import NO_OFFSET, Effect, EpisodeSpec, Placed
from vla_gen_bench.episodes.streams import POOLS_VERSION, Stream
from vla_gen_bench.episodes.table1_envs import ALLOWED, ENVS, PREFIX, TABLE, Env
from vla_gen_bench.errors import UserError, shown, suggest
from vla_gen_bench.strict_yaml import check_keys

OBJ_SETS = ("train", "test", "all")
LIST_SIZES = {"objects": 25, "receptacles": 17, "tables": 21, "textures": 17}
TELEPORT_STEP = 5
THIRD_DISTANCE_M = 0.15


def parse_reference(data: Any, where: str) -> dict[str, Any]:
    """Returns the checked `reference:` of a scenario, which must state every deviation of its environment.

    Raises:
        UserError: unknown environment, set or key, a missing deviation, or a value it cannot take.
    """
    check_keys(data, ("env", "obj_set", *ALLOWED), where)
    try:
        env = _env(str(data.get("env")))
    except UserError as error:
        raise UserError(f"{where}.env: {error}") from None
    if data.get("obj_set") not in OBJ_SETS:
        raise UserError(f"{where}.obj_set: got {shown(data.get('obj_set'))}{suggest('', OBJ_SETS)}")
    check_keys(data, ("env", "obj_set", *env.deviations), where)
    for key, value in env.deviations.items():
        if key not in data:
            raise UserError(f"{where}.{key}: not given; the reference has {key}: {value}")
        if not ALLOWED[key](data[key]):
            raise UserError(f"{where}.{key}: cannot be {shown(data[key])}; the reference has {value}")
    return dict(data)


def reference(env: str, obj_set: str) -> dict[str, Any]:
    """Returns the `reference` of an environment with upstream's value for every deviation."""
    return {"env": env, "obj_set": obj_set, **_env(env).deviations}


def num_episodes(row: Mapping[str, Any]) -> int:
    """Returns the number of initial states of a `reference`'s environment and set."""
    return prod(size for _, size, _ in _radix(row))


def draw_reference(row: Mapping[str, Any], world: str, seed: int, index: int) -> EpisodeSpec:
    """Returns episode `index` of `seed`. The reference draws ids at random; here they come from the hash stream."""
    stream = Stream(POOLS_VERSION, seed, index, "reference_episode")
    return decode(row, stream.below(num_episodes(row)), world, seed, index)


def ids(row: Mapping[str, Any], episode_id: int) -> dict[str, int]:
    """Returns the list positions an episode id encodes, by digit; `other` becomes the distractor's position."""
    left = episode_id % num_episodes(row)
    values, sizes, offsets = {}, {}, {}
    for name, size, offset in reversed(_radix(row)):
        left, local = divmod(left, size)
        values[name], sizes[name], offsets[name] = local + offset, size, offset
    if "other" in values:
        kind = _env(row["env"]).third
        # Upstream adds the offset before the modulo: 16 mod 9 = 7, so a test object can be its own distractor.
        twin = values[kind] if row.get("self_distractor") else values[kind] - offsets[kind]
        values["other"] = (twin + values["other"] + 1) % (sizes["other"] + 1) + offsets[kind]
    return values


def decode(row: Mapping[str, Any], episode_id: int, world: str, seed: int = 0, index: int = 0) -> EpisodeSpec:
    """Returns the episode that the reference environment of `row` would start for `episode_id`.

    Args:
        row: From `reference(env, obj_set)` or a scenario of `table1`.
        episode_id: Any integer; it is taken modulo the number of episodes.
        world: A world with lists of the reference's sizes.
        seed, index: Recorded in the spec.
    """
    catalog, env, at = _catalog(world), _env(row["env"]), ids(row, episode_id)
    target, receptacle = catalog.objects[at["object"]], catalog.receptacles[at["receptacle"]]
    turned = quaternion((*YAWS["train"], *YAWS["unseen"])[at["yaw"]])
    places = _places(env, row)[at["position"]]
    places = [(*place, z) for place, z in zip(places, row.get("spawn_heights", (0.95, 0.95)), strict=True)]
    target_placed = _at(target.id, places[0], turned)
    fields = _third(env, row, catalog, at, target_placed, places[-1])
    template = TEMPLATES[at["extra"] if env.extra == "phrasing" else 0]
    common = {
        "world": world,
        "seed": seed,
        "index": index,
        "instruction": template.format(object=target.name, receptacle=receptacle.name),
        "target": target_placed,
        "receptacle": _at(receptacle.id, places[1]),
        "table": catalog.tables[at["table"]].id,
        "joint_offset": _joint_offsets(row)[at["extra"]] if env.extra == "joints" else NO_OFFSET,
        "effects": _image_effects(env, catalog, at),
    }
    return EpisodeSpec(**{**common, **fields})


def _third(
    env: Env, row: Mapping[str, Any], catalog: Catalog, at: Mapping[str, int], target: Placed, place: tuple
) -> dict[str, Any]:
    """Returns the spec fields that depend on the third position."""
    if env.third == "receptacle":
        return {"distractor_receptacles": (_at(catalog.receptacles[at["other"]].id, place),)}
    there = _at(target.id, place, target.quaternion)
    if env.third == "goal" and row["obj_set"] != "train":
        params = teleport(TELEPORT_STEP, there, keep_velocity=row["keep_velocity"])
        return {"effects": (Effect(name="reposition", params=params),)}
    if env.third != "object":
        return {}
    if at["other"] == at["object"]:  # upstream then has one object, at the distractor's position
        return {"target": there}
    return {"distractor_objects": (_at(catalog.objects[at["other"]].id, place, target.quaternion),)}


def _image_effects(env: Env, catalog: Catalog, at: Mapping[str, int]) -> tuple[Effect, ...]:
    if env.extra not in ("texture", "noise"):
        return ()
    texture = catalog.textures[at["extra"]]
    alpha = round(env.alpha * texture.mix, 12)
    return (Effect(name=env.extra, params={"texture": texture.id, "alpha": alpha}),) if alpha else ()


def _at(id: str, place: tuple[float, float, float], turned: tuple = (1.0, 0.0, 0.0, 0.0)) -> Placed:
    return Placed(id=id, position=tuple(round(value, 12) for value in place), quaternion=turned)


def _env(name: str) -> Env:
    known = [PREFIX + env for env in ENVS]
    if name not in known:
        raise UserError(f"unknown reference environment {shown(name)}{suggest(str(name)[:80], known)}")
    return ENVS[name.removeprefix(PREFIX)]


def _radix(row: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Returns (name, size, offset) of every digit, most significant first, with the deviations of `row`."""
    env = _env(row["env"])
    digits = {digit.name: getattr(digit, row["obj_set"]) for digit in env.digits}
    if row.get("distance_test") == "exact":
        digits["position"] = (len(_places(env, row)), 0)
    if row.get("tables") == "train":
        digits["table"] = TABLE.train
    if row.get("zero_offset") is False and row["obj_set"] != "train":
        digits["extra"] = (digits["extra"][0] - 1, digits["extra"][1])
    return [(name, size, offset) for name, (size, offset) in digits.items()]


def _places(env: Env, row: Mapping[str, Any]) -> tuple[tuple[Point, ...], ...]:
    if not env.third:
        return pairs(grid()) + pairs(ring())
    return triples("receptacle" if env.third == "receptacle" else "object", row["distance_test"])


@lru_cache(maxsize=None)
def triples(far_from: str, distance_test: str) -> tuple[tuple[Point, Point, Point], ...]:
    """Returns (target, receptacle, third) with the third more than 0.15 m from the target or the receptacle.

    72 ordered pairs of grid points are nominally 0.15 m apart. The reference's float64 test accepts 20 of them, which
    gives 2,104 triples; "exact" accepts none and gives 1,896.
    """
    limit = THIRD_DISTANCE_M + (0.0 if distance_test == "float64" else ROUNDING_M)
    found = []
    for target, receptacle in pairs(grid()):
        near, far = (receptacle, target) if far_from == "object" else (target, receptacle)
        for third in grid():
            if distance(third, near) > PAIR_DISTANCE_M and distance(third, far) > limit:
                found.append((target, receptacle, third))
    return tuple(found)


def _joint_offsets(row: Mapping[str, Any]) -> tuple:
    return (NO_OFFSET, *(reference_joint_offsets() if row["zero_offset"] else unseen_joint_offsets()))


def _catalog(world: str) -> Catalog:
    catalog = load_catalog(world)
    for kind, size in LIST_SIZES.items():
        if len(getattr(catalog, kind)) != size:
            raise UserError(f"world '{world}' has {len(getattr(catalog, kind))} {kind}; table1 needs {size}")
    return catalog
