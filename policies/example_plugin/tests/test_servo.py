"""Needs numpy and vla_gen_bench, no simulator."""

import numpy as np
import pytest
from vgb_example_policy import vision
from vgb_example_policy.servo import START, ServoPolicy

from vla_gen_bench.policies import Observation

TABLE = (150, 140, 130)


def picture(height, width, u, v, colour=(240, 60, 20)):
    """A grey table and one blob of 5% of the width around pixel (u, v)."""
    image = np.full((height, width, 3), TABLE, np.uint8)
    y, x = np.mgrid[0:height, 0:width]
    image[(x - u) ** 2 + (y - v) ** 2 < (0.025 * width) ** 2] = colour
    return image


# World corners of the workspace and their pixels at 640x480, from the benchmark's camera facts.
# Base frame = world turned by 180 degrees about the base (0.147, 0.028): x = 0.147 - X, y = 0.028 - Y.
@pytest.mark.parametrize(
    ("u", "v", "x", "y"),
    [(271, 179, 0.382, 0.103), (421, 232, 0.382, -0.047), (169, 283, 0.232, 0.103), (339, 360, 0.232, -0.047)],
)
def test_table_points_match_known_corners(u, v, x, y, monkeypatch):
    monkeypatch.setattr(vision, "BLOB_HEIGHT_M", 0.0)
    assert vision.table_points(480, 640)[v, u] == pytest.approx((x, y), abs=0.001)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (480, 640)])
def test_blob_is_found_at_any_image_size(height, width):
    u, v = int(0.5 * width), int(0.5 * height)
    expected = vision.table_points(height, width)[v, u]
    assert vision.find_blob(picture(height, width, u, v)) == pytest.approx(expected, abs=0.005)


def test_servo_ends_above_the_blob_with_the_gripper_closed():
    image = picture(240, 320, 160, 120)
    policy, position = ServoPolicy(), START.copy()
    policy.reset(["put carrot on plate"], [0])
    heights = []
    for step in range(40):
        action = policy.act(Observation(image[None], ("put carrot on plate",), np.array([step])))[0, 0]
        position += action[:3]
        heights.append(position[2])
    assert position[:2] == pytest.approx(vision.find_blob(image), abs=1e-4)
    assert min(heights) == pytest.approx(0.02, abs=1e-4)
    assert position[2] == pytest.approx(START[2], abs=1e-4)
    assert action[6] == -1.0
