"""The simulator's state as a privileged policy sees it, all in the robot's base frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import sapien

from vla_gen_bench.envs import robot

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv
    from vla_gen_bench.envs.scene import Thing

_WORLD_TO_BASE = sapien.Pose(robot.BASE_POSITION, robot.BASE_QUATERNION).inv()


@dataclass(frozen=True)
class BodyState:
    """A body on the table.

    Attributes:
        position: [3] metres, origin of the actor.
        quaternion: [4] wxyz.
        points: [N, 3] metres, current vertices of its convex collision pieces.
        speed: Linear speed, m/s.
    """

    position: np.ndarray
    quaternion: np.ndarray
    points: np.ndarray
    speed: float


@dataclass(frozen=True)
class PrivilegedState:
    """The simulator's true state of one episode; base frame: x forward, z up from the table top.

    Attributes:
        qpos: [8] radians, the last two are finger positions in metres (0.015 closed .. 0.037 open).
        position, rotation: Measured end effector, [3] metres and [3, 3]; x axis is the approach direction.
        commanded_position, commanded_rotation: The controller's target pose, to which actions are added.
        ik_ok: Whether the last target was reachable.
        finger_forces: [2] newtons between left, right finger and the target object.
        grasped: Current value of the task's own rule.
        success: Current value of the task's own rule.
        earned: Sum of the episode's rewards so far.
        target, receptacle, distractors: Bodies.
    """

    step: int
    qpos: np.ndarray
    position: np.ndarray
    rotation: np.ndarray
    commanded_position: np.ndarray
    commanded_rotation: np.ndarray
    ik_ok: bool
    finger_forces: np.ndarray
    grasped: bool
    success: bool
    earned: float
    target: BodyState
    receptacle: BodyState
    distractors: dict[str, BodyState]


def _matrix(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    transform = sapien.Pose(pose[:3], pose[3:]).to_transformation_matrix()
    return transform[:3, 3].astype(np.float64), transform[:3, :3].astype(np.float64)


def _to_base(pose: np.ndarray) -> np.ndarray:
    moved = _WORLD_TO_BASE * sapien.Pose(pose[:3], pose[3:])
    return np.concatenate([moved.p, moved.q]).astype(np.float64)


def collision_points(thing: Thing, row: int) -> np.ndarray:
    """Returns [N, 3] vertices of the convex pieces in the actor's frame, metres."""
    return np.concatenate(list(convex_pieces(thing.actor._bodies[thing.index(row)])))


def convex_pieces(body: sapien.physx.PhysxRigidBaseComponent) -> Iterator[np.ndarray]:
    """Yields the vertices [N, 3] of each of a body's convex collision pieces, in its own frame, metres."""
    for shape in body.collision_shapes:
        transform = shape.local_pose.to_transformation_matrix()
        yield ((shape.vertices * shape.scale) @ transform[:3, :3].T + transform[:3, 3]).astype(np.float64)


def _body(env: PickPlaceEnv, thing: Thing, row: int) -> BodyState:
    index = thing.index(row)
    pose = _to_base(thing.actor.pose.raw_pose[index].cpu().numpy())
    position, rotation = _matrix(pose)
    points = env.cached_points(thing, row) @ rotation.T + position
    speed = float(np.linalg.norm(thing.actor.linear_velocity[index].cpu().numpy()))
    return BodyState(position, pose[3:], points, speed)


def privileged_state(env: PickPlaceEnv, row: int = 0) -> PrivilegedState:
    """Returns the state of sub-scene `row`; reading it changes nothing."""
    controller = env.agent.controller.controllers["arm"]
    position, rotation = _matrix(_to_base(controller.ee_pose.raw_pose[row].cpu().numpy()))
    commanded = _matrix(controller._target_pose.raw_pose[row].cpu().numpy().astype(np.float64))
    forces = [env.judge.forces[f"{side}/target"][row].cpu().numpy() for side in ("left", "right")]
    things = {thing.role: thing for thing in env.things if row in thing.rows}
    bodies = {role: _body(env, thing, row) for role, thing in things.items()}
    return PrivilegedState(
        step=int(env.elapsed_steps[row]),
        qpos=env.agent.robot.get_qpos()[row].cpu().numpy().astype(np.float64),
        position=position,
        rotation=rotation,
        commanded_position=commanded[0],
        commanded_rotation=commanded[1],
        ik_ok=bool(controller.ik_ok[row]),
        finger_forces=np.linalg.norm(forces, axis=1),
        grasped=bool(env.judge.grasped[row]),
        success=bool(env.judge.success[row]),
        earned=float(env.judge.progress.potential[row]),
        target=bodies.pop("target"),
        receptacle=bodies.pop("receptacle"),
        distractors=bodies,
    )
