"""Collision of the built-in WidowX-250S: corner points of ONE convex hull per link, in mm in the link frame.

One hull, not several pieces, because SAPIEN loads each collision mesh of the real robot as a single hull: there too the
space between the gripper's plate and its bar is solid. Extents match the real robot; the finger hulls also keep its
inner faces, which determine the grasp. At most 32 corners each; PhysX drops corners that protrude by less than about
0.1 mm when it cooks a hull, so closely spaced corners would only make left and right differ.
"""

import numpy as np
from numpy.typing import NDArray

from vla_gen_bench.assets.builtin.robot_parts import circle, mirrored


def base_link() -> NDArray:
    outline = ((76.5, 33), (33, 76.5), (-33, 76.5), (-138, 51), (-157, 33))
    plate = mirrored([(x, y, z) for x, y in outline for z in (0, 9.3)], 1)
    return np.concatenate([plate, circle("z", 52.3, 71.6), mirrored([(-153, 29, 36.5), (-142, 41, 36.5)], 1)])


def shoulder_link() -> NDArray:
    servos = mirrored(mirrored([(13.5, 49.5, 49.3)], 0), 1)
    return np.concatenate([circle("z", 31, -3), circle("z", 51.6, 1.5, 16), servos])


def upper_arm_link() -> NDArray:
    boot = [(-14.4, 13, -2), (-10, 13.5, -10), (0, 13, -14.4), (10, 13.5, -10), (14.4, 12, -2), (-14.4, 12, 54)]
    elbow = [(-9, 12, 258), (2, 43, 268), (12, 54, 237), (12, 53.5, 268), (21, 54, 265), (21, 54, 236), (60.5, 50, 236.5),
             (60.5, 50, 264)]
    return mirrored(boot + elbow, 1)


def upper_forearm_link() -> NDArray:
    boot = mirrored(mirrored([(-14.4, 12, 3), (-10, 13.5, 10.5), (-2, 13, 14.4)], 1), 2)
    return np.concatenate([boot, circle("x", 22, 165), circle("x", 22, 170), circle("x", 10, 175)[::2]])


def lower_forearm_link() -> NDArray:
    front = [(86.2, 17, 12.5), (84, 17, 14.3), (75, 16, 17.4), (75, 18.5, 6), (86.2, -17, 12.5), (75, -17, 17.4),
             (75, -23.4, 3)]
    shell = [(9, 33.2, 17.2), (36, 33.2, 17.2), (36, 35.2, 12.5), (3, 33.5, 13.5)]
    return np.concatenate([circle("x", 25.2, -3.7, 10), mirrored(front + shell, 2)])


def wrist_link() -> NDArray:
    fork = [(-3.4, 22, 8.5), (-3.4, 22, -8.5), (0, 22, -11.3), (12, 22, -11.3), (30, 22, -9), (40, 22, 30.5), (54.5, 22, 30),
            (54.5, 22, 0)]
    servo = [(30, 12.5, 35.2), (63, 12.5, 35.2), (63, 14.2, 33)]
    return np.concatenate([mirrored(fork + servo, 1), circle("x", 20.7, 65)])


def gripper_link() -> NDArray:
    servo = [(0, 12.5, 35.2), (0, 14.2, 33), (43, 12.5, 35.2), (43, 14.2, 33), (43, 14.2, -9.5), (43, 12.5, -11.3)]
    return np.concatenate([mirrored(servo, 1), circle("x", 20.5, 0, 10), circle("x", 20.5, 3, 10)])


def gripper_bar_link() -> NDArray:
    plate = [(x, y, z) for x in (-0.6, 3.4) for y, z in ((52.2, 2), (52.2, -2), (50, 4.8), (11.8, 35.6), (2.5, -14.4))]
    bar = [(-0.6, 45, -6.4), (18, 50.8, 5.7), (18, 50.8, -5.7), (28.5, 50.5, 5.4), (28.5, 50.5, -5.4)]
    return mirrored(plate + bar, 1)


def finger(side: int) -> NDArray:
    """Left finger for side = 1, right for -1. Two buttons at y = -11 protrude 2 mm from the inner face."""
    half = [(-12.1, -4.5, 5), (-12.1, 4.5, 5), (-8.2, 5, 12.6), (-6.2, 3.1, 14.5), (-5, -8.95, 14.5), (-1.7, -11, 11.6),
            (1.7, -11, 11.6), (9.5, 5, 12.6), (12, -8.95, 14.5), (12, 2.5, 14.5), (36.9, -2.4, 13.1),
            (38.2, -0.1, 10.5), (43.15, -8.95, 12.1), (43.15, -6, 10.3)]
    return mirrored(half, 2) * (1, side, 1)


HULLS = {
    "base_link": base_link, "shoulder_link": shoulder_link, "upper_arm_link": upper_arm_link,
    "upper_forearm_link": upper_forearm_link, "lower_forearm_link": lower_forearm_link, "wrist_link": wrist_link,
    "gripper_link": gripper_link, "gripper_bar_link": gripper_bar_link,
    "left_finger_link": lambda: finger(1), "right_finger_link": lambda: finger(-1),
}
