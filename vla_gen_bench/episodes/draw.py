"""Draws one concrete `EpisodeSpec` from scenario, world, seed and index. No simulator, no shared state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count
from typing import Any

from vla_gen_bench.bounds import EVALUATION_SEED
from vla_gen_bench.episodes import geometry, wording
from vla_gen_bench.episodes.axes import AXES, DISPLACEMENT, phrasings, unseen_joint_offsets
from vla_gen_bench.episodes.built_in_effects import placed
from vla_gen_bench.episodes.catalog import Body, Catalog, load_catalog
from vla_gen_bench.episodes.effects import find_effect
from vla_gen_bench.episodes.geometry import Footprint, Point
from vla_gen_bench.episodes.shift import Choice, Scenario, Shift
from vla_gen_bench.episodes.spec import NO_OFFSET, Effect, EpisodeSpec, Placed
from vla_gen_bench.episodes.streams import POOLS_VERSION, Stream
from vla_gen_bench.errors import UserError

FIRST_TRAINING_SEED = EVALUATION_SEED.high + 1
DISTRACTOR_MARGIN_STEPS = 4  # a distractor may lie up to 6 cm outside the training square where that is crowded


def draw(scenario: Scenario, world: str, seed: int, index: int) -> EpisodeSpec:
    """Returns evaluation episode `index` of `seed`: the same on every machine and in any order.

    It differs from the IND episode of the same seed and index only in the shifted axes. Rows of `table1` are the
    exception: they follow the reference's episode ids.

    Args:
        scenario: From `suite.scenarios` or `suite.select`.
        world: "builtin", "rl4vla", or "pretrain" for development.
        seed: 0 to 999,999; training draws use the seeds from 1,000,000 on.
        index: From 0.

    Raises:
        UserError: unknown world, or a seed or index out of range.
    """
    if not 0 <= seed < FIRST_TRAINING_SEED:
        raise UserError(f"seed {seed}: evaluation seeds are 0 to {FIRST_TRAINING_SEED - 1}; training uses the rest")
    return _draw(scenario, world, seed, index)


def draw_training(world: str, seed: int, index: int, shift: Shift | None = None) -> EpisodeSpec:
    """Returns in-distribution episode `index` of training seed `seed` (1,000,000 or more); see `draw`.

    Args:
        shift: Changes to the in-distribution episode, for pretraining data; see `check_training_shift`.
    """
    if seed < FIRST_TRAINING_SEED:
        raise UserError(f"seed {seed}: training seeds start at {FIRST_TRAINING_SEED}; the seeds below are evaluation's")
    scenario = training_scenario()
    return _draw(scenario.model_copy(update={"shift": shift}) if shift else scenario, world, seed, index)


def check_training_shift(shift: Shift) -> None:
    """Raises `UserError` if a shift draws from a pool held out for evaluation, or has effects."""
    if shift.effects:
        raise UserError(f"{shift.name}: effects: training episodes have none")
    for axis, choice in shift.axes.items():
        if choice.items:
            raise UserError(f"{shift.name}.{axis}: training episodes draw from pools, not from items of their own")
        usual = [pool for place, pool in enumerate(AXES[axis]) if place == 0 or pool == "train"]
        if choice.pool not in usual:
            raise UserError(
                f"{shift.name}.{axis}: pool '{choice.pool}' is held back for evaluation; training takes "
                f"{', '.join(usual)}"
            )


def with_roles_swapped(spec: EpisodeSpec) -> EpisodeSpec:
    """Returns the same scene with the first distractor object as the target, and the sentence naming it.

    For a policy that sees both episodes, only the sentence distinguishes them.

    Raises:
        UserError: There is no other object.
    """
    if not spec.distractor_objects:
        raise UserError("roles can only be swapped where there is another object; give distractor_object=train")
    catalog, (other, *rest) = load_catalog(spec.world), spec.distractor_objects
    old, new = (catalog.get("objects", item.id).name for item in (spec.target, other))
    place = catalog.get("receptacles", spec.receptacle.id).name
    templates = [text for pool in ("train", "unseen") for text in phrasings(spec.world, pool)]
    said = next(text for text in templates if text.format(object=old, receptacle=place) == spec.instruction)
    changes = {"target": other, "distractor_objects": (spec.target, *rest)}
    return spec.model_copy(update={**changes, "instruction": said.format(object=new, receptacle=place)})


def draw_for_env(scenario: Scenario, world: str, seed: int) -> EpisodeSpec:
    """Returns an episode of any scenario for an environment reset with `seed` (0 or more).

    The seeds are outside the evaluation range, so training in an environment never uses an evaluation episode.
    """
    if seed < 0:
        raise UserError(f"seed {seed}: expected 0 or more")
    return _draw(scenario, world, FIRST_TRAINING_SEED + seed, 0)


def training_scenario() -> Scenario:
    """Returns the in-distribution scenario that training draws from."""
    return Scenario(id="train", label="Training", dimension="ind")


def _draw(scenario: Scenario, world: str, seed: int, index: int) -> EpisodeSpec:
    if index < 0:
        raise UserError(f"index {index}: episodes count from 0")
    if scenario.reference:
        from vla_gen_bench.episodes.table1 import draw_reference  # only table1 needs its tables

        return draw_reference(scenario.reference, world, seed, index)
    return _Episode(load_catalog(world), scenario.shift, seed, index).spec()


@lru_cache(maxsize=None)
def _pool(world: str, kind: str, split: str) -> tuple[Any, ...]:
    found = tuple(item for item in getattr(load_catalog(world), kind) if item.split == split)
    if not found:
        raise UserError(f"world '{world}' has no {split} {kind}")
    return found


@dataclass
class _Episode:
    """An episode being drawn; `lying` collects the footprints on the table, which later objects avoid."""

    catalog: Catalog
    shift: Shift
    seed: int
    index: int
    lying: list[Footprint] = field(default_factory=list)

    def spec(self) -> EpisodeSpec:
        target, receptacle = self._pick("objects", "object"), self._pick("receptacles", "receptacle")
        yaw = self.stream("yaw").choice(self._yaws())
        here, there = self._pair()
        self.lying += [Footprint(target, here, yaw), Footprint(receptacle, there, 0.0)]
        distractors = self._distractor("objects", "distractor_object")
        others = self._distractor("receptacles", "distractor_receptacle")
        distractors += self._clutter()
        return EpisodeSpec(
            world=self.catalog.world,
            seed=self.seed,
            index=self.index,
            instruction=self._instruction([body.name for body, *_ in self.lying]),
            target=placed(self.lying[0], geometry.SPAWN_Z),
            receptacle=placed(self.lying[1], geometry.SPAWN_Z),
            distractor_objects=distractors,
            distractor_receptacles=others,
            table=self._pick("tables", "table").id,
            joint_offset=self._joint_offset(),
            effects=tuple(self._effect(effect) for effect in self.shift.effects),
        )

    def stream(self, axis: str, version: str = POOLS_VERSION) -> Stream:
        return Stream(version, self.seed, self.index, axis)

    def pool(self, kind: str, split: str) -> tuple[Any, ...]:
        return _pool(self.catalog.world, kind, split)

    def _pick(self, kind: str, axis: str, but: tuple[Body, ...] = (), stream: str = "") -> Any:
        pool = self._pool_of(kind, axis)
        left = [item for item in pool if all(item.id != other.id and item.name != other.name for other in but)]
        if not left:
            raise UserError(f"axis '{axis}': nothing in {[item.id for item in pool]} that is not on the table already")
        return self.stream(stream or axis, self.catalog.version).choice(left)

    def _pool_of(self, kind: str, axis: str) -> tuple[Any, ...]:
        choice = self.shift.choice(axis)
        if choice.items:
            return tuple(self.catalog.get(kind, item) for item in choice.items)
        return self.pool(kind, choice.pool)

    def _yaws(self) -> tuple[float, ...]:
        choice = self.shift.choice("yaw")
        return tuple(math.radians(degrees) for degrees in choice.items) or geometry.YAWS[choice.pool]

    def points(self) -> tuple[Point, ...]:
        layout = self.shift.choice("layout")
        return geometry.grid() if layout.pool == "grid" else geometry.ring(**layout.params)

    def _pair(self) -> tuple[Point, Point]:
        """Returns target and receptacle positions.

        "outside" moves one draw in or out, of pairs that are far enough apart at its smallest displacement and so at
        all of them; "ring" makes a new draw at each distance.
        """
        stream, layout = self.stream("layout"), self.shift.choice("layout")
        if layout.pool != "outside":
            return stream.choice(geometry.pairs(self.points()))
        ring, nearest = geometry.ring(), geometry.ring(DISPLACEMENT["displacement"].low)
        near = dict(zip(ring, nearest, strict=True))
        draws = (stream.choice(geometry.pairs(ring), draw) for draw in count())
        here, there = next((a, b) for a, b in draws if geometry.distance(near[a], near[b]) > geometry.PAIR_DISTANCE_M)
        moved = dict(zip(ring, self.points(), strict=True))
        return moved[here], moved[there]

    def _clutter(self) -> tuple[Placed, ...]:
        """Adds further objects one by one, so a higher count includes all objects of a lower count."""
        choice = self.shift.choice("clutter")
        if choice.pool == "none":
            return ()
        numbers = range(int(choice.params["count"]))
        return tuple(self._third("objects", "clutter", f"clutter.{number}", choice.params) for number in numbers)

    def _instruction(self, names: list[str]) -> str:
        """Returns the policy's instruction; `names` lists everything on the table, target and receptacle first."""
        pool = self.shift.choice("instruction").pool
        if pool == "none":
            return ""
        if pool == "other_episode":
            return self._instruction_of_another(names[0], names[1])
        return self._phrased(self._another_object(names) if pool == "other_object" else names[0], names[1])

    def _phrased(self, target: str, receptacle: str) -> str:
        choice, stream = self.shift.choice("phrasing"), self.stream("phrasing")
        if choice.pool == "spanish":
            return wording.spanish(target, receptacle)
        templates = choice.items or self._templates(choice)
        phrase = stream.choice(templates).format(object=target, receptacle=receptacle)
        if choice.pool == "polite":
            return wording.POLITE[int(choice.params["grade"])].format(phrase=phrase)
        return wording.misspelt(phrase, int(choice.params.get("count", 0)), self.stream("phrasing.typos"))

    def _templates(self, choice: Choice) -> tuple[str, ...]:
        if choice.pool == "paraphrase":
            return wording.PARAPHRASES[int(choice.params["grade"])]
        return phrasings(self.catalog.world, choice.pool if choice.pool in ("train", "unseen") else "train")

    def _another_object(self, names: list[str]) -> str:
        """Returns another object's name, from the table if possible, else from the training pool."""
        objects = {item.name for item in self.catalog.objects}
        there = [name for name in names[2:] if name in objects]
        others = [item.name for item in self.pool("objects", "train") if item.name != names[0]]
        return there[0] if there else self.stream("instruction", self.catalog.version).choice(others)

    def _instruction_of_another(self, target: str, receptacle: str) -> str:
        """Returns the first instruction in the following episodes that names another object or receptacle."""
        axes = {axis: choice for axis, choice in self.shift.axes.items() if axis != "instruction"}
        later = (replace(self, shift=Shift(axes=axes), index=self.index + step, lying=[]) for step in range(1, 1000))
        for spec in (episode.spec() for episode in later):
            named = self._name("objects", spec.target), self._name("receptacles", spec.receptacle)
            if named != (target, receptacle):
                return spec.instruction
        raise UserError("instruction 'other_episode': every episode names the same object and receptacle")

    def _name(self, kind: str, there: Placed) -> str:
        return self.catalog.get(kind, there.id).name

    def _distractor(self, kind: str, axis: str) -> tuple[Placed, ...]:
        """Adds one more object or receptacle with a different name, to keep the instruction unambiguous."""
        choice = self.shift.choice(axis)
        if choice.pool == "none":
            return ()
        return (self._third(kind, axis, axis, choice.params),)

    def _third(self, kind: str, axis: str, stream: str, params: Mapping[str, float]) -> Placed:
        """Adds one object with a unique kind and name; `stream` is the key for its choice and position."""
        target, receptacle, *rest = self.lying
        twin, other = (target, receptacle) if kind == "objects" else (receptacle, target)
        same = [it.body for it in (twin, *rest) if axis == "clutter" or it is twin]
        body = self._pick(kind, axis, tuple(same), stream)
        height = geometry.DISTRACTOR_OBJECT_Z if kind == "objects" else geometry.DISTRACTOR_RECEPTACLE_Z
        spare = geometry.fine_grid(), geometry.fine_grid(DISTRACTOR_MARGIN_STEPS)
        candidates = geometry.third_candidates(
            (self.points(), *spare),
            body,
            twin.yaw,
            other.xy,
            twin.xy,
            [twin, other, *rest],
            params["min_distance"],
        )
        place = self.stream(f"{stream}.position").choice(candidates)
        self.lying.append(Footprint(body, place, twin.yaw))
        return placed(self.lying[-1], height)

    def _joint_offset(self) -> tuple[float, ...]:
        choice = self.shift.choice("joint_offset")
        if choice.pool == "none":
            return NO_OFFSET
        offset = self.stream("joint_offset").choice(unseen_joint_offsets())
        return tuple(round(value * choice.params["scale"], 12) + 0.0 for value in offset)  # not -0.0 at scale 0

    def _effect(self, effect: Effect) -> Effect:
        found = find_effect(effect.name)
        found.check_world(self.catalog.world)
        return Effect(name=effect.name, params=found.drawn(self, effect.params))
