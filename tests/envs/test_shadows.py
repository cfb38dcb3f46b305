"""Shadows of the main light, against rays traced through the bodies' collision pieces."""

import os

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from sim import CAMERA, environment, image, simple_spec, spec_of

from vla_gen_bench.assets.builtin import tables
from vla_gen_bench.envs.cameras import TABLE_TOP_M, table_homography
from vla_gen_bench.envs.effects.setup import LightSetup, SceneSetup
from vla_gen_bench.envs.effects.shadows import TABLE, Scene, Window, pinhole
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
    bodies, steps = list(pieces(env)), (-0.008, -0.004, 0, 0.004, 0.008)  # an edge is 10 mm wide
    around = [(a, b) for a in steps for b in steps]
    each = [blocked(np.column_stack([x + a, y + b, np.full(len(x), TABLE_TOP_M)]), towards, bodies) for a, b in around]
    column, row = (tables.project(np.column_stack([x, y, np.full(len(x), TABLE_TOP_M)])) / 2).T
    visible = (column > 0) & (column < 320) & (row > 0) & (row < 240)
    outline = tables.named(env.specs[0].table)
    visible &= tables.distance(outline, x, y) < -0.02
    pixel = np.column_stack([row, column])[visible].astype(int)
    free = ~env.foreground(env.segmentation)[0].numpy()[tuple(pixel.T)]
    inside, outside = np.all(each, 0)[visible] & free, ~np.any(each, 0)[visible] & free
    return tuple(pixel[inside].T), tuple(pixel[outside].T)


@pytest.mark.parametrize("effects, expected", [((FULL,), DARK), ((FULL, SLANTED), SLANTED_DARK)], ids=["above", "side"])
def test_the_table_is_dark_exactly_where_bodies_hide_the_light(effects, expected):
    _, plain = seen(*effects[1:])
    env, dark = seen(*effects)
    inside, outside = on_the_table(env, -np.array(env.setups[0].lights[0].direction, float))
    assert len(inside[0]) > 80 and len(outside[0]) > 1000
    assert (np.abs(dark[outside] - plain[outside]) <= 2).mean() > 0.999
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
    assert np.median(dark[target] / np.maximum(plain[target], 1)) == pytest.approx(DARK, abs=0.03)
    assert 0.5 < (dark[plate] == plain[plate]).mean() < 0.95  # only its part below the arm is dark


def test_floor_and_wall_are_not_shaded_in_a_world_whose_tables_are_known():
    low = Effect(name="light_direction", params={"direction": [-0.6, -0.6, -0.53]})
    _, plain = seen(low)
    env, dark = seen(low, FULL)
    column, row = np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5)
    view = pinhole(*tables.camera_pose()[::-1], env.get_sensor_params()[CAMERA]["intrinsic_cv"][0].numpy())
    x, y, fall = np.tensordot(view.to_plane(TABLE_TOP_M), np.stack([column - 0.5, row - 0.5, np.ones_like(row)]), 1)
    outline = tables.named(env.specs[0].table)
    beyond = (tables.distance(outline, x / fall, y / fall) > 0.01) & ~env.foreground(env.segmentation)[0].numpy()
    assert beyond.sum() > 3000 and (dark[~beyond] < plain[~beyond]).sum() > 1000
    np.testing.assert_array_equal(dark[beyond], plain[beyond])


def box(low, high):
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    return np.asarray(corners, float)


@pytest.mark.parametrize("tall, expected", [((0.03, 0.08), 0), ((-0.08, -0.03), 255)], ids=["behind", "before"])
def test_a_tall_body_shades_a_lower_one_only_if_it_is_on_the_side_of_the_light(tall, expected):
    """Light at 45 degrees towards +x; a 5 cm cube, and a 15 cm box 3 cm from its middle, at the given x."""
    top = TABLE_TOP_M
    low, high = (-0.025, -0.025, top), (0.025, 0.025, top + 0.05)
    pieces = box(low, high), box((tall[0], -0.1, top), (tall[1], 0.1, top + 0.15))
    scene = lit((1, 0, -1), *pieces)
    window = Window(0.0, 0.0, 0.02, top + 0.05)
    shade = scene.shadow(window, scene.casting(window))
    assert shade[3:-3, 3:-3].min() == shade[3:-3, 3:-3].max() == expected


def lit(direction, *boxes):
    scene = Scene(SceneSetup(lights=(LightSetup(direction, (2, 2, 2)),), shadow=1.0), list(enumerate(boxes)))
    scene.move(np.tile([0.0, 0, 0, 1, 0, 0, 0], (len(boxes), 1)))
    return scene


def test_low_light_reaches_a_thing_from_a_body_far_away():
    """3 m sideways for each metre down: a 15 cm box casts its shadow 30 cm far at a height of 5 cm."""
    scene = lit((3, 0, -1), box((-0.25, -0.1, TABLE_TOP_M), (-0.2, 0.1, TABLE_TOP_M + 0.15)))
    for x, expected in ((-0.18, 255), (0.07, 255), (0.13, 0), (-0.29, 0)):
        window = Window(x, 0.0, 0.015, TABLE_TOP_M + 0.05)
        assert scene.shadow(window, scene.casting(window))[3, 3] == expected


def test_the_edge_of_a_shadow_is_a_centimetre_wide_and_lies_on_the_geometric_one():
    """A plate 1 cm high under light from above; its edges lie within cells."""
    scene = lit((0, 0, -1), box((-0.101, -0.1, TABLE_TOP_M), (0.0987, 0.1, TABLE_TOP_M + 0.01)))
    window = Window(0.0, 0.0, 0.15, TABLE_TOP_M)
    row = scene.shadow(window, scene.casting(window))[window.cells // 2].astype(float) / 255
    x = (np.arange(window.cells) + 0.5) * 0.005 - 0.15
    left, right = x < 0, x >= 0

    def place(share, side):
        return np.interp(share, np.sort(row[side]), x[side] if side is left else x[side][::-1])

    assert place(0.5, left) == pytest.approx(-0.101, abs=0.0015)
    assert place(0.5, right) == pytest.approx(0.0987, abs=0.0015)
    assert 0.008 < place(0.95, left) - place(0.05, left) < 0.013


def test_a_tall_object_is_shaded_down_to_its_foot():
    under = simple_spec().target.model_copy(update={"id": "potted_plant", "position": UNDER_THE_GRIPPER})
    views = []
    for effects in ((), (FULL,)):
        observation, _ = environment().reset(options={"spec": simple_spec(effects=effects, target=under)})
        views.append(image(observation).astype(float))
    target = environment().role_mask(environment().segmentation, "target")[0].numpy()
    foot = target & (np.arange(240)[:, None] > np.flatnonzero(target.any(1))[-12])
    assert foot.sum() > 50 and np.median(views[1][foot] / np.maximum(views[0][foot], 1)) < 0.75


def test_a_thing_does_not_shade_itself():
    """A light so low that the carrot's own pieces would darken it; the robot is far above."""
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


def test_the_photographed_world_has_shadows_too(shared_dir):
    os.environ.setdefault("VGB_RL4VLA_DIR", str(shared_dir / "assets"))
    env, views = environment("rl4vla"), []
    for effects in ((), (FULL,)):
        spec = spec_of("multi_object_ind", world="rl4vla").model_copy(update={"effects": effects})
        views.append(image(env.reset(options={"spec": spec})[0]).astype(float))
    plain, dark = views
    robot = env.role_mask(env.segmentation, "robot")[0].numpy()
    np.testing.assert_array_equal(dark[robot], plain[robot])
    shaded = (dark < 0.7 * plain).all(2)
    assert 0.01 < shaded.mean() < 0.3 and np.median(dark[shaded] / plain[shaded]) == pytest.approx(DARK, abs=0.02)


def test_light_from_below_casts_nothing():
    up = Effect(name="light_direction", params={"direction": [0.0, 0.6, 0.8]})
    np.testing.assert_array_equal(seen(up, FULL)[1], seen(up)[1])


@pytest.fixture(scope="module")
def both_cameras():
    env = PickPlaceEnv(cameras=("external", "wrist"), obs_mode="rgb+segmentation")
    yield env
    env.close()


@pytest.mark.parametrize("steps", [0, 4])
def test_both_cameras_see_the_same_shadow(both_cameras, steps):
    env, views = both_cameras, []
    for effects in ((), (FULL,)):
        observation, _ = env.reset(options={"spec": simple_spec(effects=effects)})
        for _ in range(steps):
            observation = env.step(np.array([0.01, 0.02, 0.01, 0, 0, 0, 1], np.float32))[0]
        views.append(observation["sensor_data"])
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
