"""Shadows of the main light, against rays traced through the bodies' collision pieces."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from sim import environment, image, simple_spec

from vla_gen_bench.assets.builtin import tables
from vla_gen_bench.envs.cameras import TABLE_TOP_M, table_homography
from vla_gen_bench.envs.effects.shadows import TABLE, Window, pinhole
from vla_gen_bench.envs.pick_place import PickPlaceEnv
from vla_gen_bench.episodes.spec import Effect

FULL = Effect(name="light_shadow", params={"share": 1.0})
SLANTED = Effect(name="light_direction", params={"direction": [0.5, 0.3, -0.812]})
OTHERS = 0.3 + 0.7 / 1.5 + 0.7 / 3**0.5  # light on a horizontal surface without the main light of 2.2
# factor on a pixel in full shadow
DARK, SLANTED_DARK = ((OTHERS / (OTHERS + 2.2 * cosine)) ** (1 / 2.2) for cosine in (1, 0.812))
UNDER_THE_GRIPPER = (-0.13, 0.03, 0.95)


def seen(*effects, env=None, steps=3):
    """Returns the environment and its image, float [H, W, 3], after a few steps down."""
    env = env or environment()
    spec = simple_spec(effects=effects, target=simple_spec().target.model_copy(update={"position": UNDER_THE_GRIPPER}))
    observation, _ = env.reset(options={"spec": spec})
    for _ in range(steps):
        observation = env.step(np.array([0, 0, -0.02, 0, 0, 0, 1], np.float32))[0]
    return env, image(observation).astype(float)


def pieces(env, of=None):
    """Yields the vertices, world frame, of each convex piece of the robot and the things, or of the things in `of`."""
    bodies = [thing.actor for thing in env.things if of is None or thing.role in of]
    bodies += [] if of is not None else list(env.agent.robot.links)
    for body in bodies:
        pose = body.pose.sp.to_transformation_matrix()
        for shape in body._bodies[0].collision_shapes:
            local = shape.local_pose.to_transformation_matrix()
            points = np.column_stack([shape.vertices * shape.scale, np.ones(len(shape.vertices))])
            yield (points @ local.T @ pose.T)[:, :3]


def blocked(points, towards, bodies):
    """Returns whether the ray from each point [N, 3] towards the light meets a piece: clipped by all its faces."""
    met = np.zeros(len(points), bool)
    for vertices in bodies:
        faces = ConvexHull(vertices).equations
        start, along = points @ faces[:, :3].T + faces[:, 3], faces[:, :3] @ towards
        at = -start / np.where(along == 0, 1e-12, along)
        enter = np.where(along < 0, at, np.where((along == 0) & (start > 0), np.inf, -np.inf)).max(1)
        leave = np.where(along > 0, at, np.inf).min(1)
        met |= (leave > np.maximum(enter, 0)) & (leave > 1e-6)
    return met


def on_the_table(env, towards):
    """Returns pixels (row, column) of the table's top that are safely inside a shadow, and safely outside."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(-0.42, 0, 0.004), np.arange(-0.15, 0.3, 0.004)))
    bodies, steps = list(pieces(env)), (-0.018, -0.009, 0, 0.009, 0.018)  # an edge is 15 mm wide
    around = [(a, b) for a in steps for b in steps]
    each = [blocked(np.column_stack([x + a, y + b, np.full(len(x), TABLE_TOP_M)]), towards, bodies) for a, b in around]
    column, row = (tables.project(np.column_stack([x, y, np.full(len(x), TABLE_TOP_M)])) / 2).T
    visible = (column > 0) & (column < 320) & (row > 0) & (row < 240)
    outline = next(table for table in tables.TABLES if table.id == env.specs[0].table)
    visible &= tables.distance(outline, x, y) < -0.02
    pixel = np.column_stack([row, column])[visible].astype(int)
    free = ~env.foreground(env.segmentation)[0].numpy()[tuple(pixel.T)]
    near = [met for met, (a, b) in zip(each, around, strict=True) if max(abs(a), abs(b)) < 0.01]
    inside, outside = np.all(near, 0)[visible] & free, ~np.any(each, 0)[visible] & free
    return tuple(pixel[inside].T), tuple(pixel[outside].T)


@pytest.mark.parametrize("effects, expected", [((FULL,), DARK), ((FULL, SLANTED), SLANTED_DARK)], ids=["above", "side"])
def test_the_table_is_dark_exactly_where_bodies_hide_the_light(effects, expected):
    _, plain = seen(*effects[1:])
    env, dark = seen(*effects)
    inside, outside = on_the_table(env, -np.array(env.setups[0].lights[0].direction, float))
    assert len(inside[0]) > 80 and len(outside[0]) > 1000
    assert np.abs(dark[outside] - plain[outside]).max() <= 1
    bright = plain[inside] > 60
    assert np.median(dark[inside][bright] / plain[inside][bright]) == pytest.approx(expected, abs=0.02)
    assert (dark[inside][bright] < 0.8 * plain[inside][bright]).mean() > 0.99


def test_an_object_under_the_gripper_is_in_its_shadow_and_the_robot_in_none():
    _, plain = seen()
    env, dark = seen(FULL)
    robot, target, plate = (
        env.role_mask(env.segmentation, role)[0].numpy() for role in ("robot", "target", "receptacle")
    )
    np.testing.assert_array_equal(dark[robot], plain[robot])
    assert (dark[target].sum() / plain[target].sum()) < 0.8
    assert (dark[plate] == plain[plate]).mean() > 0.5  # only its part below the arm is dark


def test_a_thing_does_not_shade_itself():
    """A light so low that the bottle's own pieces would darken it; the robot is far above."""
    low = Effect(name="light_direction", params={"direction": [0.0, 0.97, -0.24]})
    _, plain = seen(low, steps=0)
    env, dark = seen(low, FULL, steps=0)
    target = env.role_mask(env.segmentation, "target")[0].numpy()
    np.testing.assert_array_equal(dark[target], plain[target])
    assert (dark < plain).any()


def test_the_share_sets_the_depth_and_the_order_of_effects_does_not_matter():
    _, plain = seen()
    _, full = seen(FULL)
    _, half = seen(Effect(name="light_shadow", params={"share": 0.5}))
    core = (full < 0.65 * plain).all(2) & (plain > 60).all(2)
    expected = (1 - 0.5 * (1 - DARK**2.2)) ** (1 / 2.2)
    assert core.sum() > 300 and np.median(half[core] / plain[core]) == pytest.approx(expected, abs=0.01)
    np.testing.assert_array_equal(seen(FULL, SLANTED)[1], seen(SLANTED, FULL)[1])
    np.testing.assert_array_equal(seen(Effect(name="light_shadow", params={"share": 0.0}))[1], plain)


def test_light_from_below_casts_nothing():
    up = Effect(name="light_direction", params={"direction": [0.0, 0.6, 0.8]})
    np.testing.assert_array_equal(seen(up, FULL)[1], seen(up)[1])


def test_both_cameras_see_the_same_shadow():
    env = PickPlaceEnv(cameras=("external", "wrist"), obs_mode="rgb+segmentation")
    views = []
    for effects in ((), (FULL,)):
        spec = simple_spec(effects=effects)
        views.append(env.reset(options={"spec": spec})[0]["sensor_data"])
    ratios = {}
    for uid in ("3rd_view_camera", "wrist_camera"):
        plain, dark = (view[uid]["rgb"][0].numpy().astype(float).sum(2) for view in views)
        ratios[uid] = np.where(env.foreground(views[1][uid]["segmentation"])[0].numpy(), np.nan, dark / (plain + 1e-9))
    link = env.agent.robot.links_map["gripper_link"].pose.raw_pose[0].numpy().astype(float)
    mapping, horizon = table_homography(link, 320, 240)
    y, x = (axis.ravel() for axis in np.mgrid[0:240, 0:320])
    pixels = np.stack([x, y, np.ones_like(x)]).astype(float)
    there = mapping @ pixels
    column, row = np.rint(there[:2] / there[2]).astype(int)
    both = (there[2] > 0) & (horizon @ pixels > 0) & (column >= 0) & (column < 320) & (row >= 0) & (row < 240)
    ours, theirs = ratios["wrist_camera"][y[both], x[both]], ratios["3rd_view_camera"][row[both], column[both]]
    known = ~np.isnan(ours) & ~np.isnan(theirs)
    dark = theirs[known] < 0.7
    assert known.sum() > 2000 and 100 < dark.sum() < known.sum() - 100
    assert ((ours[known] < 0.8) == (theirs[known] < 0.8)).mean() > 0.95
    env.close()


def test_a_pixel_meets_the_plane_where_the_projection_says():
    """A pinhole 1 m above the table that looks straight down: 100 pixels a metre, the optical axis at (50, 40)."""
    down = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # forward is -z, left y, up x
    matrix = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    view = pinhole(np.array([0.2, 0.1, 1.87]), down, matrix)
    for height, size in ((0.87, 1.0), (1.37, 0.5)):
        x, y, fall = view.to_plane(height) @ [59.5, 34.5, 1]  # 10 pixels right and 5 up of the axis
        assert fall > 0 and (x / fall, y / fall) == pytest.approx((0.2 + 0.05 * size, 0.1 - 0.1 * size))
    up = pinhole(np.array([0.0, 0, 1]), down * [-1, 1, -1], matrix)
    assert (up.to_plane(0.87) @ [50, 40, 1])[2] < 0


def test_a_window_counts_cells_from_its_corner():
    window = Window(x=0.1, y=-0.2, half=0.05, z=1.0)
    assert window.cells == 20 and window.to_cells() @ [0.1, -0.2, 1] == pytest.approx([9.5, 9.5, 1])
    assert TABLE.cells == 240
