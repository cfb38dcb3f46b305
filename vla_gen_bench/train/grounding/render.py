"""Renders grounding scenes: the environment's robot, camera and lights, bodies placed at rest, no physics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sapien
import torch

from vla_gen_bench.assets.builtin.tables import HEIGHT, WIDTH, project
from vla_gen_bench.assets.world import CAMERA
from vla_gen_bench.envs import robot
from vla_gen_bench.envs.pick_place import PickPlaceEnv
from vla_gen_bench.episodes.draw import FIRST_TRAINING_SEED, draw_training
from vla_gen_bench.train.grounding.scenes import MOST_THINGS, Scene
from vla_gen_bench.train.resize import squashed

AWAY = sapien.Pose([0, 0, -50])
LOWEST_TCP_M = 0.89  # the table's top is at 0.870
MOST_BODIES = 64  # kept in the simulator; above this, all are reloaded
MOST_IDS = 20_000  # a body gets a new id each time it is added; segmentation keeps 16 bits of it


@dataclass(frozen=True)
class Shot:
    """One rendered scene; T = `MOST_THINGS`, unused rows are -1.

    Attributes:
        image: uint8 [S, S, 3], robot and things on black.
        foreground: uint8 [S, S], 255 where they are.
        thing: int16 [T], index in the catalogue; objects first, then receptacles.
        receptacle: bool [T].
        place: float32 [T, 2], a thing's origin in the image, as fractions of width and height.
        xy: float32 [T, 2], the same in the world, metres.
        visible: int32 [T], number of pixels of the camera's image that show it.
    """

    image: np.ndarray
    foreground: np.ndarray
    thing: np.ndarray
    receptacle: np.ndarray
    place: np.ndarray
    xy: np.ndarray
    visible: np.ndarray


class Renderer:
    """Renders scenes of one world.

    Args:
        side: S, pixels.
    """

    def __init__(self, world: str, side: int) -> None:
        self.env = PickPlaceEnv(world=world, obs_mode="rgb+segmentation")
        self.side, self.pack = side, self.env.pack
        self._bodies: dict[tuple[str, str], sapien.Entity] = {}
        self._begin()

    def _begin(self) -> None:
        """Opens a scene with only the robot, and restarts the ids."""
        self.env.reset(options={"spec": draw_training(self.env.world.name, FIRST_TRAINING_SEED, 0)})
        for thing in self.env.things:
            thing.actor.set_pose(AWAY)
        self._scene, self._entered = self.env.scene.sub_scenes[0], 0

    def draw(self, scene: Scene) -> Shot:
        """Returns what the camera sees of a scene."""
        if self._entered > MOST_IDS:
            self._begin()
        self._pose_arm(scene)
        placed = [("objects", item) for item in scene.objects] + [("receptacles", item) for item in scene.receptacles]
        entities = [self._entity(kind, item.id) for kind, item in placed]
        for entity, (_, item) in zip(entities, placed, strict=True):
            entity.set_pose(sapien.Pose(item.position, item.quaternion))
            self._scene.add_entity(entity)
        self._entered += len(entities)
        data = self.env.get_obs()["sensor_data"][CAMERA]
        segmentation = data["segmentation"][0, ..., 0].cpu().numpy()
        visible = [int((segmentation == entity.per_scene_id).sum()) for entity in entities]
        for entity in entities:
            self._scene.remove_entity(entity)
        foreground = self.env.foreground(data["segmentation"])[0].cpu().numpy()
        image = np.where(foreground[..., None], data["rgb"][0].cpu().numpy(), 0).astype(np.uint8)
        return self._shot(image, foreground, placed, visible)

    def _shot(self, image, foreground, placed, visible) -> Shot:
        positions = np.array([item.position for _, item in placed]).reshape(-1, 3)
        order = {
            kind: {id: place for place, id in enumerate(self.pack.catalog.ids(kind))}
            for kind in ("objects", "receptacles")
        }

        def rows(values: list | np.ndarray, dtype: type) -> np.ndarray:
            values = np.asarray(values, dtype)
            out = np.full((MOST_THINGS, *values.shape[1:]), -1, dtype)
            out[: len(values)] = values
            return out

        return Shot(
            image=squashed(image, self.side),
            foreground=squashed(foreground.astype(np.uint8) * 255, self.side),
            thing=rows([order[kind][item.id] for kind, item in placed], np.int16),
            receptacle=np.arange(MOST_THINGS) >= sum(kind == "objects" for kind, _ in placed),
            place=rows(project(positions) / (WIDTH, HEIGHT), np.float32),
            xy=rows(positions[:, :2], np.float32),
            visible=rows(visible, np.int32),
        )

    def _pose_arm(self, scene: Scene) -> None:
        """Poses the arm; offsets are halved until the end effector is above the table."""
        arm, offset = self.env.agent.robot, np.array(scene.joint_offset)
        for _ in range(6):
            qpos = np.array(robot.INITIAL_QPOS)
            qpos[:6] += offset
            qpos[6:] = scene.fingers
            arm.set_qpos(torch.tensor(qpos, dtype=torch.float32)[None])
            if float(arm.links_map[robot.END_EFFECTOR].pose.p[0, 2]) > LOWEST_TCP_M:
                return
            offset = offset / 2

    def _entity(self, kind: str, id: str) -> sapien.Entity:
        """Returns the body to render, not yet in the scene."""
        if len(self._bodies) > MOST_BODIES:
            self._bodies.clear()
        if (kind, id) not in self._bodies:
            shape = sapien.render.RenderShapeTriangleMesh(str(self.pack.visual(self.pack.catalog.get(kind, id))))
            component = sapien.render.RenderBodyComponent()
            component.attach(shape)
            entity = sapien.Entity()
            entity.add_component(component)
            self._bodies[kind, id] = entity
        return self._bodies[kind, id]
