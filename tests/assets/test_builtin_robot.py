"""The built-in WidowX-250S: real kinematics and masses, our own shape, a gripper that holds things.

Comparisons with the real robot need the shared folder (environment variable VGB_SHARED, default ../shared beside the
repository) and are skipped without it.
"""

import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("LP_NUM_THREADS", "1")
sapien = pytest.importorskip("sapien")

from vla_gen_bench.assets.builtin import meshkit, robot  # noqa: E402
from vla_gen_bench.assets.builtin.robot_hulls import HULLS  # noqa: E402
from vla_gen_bench.assets.builtin.robot_shapes import VISUALS  # noqa: E402

SHARED = Path(os.environ.get("VGB_SHARED", Path(__file__).parents[3] / "shared"))
REAL_URDF = SHARED / "assets" / "widowx250s" / "wx250s.urdf"
needs_real = pytest.mark.skipif(not REAL_URDF.exists(), reason=f"needs the real robot description: {REAL_URDF}")

HOME = np.array([-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398, 0.037, 0.037])
STIFFNESS = (1169.7892, 730.0, 808.4601, 1229.1299, 1272.276, 1056.3327, 1000.0, 1000.0)
DAMPING = (330.0, 180.0, 152.1204, 309.6215, 201.05, 269.5146, 200.0, 200.0)
FORCE = (200, 200, 100, 100, 100, 100, 60, 60)
CLOSED_M = 0.014  # the gripper controller's closed target: 1 mm beyond the joint limit


@pytest.fixture(scope="module")
def urdf(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pack")
    return root / robot.write_robot(root)["urdf"]


def new_scene():
    scene = sapien.Scene([sapien.physx.PhysxCpuSystem(), sapien.render.RenderSystem()])
    scene.set_timestep(1 / 500)
    return scene


def load(scene, path: Path):
    loader = scene.create_urdf_loader()
    loader.fix_root_link = True
    arm = loader.load(str(path))
    arm.set_qpos(HOME)
    for link in arm.links:
        link.disable_gravity = True  # as ManiSkill's controllers balance passive forces
    for joint, *gains in zip(arm.active_joints, STIFFNESS, DAMPING, FORCE):
        joint.set_drive_properties(*gains, mode="force")
    return arm


def drive(scene, arm, target, seconds: float) -> None:
    for joint, value in zip(arm.active_joints, target):
        joint.set_drive_target(float(value))
    for _ in range(round(seconds * 500)):
        scene.step()


def link_named(arm, name: str):
    return next(link for link in arm.links if link.name == name)


def test_same_bytes_on_every_write(tmp_path):
    for folder in ("one", "two"):
        robot.write_robot(tmp_path / folder)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 2 + len(VISUALS) + len(HULLS)
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_whole_robot_stays_within_2500_triangles():
    assert sum(len(part.mesh.faces) for make in VISUALS.values() for part in make()) <= 2500


@pytest.mark.parametrize("name", HULLS)
def test_hull_has_at_most_32_corners(name):
    assert len(meshkit.hull(HULLS[name]())[0]) <= 32


@pytest.mark.parametrize("name", sorted(set(VISUALS) & set(HULLS)))
def test_hull_covers_what_is_visible(name):
    """Extents differ by at most 2.5 mm: round discs become polygons, bolts and horns are left out."""
    low, high = meshkit.bounds([part.mesh for part in VISUALS[name]()])
    hull = HULLS[name]()
    assert np.abs(np.array([hull.min(0) - low, hull.max(0) - high])).max() < 2.5


def test_tool_point_at_the_episode_start(urdf):
    """Reach: 0.04975 + 0.175 + 0.075 m of arm bent by the elbow, 0.065 + 0.0936 m of wrist pointing down."""
    scene = new_scene()  # kept: the links die with it
    arm = load(scene, urdf)
    np.testing.assert_allclose(link_named(arm, "ee_gripper_link").entity_pose.p, [0.2921, -0.0061, 0.1353], atol=1e-3)


def test_straight_arm_sums_the_joint_origins(urdf):
    """All angles 0: x = 0.04975 + 0.175 + 0.075 + 0.065 + 0.043 + 0.023 + 0.027575, z = 0.072 + 0.03865 + 0.25."""
    scene = new_scene()  # kept: the links die with it
    arm = load(scene, urdf)
    arm.set_qpos([0, 0, 0, 0, 0, 0, 0.037, 0.037])
    np.testing.assert_allclose(link_named(arm, "ee_gripper_link").entity_pose.p, [0.458325, 0, 0.36065], atol=1e-6)


def pad_gap(joint_m: float, x_m: float) -> float:
    """Free space between the two finger hulls on the gripper axis, x metres beyond fingers_link."""
    from scipy.spatial import ConvexHull

    inner = []
    for name, pick in (("left_finger_link", max), ("right_finger_link", min)):
        planes = ConvexHull(HULLS[name]() / 1000).equations
        sign = 1 if pick is max else -1
        facing = planes[sign * planes[:, 1] < -1e-6]  # faces towards the other finger
        inner.append(pick(-(facing[:, 0] * x_m + facing[:, 3]) / facing[:, 1]))
    return 2 * joint_m + inner[0] - inner[1]


@pytest.mark.parametrize(
    "joint_m, x_m, gap_m",
    [
        (0.037, 0.0, 0.0520),  # two 11 mm pads with buttons: 74 - 22
        (0.037, 0.043, 0.0561),  # at the tips the pads are 8.95 mm thick: 74 - 17.9
        (0.015, 0.0, 0.0080),
        (0.015, 0.027575, 0.01055),  # at the tool point, as measured on the real hulls
    ],
)
def test_gripper_gap_equals_the_real_one(joint_m, x_m, gap_m):
    assert pad_gap(joint_m, x_m) == pytest.approx(gap_m, abs=2e-4)


def test_gripper_bar_stays_clear_of_what_the_tips_touch():
    """The bar's lowest face lies at 28.5 - 23 = 5.5 mm, the tips at 43.15 mm: 37.6 mm of finger below the bar."""
    bar, tip = HULLS["gripper_bar_link"]()[:, 0].max() - 23, HULLS["left_finger_link"]()[:, 0].max()
    assert tip - bar >= 37.5


def test_grasped_box_stays_in_the_lifted_hand(urdf):
    scene = new_scene()
    arm = load(scene, urdf)
    tool = link_named(arm, "ee_gripper_link")
    box = scene.create_actor_builder()
    box.add_box_collision(half_size=[0.015] * 3, material=sapien.physx.PhysxMaterial(1, 1, 0), density=0.030 / 0.03**3)
    box.set_initial_pose(sapien.Pose(tool.entity_pose.p))
    box = box.build()
    post = scene.create_actor_builder()
    post.add_box_collision(half_size=[0.004, 0.004, 0.05])
    post.set_initial_pose(sapien.Pose(tool.entity_pose.p - [0, 0, 0.065]))
    post.build_static()
    closed = np.r_[HOME[:6], CLOSED_M, CLOSED_M]
    drive(scene, arm, closed, seconds=0.6)
    held, height = tool.entity_pose.inv() * box.pose, box.pose.p[2]
    drive(scene, arm, closed - [0, 0.4, 0, 0, 0, 0, 0, 0], seconds=1.6)
    assert box.pose.p[2] - height > 0.08
    assert np.linalg.norm((tool.entity_pose.inv() * box.pose).p - held.p) < 0.003


def test_free_motion_makes_no_self_contact(urdf):
    scene, random = new_scene(), np.random.default_rng(0)
    arm = load(scene, urdf)
    limits = arm.get_qlimits()
    for _ in range(20):
        target = np.clip(HOME + np.r_[random.uniform(-0.6, 0.6, 6), 0, 0], *limits.T)
        target[6:] = random.uniform(0.014, 0.038)
        drive(scene, arm, target, seconds=0.2)
        touching = [c for c in scene.get_contacts() if any(point.separation < 0 for point in c.points)]
        assert not touching, [body.entity.name for body in touching[0].bodies]


@needs_real
def test_every_link_moves_as_on_the_real_robot(urdf):
    scene, random = new_scene(), np.random.default_rng(0)
    ours, real = load(scene, urdf), load(scene, REAL_URDF)
    assert [j.name for j in ours.active_joints] == [j.name for j in real.active_joints]
    np.testing.assert_array_equal(ours.get_qlimits(), real.get_qlimits())
    for qpos in random.uniform(*real.get_qlimits().T, size=(20, 8)):
        ours.set_qpos(qpos), real.set_qpos(qpos)
        for link in real.links:
            difference = link.entity_pose.inv() * link_named(ours, link.name).entity_pose
            assert np.abs(difference.p).max() < 1e-6 and np.abs(difference.q[1:]).max() < 1e-6, link.name


@needs_real
def test_masses_and_collision_groups_equal_the_real_robots(urdf):
    scene = new_scene()
    ours, real = load(scene, urdf), load(scene, REAL_URDF)
    for link in real.links:
        twin = link_named(ours, link.name)
        np.testing.assert_allclose(twin.mass, link.mass, rtol=1e-6, err_msg=link.name)
        np.testing.assert_allclose(twin.inertia, link.inertia, rtol=1e-6, err_msg=link.name)
        np.testing.assert_allclose(twin.cmass_local_pose.p, link.cmass_local_pose.p, atol=1e-7, err_msg=link.name)
        assert [s.collision_groups for s in twin.collision_shapes] == [
            s.collision_groups for s in link.collision_shapes
        ]


@needs_real
def test_drives_move_it_like_the_real_robot(urdf):
    target = HOME + [0.4, -0.3, 0.3, 0.2, -0.5, 0.6, -0.015, -0.015]
    ends = []
    for path in (urdf, REAL_URDF):
        scene = new_scene()
        arm = load(scene, path)
        drive(scene, arm, target, seconds=0.5)
        ends.append(arm.get_qpos())
    assert np.abs(ends[0] - HOME).max() > 0.1
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-5)
