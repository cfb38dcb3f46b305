"""Drawing: scenario, world, seed and index in, one concrete `EpisodeSpec` out. No simulator, no shared state."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from vla_gen_bench.episodes import geometry
from vla_gen_bench.episodes.axes import phrasings, unseen_joint_offsets
from vla_gen_bench.episodes.built_in_effects import placed
from vla_gen_bench.episodes.catalog import Body, Catalog, load_catalog
from vla_gen_bench.episodes.effects import find_effect
from vla_gen_bench.episodes.geometry import Footprint, Point
from vla_gen_bench.episodes.shift import Scenario, Shift
from vla_gen_bench.episodes.spec import NO_OFFSET, Effect, EpisodeSpec, Placed
from vla_gen_bench.episodes.streams import POOLS_VERSION, Stream
from vla_gen_bench.errors import UserError

FIRST_TRAINING_SEED = 1_000_000
DISTRACTOR_MARGIN_STEPS = 4  # a distractor may lie up to 6 cm outside the training square where that is crowded


def draw(scenario: Scenario, world: str, seed: int, index: int) -> EpisodeSpec:
    """Returns evaluation episode `index` of `seed`: the same for everyone, on any machine, in any order.

    It equals the IND episode of the same seed and index in all but the shifted axes (rows of `table1` excepted,
    which follow the reference's episode ids).

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


def draw_training(world: str, seed: int, index: int) -> EpisodeSpec:
    """Returns in-distribution episode `index` of training seed `seed` (1,000,000 or more); see `draw`."""
    if seed < FIRST_TRAINING_SEED:
        raise UserError(f"seed {seed}: training seeds start at {FIRST_TRAINING_SEED}; the seeds below are evaluation's")
    return _draw(training_scenario(), world, seed, index)


def draw_for_env(scenario: Scenario, world: str, seed: int) -> EpisodeSpec:
    """Returns an episode of any scenario for an environment reset with `seed` (0 or more).

    It lies outside the evaluation seeds, so an environment used for practice never shows an evaluation episode's draw.
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
    """One episode while it is drawn; `lying` collects what is on the table, so that later things keep clear."""

    catalog: Catalog
    shift: Shift
    seed: int
    index: int
    lying: list[Footprint] = field(default_factory=list)

    def spec(self) -> EpisodeSpec:
        target, receptacle = self._pick("objects", "object"), self._pick("receptacles", "receptacle")
        yaw = self.stream("yaw").choice(geometry.YAWS[self.shift.choice("yaw").pool])
        here, there = self.stream("layout").choice(geometry.pairs(self.points()))
        self.lying += [Footprint(target, here, yaw), Footprint(receptacle, there, 0.0)]
        phrase = self.stream("phrasing").choice(phrasings(self.catalog.world, self.shift.choice("phrasing").pool))
        return EpisodeSpec(
            world=self.catalog.world,
            seed=self.seed,
            index=self.index,
            instruction=phrase.format(object=target.name, receptacle=receptacle.name),
            target=placed(self.lying[0], geometry.SPAWN_Z),
            receptacle=placed(self.lying[1], geometry.SPAWN_Z),
            distractor_objects=self._distractor("objects", "distractor_object"),
            distractor_receptacles=self._distractor("receptacles", "distractor_receptacle"),
            table=self._pick("tables", "table").id,
            joint_offset=self._joint_offset(),
            effects=tuple(self._effect(effect) for effect in self.shift.effects),
        )

    def stream(self, axis: str, version: str = POOLS_VERSION) -> Stream:
        return Stream(version, self.seed, self.index, axis)

    def pool(self, kind: str, split: str) -> tuple[Any, ...]:
        return _pool(self.catalog.world, kind, split)

    def _pick(self, kind: str, axis: str, but: tuple[Body, ...] = ()) -> Any:
        pool = self.pool(kind, self.shift.choice(axis).pool)
        left = [item for item in pool if all(item.id != other.id and item.name != other.name for other in but)]
        return self.stream(axis, self.catalog.version).choice(left)

    def points(self) -> tuple[Point, ...]:
        layout = self.shift.choice("layout")
        return geometry.grid() if layout.pool == "grid" else geometry.ring(**layout.params)

    def _distractor(self, kind: str, axis: str) -> tuple[Placed, ...]:
        """Adds one more object or receptacle; its name differs too, or the instruction would be ambiguous."""
        choice = self.shift.choice(axis)
        if choice.pool == "none":
            return ()
        target, receptacle, *rest = self.lying
        twin, other = (target, receptacle) if kind == "objects" else (receptacle, target)
        body = self._pick(kind, axis, but=(twin.body,))
        height = geometry.DISTRACTOR_OBJECT_Z if kind == "objects" else geometry.DISTRACTOR_RECEPTACLE_Z
        spare = geometry.fine_grid(), geometry.fine_grid(DISTRACTOR_MARGIN_STEPS)
        candidates = geometry.third_candidates(
            (self.points(), *spare),
            body,
            twin.yaw,
            other.xy,
            twin.xy,
            [twin, other, *rest],
            choice.params["min_distance"],
        )
        place = self.stream(f"{axis}.position").choice(candidates)
        self.lying.append(Footprint(body, place, twin.yaw))
        return (placed(self.lying[-1], height),)

    def _joint_offset(self) -> tuple[float, ...]:
        choice = self.shift.choice("joint_offset")
        if choice.pool == "none":
            return NO_OFFSET
        offset = self.stream("joint_offset").choice(unseen_joint_offsets())
        return tuple(round(value * choice.params["scale"], 12) for value in offset)

    def _effect(self, effect: Effect) -> Effect:
        found = find_effect(effect.name)
        found.check_world(self.catalog.world)
        return Effect(name=effect.name, params=found.drawn(self, effect.params))
