"""The generated objects: what the pack promises about files, sizes and masses, and how they rest and can be grasped."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from vla_gen_bench.assets.builtin.objects import write_objects

TABLE_Z = 0.87
MAX_TRIANGLES = 900


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pack")


@pytest.fixture(scope="module")
def entries(root: Path) -> list[dict]:
    return write_objects(root)


def read_glb(path: Path) -> tuple[dict, np.ndarray]:
    """The glTF header and the vertex positions [V, 3] of a file with one primitive."""
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    header = json.loads(data[20 : 20 + length])
    count = header["accessors"][0]["count"]
    return header, np.frombuffer(data, "<f4", 3 * count, offset=28 + length).reshape(-1, 3)


def read_pieces(path: Path) -> list[trimesh.Trimesh]:
    pieces = []
    for group in path.read_text().split("o piece_")[1:]:
        rows = [line.split() for line in group.splitlines()[1:]]
        vertices = np.array([row[1:] for row in rows if row[0] == "v"], float)
        faces = np.array([row[1:] for row in rows if row[0] == "f"], int)
        pieces.append((vertices, faces))
    starts = np.cumsum([1] + [len(vertices) for vertices, _ in pieces])
    return [trimesh.Trimesh(v, f - start, process=False) for (v, f), start in zip(pieces, starts)]


def test_catalogue_lists_16_training_then_9_unseen_objects(entries: list[dict]) -> None:
    assert [entry["split"] for entry in entries] == ["train"] * 16 + ["unseen"] * 9
    assert len({entry["id"] for entry in entries}) == 25
    assert {entry["id"]: entry["name"] for entry in entries}["soda_can"] == "soda can"


def test_same_bytes_on_every_run(entries: list[dict], root: Path, tmp_path: Path) -> None:
    assert write_objects(tmp_path) == entries
    for entry in entries:
        for key in ("visual", "collision"):
            assert (tmp_path / entry[key]).read_bytes() == (root / entry[key]).read_bytes(), entry["id"]


def test_size_fits_the_gripper_and_the_table(entries: list[dict]) -> None:
    for entry in entries:
        low, high = np.array(entry["bbox_min"]), np.array(entry["bbox_max"])
        size = high - low
        assert 0.018 <= size[:2].min() <= 0.0451 and size.max() <= 0.130, entry["id"]
        assert 0.018 <= size[2] <= 0.060, entry["id"]
        assert np.abs((low + high)[:2] / 2).max() < 0.005, entry["id"]


def test_visual_is_one_small_textured_primitive_with_the_stated_bounds(entries: list[dict], root: Path) -> None:
    for entry in entries:
        header, vertices = read_glb(root / entry["visual"])
        assert len(header["meshes"][0]["primitives"]) == len(header["images"]) == 1
        assert header["accessors"][3]["count"] <= 3 * MAX_TRIANGLES, entry["id"]
        np.testing.assert_allclose(vertices.min(0), entry["bbox_min"], atol=1e-5, err_msg=entry["id"])
        np.testing.assert_allclose(vertices.max(0), entry["bbox_max"], atol=1e-5, err_msg=entry["id"])


def test_collision_pieces_are_few_convex_and_watertight(entries: list[dict], root: Path) -> None:
    for entry in entries:
        pieces = read_pieces(root / entry["collision"])
        assert 1 <= len(pieces) <= 6, entry["id"]
        for piece in pieces:
            assert piece.is_watertight and piece.is_convex and piece.volume > 0, entry["id"]
            assert len(piece.vertices) <= 40, entry["id"]


def test_collision_follows_the_visual_bounds(entries: list[dict], root: Path) -> None:
    for entry in entries:
        vertices = np.concatenate([piece.vertices for piece in read_pieces(root / entry["collision"])])
        np.testing.assert_allclose(vertices.min(0), entry["bbox_min"], atol=0.007, err_msg=entry["id"])
        np.testing.assert_allclose(vertices.max(0), entry["bbox_max"], atol=0.007, err_msg=entry["id"])
        assert abs(vertices[:, 2].min() - entry["bbox_min"][2]) < 0.001, entry["id"]


def test_mass_is_that_of_a_toy(entries: list[dict], root: Path) -> None:
    for entry in entries:
        mass = entry["density"] * sum(piece.volume for piece in read_pieces(root / entry["collision"]))
        assert 300 <= entry["density"] <= 1500 and 0.015 <= mass <= 0.120, entry["id"]


def new_scene():
    """A scene at 500 Hz, without a renderer, with the static table."""
    sapien = pytest.importorskip("sapien")
    for configure in (sapien.physx.set_scene_config, sapien.physx.set_body_config, sapien.physx.set_shape_config):
        configure()  # SAPIEN's own defaults: an environment made before leaves its settings to all scenes
    scene = sapien.Scene([sapien.physx.PhysxCpuSystem()])
    scene.set_timestep(1 / 500)
    builder = scene.create_actor_builder()
    builder.add_box_collision(half_size=[2, 2, TABLE_Z / 2], material=sapien.physx.PhysxMaterial(0.3, 0.3, 0))
    builder.initial_pose = sapien.Pose([0, 0, TABLE_Z / 2])
    builder.build_static(name="table")
    return sapien, scene


def spawn(sapien, scene, root: Path, entry: dict, xyz: tuple[float, float, float], yaw_deg: float = 0.0):
    builder = scene.create_actor_builder()
    builder.add_multiple_convex_collisions_from_file(
        str(root / entry["collision"]), density=entry["density"], material=sapien.physx.PhysxMaterial(1, 1, 0)
    )
    half = np.radians(yaw_deg) / 2
    builder.initial_pose = sapien.Pose(xyz, [np.cos(half), 0, 0, np.sin(half)])
    return builder.build(name=entry["id"])


def tilt_deg(pose) -> float:
    """Angle between the actor's z axis and up, from its wxyz quaternion."""
    return float(np.degrees(np.arccos(np.clip(1 - 2 * (pose.q[1] ** 2 + pose.q[2] ** 2), -1, 1))))


def test_every_object_dropped_5_cm_comes_to_rest_as_modelled(entries: list[dict], root: Path) -> None:
    places = [(-0.6 + 0.4 * i, yaw) for i, yaw in enumerate((0, 45, 90, 135))]
    for entry in entries:
        sapien, scene = new_scene()
        rest = TABLE_Z - entry["bbox_min"][2]
        actors = [spawn(sapien, scene, root, entry, (x, 0, rest + 0.05), yaw) for x, yaw in places]
        for _ in range(650):
            scene.step()
        for actor, (x, yaw) in zip(actors, places):
            body = actor.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent)
            speed = np.linalg.norm(body.linear_velocity)
            drift = np.hypot(actor.pose.p[0] - x, actor.pose.p[1])
            assert speed < 0.01 and drift < 0.03 and tilt_deg(actor.pose) < 15, (entry["id"], yaw)
            assert abs(actor.pose.p[2] - rest) < 0.003, (entry["id"], yaw)


def add_gripper(sapien, scene):
    """Two 12 mm wide fingers closing along y with 10 N on a vertical slide; returns the joints (lift, left, right)."""
    builder = scene.create_articulation_builder()
    slide = builder.create_link_builder(builder.create_link_builder())
    up = sapien.Pose([0, 0, 0], [0.5**0.5, 0, -(0.5**0.5), 0])
    slide.set_joint_properties("prismatic", [[-1, 1]], up, up)
    slide.add_box_collision(pose=sapien.Pose([0, 0, 0.12]), half_size=[0.02, 0.05, 0.01], density=3000)
    for side in (1, -1):
        outward = sapien.Pose([0, 0, 0], [0.5**0.5, 0, 0, side * 0.5**0.5])
        finger = builder.create_link_builder(slide)
        finger.set_joint_properties("prismatic", [[0, 0.035]], outward, outward)
        finger.add_box_collision(
            pose=sapien.Pose([0, side * 0.005, 0.035]),
            half_size=[0.006, 0.005, 0.035],
            density=1500,
            material=sapien.physx.PhysxMaterial(1, 1, 0),
        )
    gripper = builder.build(fix_root_link=True)
    gripper.set_root_pose(sapien.Pose([0, 0, TABLE_Z + 0.004]))
    gripper.set_qpos([0, 0.035, 0.035])
    for link in gripper.links:
        link.disable_gravity = True
    lift, *fingers = gripper.active_joints
    lift.set_drive_properties(2000, 200, 100)
    for finger in fingers:
        finger.set_drive_properties(1000, 60, 10)
    return lift, *fingers


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.006, 0.008), (-0.006, -0.008)])
def test_every_object_can_be_lifted_by_its_narrow_axis(entries: list[dict], root: Path, offset) -> None:
    for entry in entries:
        sapien, scene = new_scene()
        rest = TABLE_Z - entry["bbox_min"][2]
        actor = spawn(sapien, scene, root, entry, (*offset, rest))
        lift, *fingers = add_gripper(sapien, scene)
        for finger in fingers:
            finger.set_drive_target(0.0)
        for step in range(800):
            lift.set_drive_target(0.1 * np.clip((step - 300) / 300, 0, 1))
            scene.step()
        assert actor.pose.p[2] - rest > 0.09 and tilt_deg(actor.pose) < 15, entry["id"]
