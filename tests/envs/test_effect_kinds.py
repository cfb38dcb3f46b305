"""One effect of each kind, as a third party writes it, in the simulator: the effects of policies/example_plugin."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sim import CAMERA, STILL, environment, image, poses, simple_spec

from vla_gen_bench.envs.effects.camera import homography
from vla_gen_bench.envs.effects.setup import STANDARD, CameraSetup
from vla_gen_bench.episodes.draw import draw
from vla_gen_bench.episodes.shift import Scenario, Shift
from vla_gen_bench.episodes.spec import Effect

SOURCE = Path(__file__).parents[2] / "policies" / "example_plugin" / "src"
FORWARD = np.array([0.01, 0, 0, 0, 0, 0, 1], np.float32)


@pytest.fixture(autouse=True)
def _on_path(monkeypatch):
    monkeypatch.syspath_prepend(SOURCE)


def named(attribute: str, **severities) -> list[dict]:
    return [{"name": f"vgb_example_policy.effects:{attribute}", **severities}]


def effect(attribute: str, **params) -> tuple[Effect]:
    return (Effect(name=f"vgb_example_policy.effects:{attribute}", params=params),)


def play(spec, action, steps):
    """Returns the environment, its first image and the state after `steps` equal actions."""
    env = environment()
    first = image(env.reset(options={"spec": spec})[0])
    for _ in range(steps):
        env.step(action)
    return env, first, poses(env)


def test_what_a_plugin_draws_depends_on_the_episode_alone():
    row = Scenario(
        id="far", label="far", dimension="vision", shift=Shift.parse({"effects": named("CAMERA", degrees=8)})
    )
    drawn = [draw(row, "builtin", 0, index).effects[0].params["degrees"] for index in range(20)]
    assert set(drawn) == {-8.0, 8.0}
    assert drawn == [draw(row, "rl4vla", 0, index).effects[0].params["degrees"] for index in range(20)]


def test_a_scene_effect_moves_the_camera():
    """The pixels where the moved camera shows the target's place: projected by hand from the camera's pose."""
    env, plain, _ = play(simple_spec(), STILL, 0)
    still = env.get_sensor_params()[CAMERA]["extrinsic_cv"][0].numpy()
    env, moved, _ = play(simple_spec(effects=effect("CAMERA", degrees=8.0)), STILL, 0)
    turned = env.get_sensor_params()[CAMERA]["extrinsic_cv"][0].numpy()
    positions = [-matrix[:, :3].T @ matrix[:, 3] for matrix in (still, turned)]  # world frame, metres
    pivot = np.array([0.147 - 0.307, 0.028 - 0.028, 0.870])  # the base faces -x: its x and y are turned by 180 degrees
    c, s = np.cos(np.radians(8)), np.sin(np.radians(8))
    expected = pivot + np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ (positions[0] - pivot)
    np.testing.assert_allclose(positions[1], expected, atol=1e-5)
    assert (np.abs(moved.astype(int) - plain).max(2) > 10).mean() > 0.2


def test_a_moved_camera_sees_a_point_of_the_table_where_it_lies():
    """The homography sends the pixel of a point for the moved camera to its pixel for the standard one."""
    moved = replace(STANDARD.camera, position=(0.03, -0.20, 0.40), zoom=1.2)
    for point in ((0.25, 0.1, 0.0), (0.4, -0.05, 0.0)):
        there, here = (project(camera, point) for camera in (moved, STANDARD.camera))
        x, y, w = homography(moved, STANDARD.camera) @ [*there, 1]
        np.testing.assert_allclose([x / w, y / w], here, atol=1e-6)


def project(camera: CameraSetup, point) -> tuple[float, float]:
    """Returns the pixel (column, row) at 640x480; whole numbers are the centres of pixels."""
    w, x, y, z = camera.quaternion
    forward = np.array([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)])
    left = np.array([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)])
    offset = np.array(point) - camera.position
    depth, focal = offset @ forward, 623.588 * camera.zoom
    return (
        319.501 - 0.5 - focal * (offset @ left) / depth,
        239.545 - 0.5 - focal * (offset @ np.cross(forward, left)) / depth,
    )


def test_an_action_effect_changes_what_is_carried_out():
    still = play(simple_spec(), STILL, 3)[2]
    np.testing.assert_array_equal(play(simple_spec(effects=effect("DEADBAND", metres=0.02)), FORWARD, 3)[2], still)
    assert np.abs(play(simple_spec(effects=effect("DEADBAND", metres=0.005)), FORWARD, 3)[2] - still).max() > 0.005


def test_an_action_effect_leaves_the_callers_action_alone():
    action = FORWARD.copy()
    play(simple_spec(effects=effect("DEADBAND", metres=0.02)), action, 1)
    np.testing.assert_array_equal(action, FORWARD)


def test_a_state_effect_changes_the_state_at_its_step():
    before, after = (play(simple_spec(), STILL, steps)[2] for steps in (2, 3))
    nudged = effect("NUDGE", step=2, speed=0.5)
    np.testing.assert_array_equal(play(simple_spec(effects=nudged), STILL, 2)[2], before)
    moved = play(simple_spec(effects=nudged), STILL, 3)[2] - after
    assert moved[9] > 0.01  # y of the target: 8 joints, then x, y


def test_an_image_effect_changes_the_image():
    plain = play(simple_spec(), STILL, 0)[1]
    striped = play(simple_spec(effects=effect("STRIPES", every=8, seed=11)), STILL, 0)[1]
    assert not striped[3::8].any()
    rest = np.arange(240) % 8 != 3
    np.testing.assert_array_equal(striped[rest], plain[rest])
