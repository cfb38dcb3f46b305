"""The effects with levels: what is drawn, and what each does in the simulator, by hand-worked numbers."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from sim import CAMERA, STILL, environment, image, poses, simple_spec

from vla_gen_bench.envs.compositing import load_image
from vla_gen_bench.envs.effects.actuation import Latency
from vla_gen_bench.envs.effects.camera import homography, table_image
from vla_gen_bench.envs.effects.random_numbers import normal_bank, uniform
from vla_gen_bench.envs.effects.scene_changes import irradiance
from vla_gen_bench.envs.effects.sensor import Blur, FrameDrop, Occlusion, SensorNoise
from vla_gen_bench.envs.effects.setup import STANDARD, CameraSetup, LightSetup, SceneSetup
from vla_gen_bench.episodes.draw import draw
from vla_gen_bench.episodes.effects import built_in_effects, find_effect
from vla_gen_bench.episodes.shift import Scenario, Shift
from vla_gen_bench.episodes.spec import Effect

LEVELLED = [name for name, effect in built_in_effects().items() if effect.levels]
MOVE = np.array([0.01, 0, 0, 0, 0, 0, 1], np.float32)


def drawn(name, level, index=0):
    """Returns the params of an effect at a level in episode `index`."""
    shift = Shift.parse({"effects": [{"name": name, "level": level}]})
    row = Scenario(id=name, label=name, dimension="vision", shift=shift)
    return draw(row, "builtin", 0, index).effects[0].params


def numbers(value):
    """Flattens params into their numbers."""
    if isinstance(value, dict):
        return [n for key in sorted(value) for n in numbers(value[key])]
    return [n for item in value for n in numbers(item)] if isinstance(value, list) else [value]


@lru_cache(maxsize=None)
def played(name=None, steps=0, **params):
    """Returns the last image and state after `steps` equal actions."""
    effects = (Effect(name=name, params=dict(params)),) if name else ()
    return play(effects, steps)


def play(effects, steps):
    env = environment()
    observation, _ = env.reset(options={"spec": simple_spec(effects=effects)})
    for _ in range(steps):
        observation = env.step(MOVE)[0]
    return image(observation).astype(int), poses(env)


# ---- what is drawn ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEVELLED)
def test_levels_lie_in_range_and_share_their_draw(name):
    effect = find_effect(name)
    assert all(len(values) == 5 for values in effect.levels.values.values()) and len(effect.levels.reason) > 20
    for severity, values in effect.levels.values.items():
        number = effect.severities[severity]
        assert all(number.low <= value <= number.high for value in values) and len(set(values)) == 5
    one, five = (numbers(drawn(name, level)) for level in (1, 5))
    assert len(one) == len(five) and one != five
    assert numbers(drawn(name, 5)) == five


def test_a_higher_level_moves_the_camera_further_the_same_way():
    one, five = (np.array(drawn("camera_position", level)["offset"]) for level in (1, 5))
    assert np.linalg.norm(one) == pytest.approx(0.02) and np.linalg.norm(five) == pytest.approx(0.12)
    np.testing.assert_allclose(five, one * 6, atol=1e-10)
    assert len({tuple(drawn("camera_position", 1, index)["offset"]) for index in range(20)}) == 20


def test_directions_are_spread_over_the_sphere():
    ways = np.array([drawn("camera_rotation", 3, index)["rotation"] for index in range(400)]) / np.radians(4)
    np.testing.assert_allclose(np.linalg.norm(ways, axis=1), 1, atol=1e-9)
    assert np.abs(ways.mean(0)).max() < 0.1 and np.abs((ways**2).mean(0) - 1 / 3).max() < 0.05


def test_the_seed_of_an_effect_does_not_depend_on_its_level():
    assert drawn("sensor_noise", 1)["seed"] == drawn("sensor_noise", 5)["seed"] != drawn("sensor_noise", 1, 1)["seed"]


# ---- camera and light ------------------------------------------------------------------------------------------


def test_the_painted_table_of_a_moved_camera_is_the_warped_one_where_both_show_the_top():
    """Two independent ways to the same image: painting it again, and the homography of the table's plane."""
    env = environment("builtin", "none")
    camera = CameraSetup(position=(0.02, -0.13, 0.39), zoom=1.05)
    table = "cutting_mat_bench"
    painted = table_image(env.pack, table, SceneSetup(camera=camera), (480, 640)).numpy().astype(float)
    import cv2

    plain = load_image(env.pack.path(env.pack.catalog.get("tables", table).image), 640, 480).numpy()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(plain, homography(camera, STANDARD.camera), (640, 480), flags=flags).astype(float)
    middle = np.s_[200:340, 220:420]  # on the mat in both
    assert np.abs(painted[middle] - warped[middle]).mean() < 8  # gloss and vignetting move with the camera
    shifted = np.roll(painted, 3, axis=1)
    assert np.abs(shifted[middle] - warped[middle]).mean() > 1.5 * np.abs(painted[middle] - warped[middle]).mean()


def test_a_zoomed_camera_has_the_longer_focal_length():
    env = environment()
    played("camera_zoom", zoom=1.25)
    matrix = env.get_sensor_params()[CAMERA]["intrinsic_cv"][0].numpy()
    assert matrix[0, 0] == pytest.approx(623.588 / 2 * 1.25, rel=1e-5) and matrix[1, 1] == matrix[0, 0]


def test_irradiance_adds_light_by_the_cosine():
    """Ambient 0.3 and a light of 2 tilted by 60 degrees: 0.3 + 2 * 0.5; one from below adds nothing."""
    lights = (LightSetup((np.sin(np.radians(60)), 0, -0.5), (2, 2, 2)), LightSetup((0, 0, 1), (9, 9, 9)))
    assert irradiance((0.3, 0.3, 0.3), lights) == pytest.approx([1.3, 1.3, 1.3])


def test_half_the_light_darkens_table_and_bodies_alike():
    """Linear light times 1/2 is 0.73 of the 8-bit value: 0.5 ** (1 / 2.2) = 0.7297."""
    plain, dark = played()[0], played("light_intensity", factor=0.5)[0]
    bright = (plain > 100) & (plain < 250)
    assert np.median(dark[bright] / plain[bright]) == pytest.approx(0.7297, abs=0.02)


# ---- bodies ----------------------------------------------------------------------------------------------------


def mass_of_target():
    return environment()._thing("target").actor._bodies[0].mass


def test_a_bodys_size_mass_and_friction_change():
    played()
    mass = mass_of_target()
    play((Effect(name="target_scale", params={"scale": 1.1}),), 0)
    thing = environment()._thing("target")
    assert mass_of_target() == pytest.approx(mass * 1.1**3, rel=1e-4)
    catalog = environment().pack.catalog.get("objects", "carrot")
    assert thing.bodies[0].bbox_max == pytest.approx([value * 1.1 for value in catalog.bbox_max])
    play((Effect(name="target_mass", params={"factor": 3.0}),), 0)
    assert mass_of_target() == pytest.approx(3 * mass, rel=1e-5)
    play((Effect(name="target_friction", params={"coefficient": 0.25}),), 0)
    material = environment()._thing("target").actor._bodies[0].collision_shapes[0].physical_material
    assert material.static_friction == pytest.approx(0.25)
    play((Effect(name="table_friction", params={"coefficient": 0.1}),), 0)
    table = environment()._table._bodies[0].collision_shapes[0].physical_material
    assert table.dynamic_friction == pytest.approx(0.1)
    played.cache_clear()


# ---- actions ---------------------------------------------------------------------------------------------------


def test_latency_holds_still_and_then_repeats_the_past():
    effect = Latency(environment("builtin", "none"), [0], [{"steps": 2}])
    sent = [torch.full((1, 7), float(step)) for step in range(1, 5)]
    done = [effect.apply(action, torch.tensor([step]))[0].tolist() for step, action in enumerate(sent, 1)]
    assert done == [[0] * 6 + [1], [0] * 6 + [1], [1.0] * 7, [2.0] * 7]


def test_a_gain_of_one_and_a_half_moves_the_target_pose_half_as_far_again():
    def target_x():
        return float(environment().agent.controller.controllers["arm"]._target_pose.p[0, 0])

    start = (play((), 0), target_x())[1]
    plain = (play((), 2), target_x())[1] - start
    more = (play((Effect(name="action_gain", params={"gain": 1.5}),), 2), target_x())[1] - start
    assert plain == pytest.approx(0.02, abs=1e-5) and more == pytest.approx(0.03, abs=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_latency_does_not_hide_an_action_that_is_not_finite(value):
    env = environment("builtin", "none")
    env.reset(options={"spec": simple_spec(effects=(Effect(name="latency", params={"steps": 3}),))})
    with pytest.raises(ValueError, match="the action is not finite"):
        env.step(np.full(7, value, np.float32))


def test_action_noise_is_that_of_the_seed():
    def after(seed):
        return play((Effect(name="action_noise", params={"seed": seed, "metres": 0.01, "radians": 0.0}),), 3)[1]

    np.testing.assert_array_equal(after(5), after(5))
    assert np.abs(after(5) - after(6)).max() > 1e-3


# ---- sensor ----------------------------------------------------------------------------------------------------


def sensor(kind, **params):
    return kind(environment("builtin", "none"), [0], [params])


GREY = np.full((240, 320, 3), 128, np.uint8)


def test_sensor_noise_has_its_deviation_and_changes_each_step():
    effect = sensor(SensorNoise, sigma=0.08, seed=3)
    first, second = (effect.changed(GREY, 0, step).astype(int) for step in (0, 1))
    assert (first - 128).std() == pytest.approx(0.08 * 255, rel=0.02) and abs((first - 128).mean()) < 0.3
    assert np.abs(first - second).mean() > 10
    np.testing.assert_array_equal(effect.changed(GREY, 0, 1).astype(int), second)


def test_cameras_have_noise_of_their_own():
    """A policy with two cameras could subtract noise that they share."""
    effect = sensor(SensorNoise, sigma=0.08, seed=3)
    outside = effect.changed(GREY, 0, 1).astype(float)
    effect._env.viewed_by = "wrist"
    inside = effect.changed(GREY, 0, 1).astype(float)
    effect._env.viewed_by = "external"
    assert abs(np.corrcoef(outside.ravel(), inside.ravel())[0, 1]) < 0.02
    assert inside.std() == pytest.approx(outside.std(), rel=0.02)


def test_noise_of_a_large_image():
    """More numbers than the bank of 2^20 has: every pixel is disturbed by as much."""
    large = np.full((700, 700, 3), 128, np.uint8)
    first, second = (sensor(SensorNoise, sigma=0.08, seed=3).changed(large, 0, step).astype(int) for step in (0, 1))
    assert first.shape == large.shape and np.abs(first - second).mean() > 10
    assert (first - 128).std() == pytest.approx(0.08 * 255, rel=0.02)


def test_random_numbers_never_change():
    assert uniform(1, 2, 3) == pytest.approx([0.0544608, 0.1537670, 0.7886456], abs=1e-6)
    bank = normal_bank()
    assert (float(bank.mean()), float(bank.std())) == pytest.approx((0, 1), abs=3e-3)
    assert bank[:3] == pytest.approx([-1.544318, -1.448583, 0.033097], abs=1e-5)


@pytest.mark.parametrize("pixels", [1.0, 4.0])
def test_blur_spreads_a_point_by_its_sigma(pixels):
    point = np.zeros((240, 320, 3), np.uint8)
    point[100:141, 160] = 255  # a line: its profile is the kernel's
    profile = sensor(Blur, sigma=pixels / 320).changed(point, 0, 0)[120, :, 0].astype(float)
    x = np.arange(320) - 160
    assert np.sqrt((profile * x**2).sum() / profile.sum()) == pytest.approx(pixels, rel=0.15)


def test_occlusion_covers_its_share():
    effect = sensor(Occlusion, area=0.1, centre=[0.5, 0.5], grey=114)
    covered = (effect.changed(GREY, 0, 0) == 114).all(2)
    assert covered.mean() == pytest.approx(0.1, rel=0.02) and covered[120, 160]
    assert (GREY == 128).all()


@pytest.mark.parametrize("centre", [[0.25, 0.25], [0.75, 0.5], [0.25, 0.75]])
def test_a_large_patch_keeps_its_share(centre):
    """Moved inwards where it would reach beyond the image."""
    patch = sensor(Occlusion, area=0.5, centre=centre, grey=114).changed(GREY, 0, 0) == 114
    assert patch.all(2).mean() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(
    "other", [{"name": "sensor_noise", "params": {"sigma": 0.1, "seed": 5}}, {"name": "black_image", "params": {}}]
)
def test_a_lost_frame_repeats_what_was_delivered_whatever_the_order_of_the_effects(other):
    drop = Effect(name="frame_drop", params={"share": 0.6, "seed": 4})
    env, seen = environment("builtin", "rgb"), []
    for effects in ((drop, Effect(**other)), (Effect(**other), drop)):
        images = [image(env.reset(options={"spec": simple_spec(effects=effects)})[0]).copy()]
        seen.append(images + [image(env.step(MOVE)[0]).copy() for _ in range(8)])
    np.testing.assert_array_equal(*seen)
    lost = [step for step in range(1, 9) if sensor(FrameDrop, share=0.6, seed=4).lost(0, step)]
    assert 2 <= len(lost) <= 7
    for step in lost:
        np.testing.assert_array_equal(seen[0][step], seen[0][step - 1])


def test_a_frozen_image_is_the_first_one_also_if_nobody_looked_then():
    env = environment("builtin", "rgb")
    first = image(env.reset(options={"spec": simple_spec()})[0]).copy()
    env.draws = False
    env.reset(options={"spec": simple_spec(effects=(Effect(name="frozen_image"),))})
    [env.step(MOVE) for _ in range(3)]
    env.draws = True
    np.testing.assert_array_equal(image(env.step(MOVE)[0]), first)
    np.testing.assert_array_equal(env.render_rgb_array()[0].numpy(), first)


def test_lost_frames_repeat_the_last_delivered_one():
    effect = sensor(FrameDrop, share=0.5, seed=11)
    frames = [np.full((2, 2, 3), step, np.uint8) for step in range(40)]
    shown = [int(effect.changed(frame, 0, step)[0, 0, 0]) for step, frame in enumerate(frames)]
    lost = [step for step in range(40) if effect.lost(0, step)]
    assert shown[0] == 0 and 8 < len(lost) < 32
    assert all(shown[step] == (shown[step - 1] if step in lost else step) for step in range(1, 40))


def test_what_a_policy_sees_of_lost_frames_does_not_depend_on_which_steps_are_drawn():
    """Every fourth frame looked at, as a policy with chunks of four does, or every one, as a video does."""
    env, effects = environment("builtin", "rgb"), (Effect(name="frame_drop", params={"share": 0.6, "seed": 4}),)

    def looks(every):
        env.reset(options={"spec": simple_spec(effects=effects)})
        seen = []
        for step in range(1, 13):
            env.draws = step % every == 0
            observation = env.step(MOVE)[0]
            env.draws = True
            if step % 4 == 0:
                seen.append(image(observation).copy())
        return seen

    for some, every in zip(looks(4), looks(1), strict=True):
        np.testing.assert_array_equal(some, every)


def test_no_image_and_a_frozen_one():
    assert not played("black_image")[0].any()
    np.testing.assert_array_equal(played("frozen_image", 3)[0], played()[0])
    assert not np.array_equal(played(None, 3)[0], played()[0])


def test_a_policy_without_state_measures_zeros():
    from vla_gen_bench.envs.proprioception import robot_states

    play((), 0)
    assert robot_states(environment()).any()
    play((Effect(name="no_state"),), 0)
    assert robot_states(environment()).shape == (1, 17) and not robot_states(environment()).any()
    np.testing.assert_array_equal(played("no_state")[0], played()[0])


def test_only_the_target_is_coloured():
    plain, red = played()[0], played("target_colour", gain=(3.0, 0.0, 0.0))[0]
    mask = environment().role_mask(environment().segmentation, "target")[0].numpy()
    np.testing.assert_array_equal(red[~mask], plain[~mask])
    assert not red[mask][:, 1:].any() and mask.sum() > 50


@pytest.mark.parametrize("name", LEVELLED)
def test_an_episode_with_the_effect_is_reproducible_and_differs_from_ind(name):
    """Image or state: what the effect touches; level 0 is IND."""
    params = drawn(name, 5)
    first, again, plain = (
        play((Effect(name=name, params=params),), 4),
        play((Effect(name=name, params=params),), 4),
        play((), 4),
    )
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    touches_image_alone = find_effect(name).kind == "image" or name.startswith(("camera", "light"))
    if touches_image_alone:
        np.testing.assert_array_equal(first[1], plain[1])
        assert not np.array_equal(first[0], plain[0]) or name == "frame_drop"
    elif name != "table_friction":  # nothing slides in these four steps
        assert not np.array_equal(first[1], plain[1])


def test_a_pushed_object_slides_further_on_a_slippery_table():
    def slide(*effects):
        play(effects, 0)
        target = environment()._thing("target").actor
        start, velocity = target.pose.p[0].clone(), target.linear_velocity.clone()
        velocity[0, 0] = -0.5
        target.set_linear_velocity(velocity)
        environment().step(STILL)
        return float((target.pose.p[0] - start).norm())

    ice, rubber = (Effect(name="table_friction", params={"coefficient": value}) for value in (0.05, 1.0))
    assert slide(ice) > slide() > slide(rubber) > 0.005
