"""Builds a ManiSkill scene with the table, the lights and exactly the bodies a spec names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sapien
import torch
from mani_skill.envs.scene import ManiSkillScene
from mani_skill.utils.structs.actor import Actor
from sapien.physx import PhysxMaterial, PhysxRigidStaticComponent

from vla_gen_bench.assets.folders import cache_dir
from vla_gen_bench.assets.models import lean_model, texture_pixels
from vla_gen_bench.assets.pack import Pack
from vla_gen_bench.envs import heap
from vla_gen_bench.envs.effects.setup import BodySetup, SceneSetup
from vla_gen_bench.episodes.catalog import Body
from vla_gen_bench.episodes.spec import EpisodeSpec, Placed

TABLE_HALF_SIZE = (0.6, 0.6, 0.05)
TABLE_CENTRE = (-0.1, 0.0, 0.82)  # top at z = 0.870
BODY_FRICTION = 1.0
IDLE_PIXELS = 10_000_000  # texture pixels; a loaded pixel takes 8 to 12 bytes
ALL_PIXELS = 20_000_000  # if idle and needed pixels exceed this, at most a fifth of IDLE_PIXELS may be idle
_TEXTURES = tuple(f"{name}_texture" for name in ("base_color", "roughness", "metallic", "normal", "emission"))


@dataclass(frozen=True)
class Thing:
    """One body role on the table across all sub-scenes that have it.

    Attributes:
        role: "target", "receptacle", "distractor_object_0", ...
        rows: The sub-scenes that have it, ascending; all for target and receptacle.
        placed, bodies: Per entry of `rows`, its `Placed` of the spec and its row of the catalogue.
        actor: One ManiSkill view of all of them, in the order of `rows`.
    """

    role: str
    rows: tuple[int, ...]
    placed: tuple[Placed, ...]
    bodies: tuple[Body, ...]
    actor: Actor

    def index(self, row: int) -> int:
        """Returns the index of sub-scene `row` in `rows`."""
        return self.rows.index(row)

    def over(self, batch: int, values: torch.Tensor, missing: float) -> torch.Tensor:
        """Expands `values` [len(rows), ...] to [batch, ...], with `missing` for sub-scenes without the body."""
        if len(self.rows) == batch:
            return values
        everywhere = values.new_full((batch, *values.shape[1:]), missing)
        everywhere[list(self.rows)] = values
        return everywhere


def build_table(scene: ManiSkillScene, setups: Sequence[SceneSetup]) -> Actor:
    """Adds the invisible static table; the table image is composited behind the scene instead."""
    builder = scene.create_actor_builder()
    builder.add_box_collision(half_size=TABLE_HALF_SIZE)
    builder.initial_pose = sapien.Pose(TABLE_CENTRE)
    table = builder.build_static(name="table")
    for entity, setup in zip(table._objs, setups, strict=True):
        if setup.table_friction is not None:
            material = PhysxMaterial(setup.table_friction, setup.table_friction, 0.0)
            for shape in entity.find_component_by_type(PhysxRigidStaticComponent).collision_shapes:
                shape.set_physical_material(material)
    return table


def build_things(
    scene: ManiSkillScene, pack: Pack, specs: Sequence[EpisodeSpec], setups: Sequence[SceneSetup]
) -> list[Thing]:
    """Adds target, receptacle and distractors of each sub-scene's spec; their counts may differ.

    Creates objects first, then receptacles, each in catalogue order, as the reference does, because this order decides
    the order in which PhysX solves their contacts.
    """
    built: dict[str, dict[int, tuple[Placed, Body, Actor]]] = {}
    for row, spec in enumerate(specs):
        listed = sorted(_listed(pack, spec), key=lambda entry: entry[:2])
        for place, (_, role, body, placed) in enumerate(listed):
            pose = sapien.Pose([place, 0, 2])  # spread out, because a GPU steps once before bodies are placed
            name = role if scene.num_envs == 1 else f"{role}-{row}"
            made = _build_body(scene, pack, body, name, row, pose, setups[row].body(role))
            built.setdefault(role, {})[row] = placed, resized(body, setups[row].body(role).scale), made
    roles = sorted(built, key=lambda role: (not role.startswith("target"), not role.startswith("receptacle"), role))
    return [_merge(role, built[role]) for role in roles]


def _listed(pack: Pack, spec: EpisodeSpec) -> list[tuple[tuple[bool, int], str, Body, Placed]]:
    """Returns all bodies of a spec: (sort key for creation, role, row of the catalogue, `Placed` of the spec)."""
    placed = {"target": spec.target, "receptacle": spec.receptacle}
    placed |= {f"distractor_object_{index}": item for index, item in enumerate(spec.distractor_objects)}
    placed |= {f"distractor_receptacle_{index}": item for index, item in enumerate(spec.distractor_receptacles)}
    entries = []
    for role, item in placed.items():
        kind = "receptacles" if "receptacle" in role else "objects"
        order = (kind == "receptacles", pack.catalog.ids(kind).index(item.id))
        entries.append((order, role, pack.catalog.get(kind, item.id), item))
    return entries


def _merge(role: str, built: dict[int, tuple[Placed, Body, Actor]]) -> Thing:
    placed, bodies, actors = zip(*built.values(), strict=True)
    actor = actors[0] if len(actors) == 1 else Actor.merge(list(actors), name=role)
    return Thing(role, tuple(built), placed, bodies, actor)


def _build_body(
    scene: ManiSkillScene, pack: Pack, body: Body, name: str, row: int, pose: sapien.Pose, setup: BodySetup
) -> Actor:
    friction = BODY_FRICTION if setup.friction is None else setup.friction
    scale = [setup.scale] * 3
    builder = scene.create_actor_builder()
    builder.add_multiple_convex_collisions_from_file(
        str(pack.path(body.collision)),
        scale=scale,
        material=PhysxMaterial(friction, friction, 0.0),
        density=body.density * setup.density,
    )
    builder.add_visual_from_file(str(lean_model(pack.visual(body), cache_dir())), scale=scale)
    builder.set_scene_idxs([row])
    builder.initial_pose = pose
    return builder.build_dynamic(name=name)


def resized(body: Body, scale: float) -> Body:
    """Returns the catalogue row of a body scaled by `scale` about its origin."""
    if scale == 1.0:
        return body
    low, high = (tuple(value * scale for value in corner) for corner in (body.bbox_min, body.bbox_max))
    return body.model_copy(update={"bbox_min": low, "bbox_max": high})


def add_lights(scene: ManiSkillScene, setups: Sequence[SceneSetup]) -> None:
    """Adds each sub-scene's own ambient and directional lights."""
    for row, setup in enumerate(setups):
        scene.sub_scenes[row].render_system.ambient_light = list(setup.ambient)
        for light in setup.lights:
            scene.add_directional_light(list(light.direction), list(light.colour), scene_idxs=[row])


def finish_robot_surface(robot) -> None:
    """Gives the robot's render materials the sheen of the reference (specular 0.9, roughness 0.3)."""
    for link in robot.links:
        for entity in (obj.entity for obj in link._objs):
            render = entity.find_component_by_type(sapien.render.RenderBodyComponent)
            for shape in render.render_shapes if render else ():
                for part in shape.parts:
                    part.material.set_specular(0.9)
                    part.material.set_roughness(0.3)


def drawn_swiftly(scene: ManiSkillScene, shader: str) -> bool:
    """Returns whether the swift copy of `shader` renders all bodies exactly as the shader does.

    No swift copy supports transparent bodies, and that of "minimal" supports no normal maps.
    """
    bodies = (body for sub_scene in scene.sub_scenes for body in sub_scene.render_system.render_bodies)
    materials = [part.material for body in bodies for shape in body.render_shapes for part in shape.parts]
    smooth = shader != "minimal" or all(material.normal_texture is None for material in materials)
    return smooth and all(material.base_color[3] == 1 for material in materials)


def renderer_handle() -> object:
    """Returns a small object that keeps the render device open between scenes; opening it takes 0.1 s of CPU."""
    return sapien.render.RenderMaterial()


def release(*owners: object | None) -> None:
    """Clears the objects of a finished scene to free its memory at once.

    They form reference cycles, which only a garbage collection breaks; until then each scene would keep its camera's
    images, 40 MB at 640x480.
    """
    for owner in owners:
        if owner is not None:
            vars(owner).clear()


class LoadedModels:
    """Tracks the models with textures that SAPIEN keeps in memory once rendered: 0.6 GB for all of `rl4vla`.

    SAPIEN's memory belongs to the process, so the environments of one process share one instance.
    """

    def __init__(self) -> None:
        self._pixels: dict[Path, int] = {}  # of loaded models
        self._known: dict[Path, int] = {}  # of every model ever loaded
        self._needed: dict[int, set[Path]] = {}

    def note(self, pack: Pack, things: Sequence[Thing]) -> None:
        """Records the size of the bodies' textures."""
        for thing in things:
            for body, entity in zip(thing.bodies, thing.actor._objs, strict=True):
                path = pack.visual(body)
                if path not in self._pixels:
                    self._pixels[path] = self._known[path] = _texture_pixels(entity)

    def make_room(self, pack: Pack, specs: Sequence[EpisodeSpec], env: object = None) -> None:
        """Drops all models if unneeded ones take too much memory; call it between two scenes of `env`.

        SAPIEN can only drop all of them. Reloading the robot and two or three bodies takes about 0.1 s.
        """
        self._needed[id(env)] = {pack.visual(body) for spec in specs for body in bodies_of(pack, spec)}
        needed = set().union(*self._needed.values())
        idle = sum(pixels for path, pixels in self._pixels.items() if path not in needed)
        coming = sum(self._known.get(path, texture_pixels(path)) for path in needed)
        if idle > np.clip(ALL_PIXELS - coming, IDLE_PIXELS // 5, IDLE_PIXELS):
            sapien.render.clear_cache()
            self._pixels.clear()
            heap.return_free_memory()


def bodies_of(pack: Pack, spec: EpisodeSpec) -> list[Body]:
    """Returns the catalogue rows of all bodies of a spec; raises `UserError` for an unknown id."""
    objects = [pack.catalog.get("objects", placed.id) for placed in (spec.target, *spec.distractor_objects)]
    receptacles = (spec.receptacle, *spec.distractor_receptacles)
    return objects + [pack.catalog.get("receptacles", placed.id) for placed in receptacles]


def _texture_pixels(entity: sapien.Entity) -> int:
    drawn = entity.find_component_by_type(sapien.render.RenderBodyComponent)
    materials = [part.material for shape in (drawn.render_shapes if drawn else ()) for part in shape.parts]
    textures = [getattr(material, name) for material in materials for name in _TEXTURES]
    return sum(texture.width * texture.height for texture in textures if texture)


def rotated_extent(body: Body, rotation: np.ndarray) -> np.ndarray:
    """Returns the world-aligned size [3], metres, of the body's bounding box turned by `rotation` [3, 3]."""
    size = np.asarray(body.bbox_max) - np.asarray(body.bbox_min)
    return np.abs(rotation) @ size
