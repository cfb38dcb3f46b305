"""The builtin receptacles: sizes, masses, collision pieces, and how they land in real physics."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sapien
import trimesh
from sapien import physx

from vla_gen_bench.assets.builtin import receptacles

TABLE_TOP = 0.870
DROP_M, SETTLE_S, TIMESTEP_S = 0.07, 1.3, 1 / 500
WRITE = (
    "import sys; from pathlib import Path; from vla_gen_bench.assets.builtin.receptacles import write_receptacles; "
    "write_receptacles(Path(sys.argv[1]))"
)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    root = tmp_path_factory.mktemp("pack")
    return root, receptacles.write_receptacles(root)


def digests(root: Path) -> dict[str, str]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def spot(index: int) -> np.ndarray:
    """Place of one receptacle on a grid of 22 cm that keeps all of them apart on the table."""
    return np.array([-0.54 + 0.22 * (index % 5), -0.33 + 0.22 * (index // 5), TABLE_TOP])


def drop_all(root: Path, entries: list[dict]) -> tuple[sapien.Scene, list[sapien.Entity]]:
    scene = sapien.Scene([physx.PhysxCpuSystem()])
    scene.set_timestep(TIMESTEP_S)
    table = scene.create_actor_builder()
    table.add_box_collision(half_size=[0.6, 0.6, 0.05], material=physx.PhysxMaterial(0.3, 0.3, 0.0))
    table.set_initial_pose(sapien.Pose([-0.1, 0, TABLE_TOP - 0.05]))
    table.build_static()
    return scene, [add(scene, root, entry, index) for index, entry in enumerate(entries)]


def add(scene: sapien.Scene, root: Path, entry: dict, index: int) -> sapien.Entity:
    builder = scene.create_actor_builder()
    builder.add_multiple_convex_collisions_from_file(
        str(root / entry["collision"]), density=entry["density"], material=physx.PhysxMaterial(1.0, 1.0, 0.0)
    )
    builder.set_initial_pose(sapien.Pose(spot(index) + (0, 0, DROP_M)))
    return builder.build(entry["id"])


def body(actor: sapien.Entity) -> physx.PhysxRigidDynamicComponent:
    return actor.find_component_by_type(physx.PhysxRigidDynamicComponent)


@pytest.fixture(scope="module")
def landed(pack):
    scene, actors = drop_all(*pack)
    for _ in range(round(SETTLE_S / TIMESTEP_S)):
        scene.step()
    return scene, actors


def test_second_process_writes_the_same_bytes(pack, tmp_path):
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, "-c", WRITE, str(tmp_path)], check=True, env=environment, cwd=Path(__file__).parents[2]
    )
    assert digests(tmp_path) == digests(pack[0])


def test_receptacles_are_the_train_plate_then_sixteen_unseen(pack):
    _, entries = pack
    assert entries[0]["id"] == "plate"
    assert [entry["split"] for entry in entries] == ["train"] + ["unseen"] * 16
    assert len({entry["id"] for entry in entries}) == 17


def test_plate_is_110_mm_wide_and_6_mm_tall(pack):
    plate = pack[1][0]
    assert (plate["bbox_min"], plate["bbox_max"]) == ([-0.055, -0.055, 0.0], [0.055, 0.055, 0.006])


def test_receptacles_are_flat_centred_and_fit_the_workspace(pack):
    for entry in pack[1]:
        low, high = np.array(entry["bbox_min"]), np.array(entry["bbox_max"])
        assert 0.08 <= (high - low)[:2].min() and (high - low)[:2].max() <= 0.126, entry["id"]
        assert 0.0027 <= high[2] <= 0.012 and low[2] == 0, entry["id"]
        np.testing.assert_allclose((low + high)[:2], 0, atol=1e-5)


def test_bounding_box_is_that_of_the_visual_and_contains_the_collision(pack):
    root, entries = pack
    for entry in entries:
        visual, collision = (trimesh.load(root / entry[key], force="mesh") for key in ("visual", "collision"))
        np.testing.assert_allclose(visual.bounds, [entry["bbox_min"], entry["bbox_max"]], atol=1e-5)
        assert (collision.bounds[0] >= visual.bounds[0] - 1e-5).all(), entry["id"]
        assert (collision.bounds[1] <= visual.bounds[1] + 1e-5).all(), entry["id"]
        assert len(visual.faces) <= 500, entry["id"]


def test_textures_are_small_and_do_not_blow_out(pack):
    root, entries = pack
    for entry in entries:
        texture = np.asarray(trimesh.load(root / entry["visual"], force="mesh").visual.material.baseColorTexture)
        assert max(texture.shape[:2]) <= 256
        assert (texture[..., :3] / 255).max() ** 2.2 <= 0.85, entry["id"]  # linear albedo


def test_masses_and_collision_pieces_in_the_simulator(pack, landed):
    for entry, actor in zip(pack[1], landed[1]):
        assert 0.12 <= body(actor).mass <= 0.30, entry["id"]
        assert 1000 <= entry["density"] <= 7000, entry["id"]
        assert 1 <= len(body(actor).collision_shapes) <= 6, entry["id"]


def test_drop_from_7_cm_settles_flat_within_1_3_seconds(landed):
    for index, actor in enumerate(landed[1]):
        upright = actor.pose.to_transformation_matrix()[2, 2]
        assert upright > np.cos(np.radians(0.5)), actor.name
        np.testing.assert_allclose(actor.pose.p, spot(index), atol=0.003, err_msg=actor.name)
        assert np.linalg.norm(body(actor).linear_velocity) < 1e-3, actor.name
        assert np.linalg.norm(body(actor).angular_velocity) < 1e-2, actor.name


def test_small_cube_dropped_on_each_receptacle_rests_on_it(pack):
    scene, actors = drop_all(*pack)
    cubes = []
    for index, actor in enumerate(actors):
        actor.set_pose(sapien.Pose(spot(index)))
        builder = scene.create_actor_builder()
        builder.add_box_collision(half_size=[0.01] * 3, material=physx.PhysxMaterial(1.0, 1.0, 0.0))
        builder.set_initial_pose(sapien.Pose(spot(index) + (0, 0, 0.04)))
        cubes.append(builder.build())
    for _ in range(400):
        scene.step()
    for index, cube in enumerate(cubes):
        surface = receptacles.RECEPTACLES[index].steps[-1][1] / 1000
        np.testing.assert_allclose(
            cube.pose.p - spot(index), [0, 0.0, surface + 0.01], atol=0.0015, err_msg=actors[index].name
        )
