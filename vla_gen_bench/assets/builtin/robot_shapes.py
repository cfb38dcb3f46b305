"""The visual geometry of the built-in WidowX-250S: a short list of parts per link, in mm in the link frame.

Our own geometry in the proportions of the real arm: black brackets and tubes, dark grey servo blocks, lighter
horn discs.
"""

import numpy as np

from vla_gen_bench.assets.builtin.robot_parts import (
    Part, block, both_sides, circle, corners, drum, mirrored, prism, solid, span,
)

PAINTS = {"frame": (47, 47, 48), "servo": (54, 55, 57), "horn": (108, 110, 113), "edge": (58, 58, 58)}  # sRGB

OCTAGON = ((76.5, 33), (33, 76.5), (-33, 76.5), (-76.5, 33), (-76.5, -33), (-33, -76.5), (33, -76.5), (76.5, -33))
TAIL = ((-50, 51), (-138, 51), (-157, 33), (-157, -33), (-138, -51), (-50, -51))
HOUSING = ((-52, 38), (-142, 40), (-153, 29), (-153, -29), (-142, -40), (-52, -38))
BRACKET = ((-11, 212), (11, 212), (54, 238), (54, 266), (51, 268), (16, 268), (11, 236), (-11, 236), (-16, 268),
           (-51, 268), (-54, 266), (-54, 238))

# Side plate of the wrist around its pivot and lightening hole: (x, z) outline and a point that sees all of it.
FORK = (
    (((-3.4, 5), (-3.4, 9.5), (0, 11.3), (10, 12), (19, 15), (30, 22), (31, 9.5), (17, 5.5)), (12, 8.5)),
    (((-3.4, -5), (17, -1.5), (31, 2.5), (30, -9), (12, -11.3), (0, -11.3), (-3.4, -9.5)), (14, -6)),
    (((4, -5), (17, -2), (17, 6), (4, 5.2)), (10, 1)),
    (((30, 22), (40, 30.5), (53, 30.5), (54.7, 28), (54.7, 1), (40, -6), (30, -9)), (42, 12)),
)
# Left finger around its window: carriage, blade, the two rails beside the window, top knob, the two pad buttons.
CARRIAGE = mirrored([(-8.2, -5, 12.6), (-8.2, 5, 12.6), (-6.2, -5, 14.5), (-6.2, 3.1, 14.5), (-5, -9, 14.5),
                     (9.5, 3.1, 14.5), (9.5, 5, 12.6), (12, 2.5, 14.5), (12, 5, 12), (12, -9, 14.5)], 2)
BLADE = mirrored([(16.5, -9, 14.3), (16.5, 1.9, 14.3), (16.5, 4.2, 12), (30, -0.5, 13.5), (36.9, -2.4, 13.1),
                  (38.2, -0.1, 10.5), (42.3, -9, 12.8), (43.2, -9, 12.1), (43.2, -6, 10.3)], 2)
RAIL = np.array([(12, -9, 5), (12, 5, 5), (12, 5, 12), (12, 2.5, 14.5), (12, -9, 14.5),
                 (16.5, -9, 5), (16.5, 4.2, 5), (16.5, 4.2, 12), (16.5, 1.9, 14.3), (16.5, -9, 14.3)])
BUTTON = corners((-1.6, -11, 8.4), (1.6, -9, 11.6))
FINGER = (
    ("frame", CARRIAGE), ("frame", BLADE), ("frame", RAIL), ("frame", RAIL * (1, 1, -1)),
    ("edge", corners((-12.2, -5, -5.2), (-8.2, 5, 5.2))), ("edge", BUTTON), ("edge", BUTTON * (1, 1, -1)),
)


def base_link() -> list[Part]:
    foot = np.concatenate([circle("z", 54, 9), circle("z", 50, 46, 16)])
    return [
        prism("frame", "z", OCTAGON, 0, 9.5), prism("edge", "z", TAIL, 0, 9, (-100, 0)),
        prism("servo", "z", HOUSING, 9, 36.5, (-100, 0)), solid("frame", foot),
        drum("frame", "z", 51, 45, 71.6, sides=16),
    ]


def shoulder_link() -> list[Part]:
    def servo(side: int) -> list[Part]:
        low, high = span(side, 16, 50)
        return [block("servo", (-14.3, low, 3), (14.3, high, 49.5), 2),
                drum("horn", "y", 10.4, *span(side, 13.9, 16.2), (0, 38.65), sides=12)]
    return [drum("frame", "z", 31, -3, 0), drum("edge", "z", 51, 0, 3, sides=20), *both_sides(servo)]


def upper_arm_link() -> list[Part]:
    def servo(side: int) -> list[Part]:
        low, high = span(side, 15.5, 50)
        return [block("servo", (19, low, 236), (61, high, 264), 1.5),
                drum("horn", "y", 10, *span(side, 13.6, 15.6), (49.75, 250), sides=12)]
    boot = [(-14, -4), (-10, -10.5), (-4, -14), (4, -14), (10, -10.5), (14, -4),
            (14, 52), (12, 54.5), (-12, 54.5), (-14, 52)]
    spine = mirrored([(-10, 14, 212), (-14.4, 11, 222), (-14.4, 11, 252), (-9, 14, 258), (11, 14, 212), (11, 14, 258)], 1)
    wings = prism("frame", "x", BRACKET, -1, 20, (0, 230))
    return [prism("frame", "y", boot, -14.4, 14.4), block("edge", (-9.5, -10, 50), (9.5, 10, 215)),
            solid("frame", spine), wings, *both_sides(servo)]


def upper_forearm_link() -> list[Part]:
    boot = [(-4, -14.4), (-10.5, -10), (-14.4, -4), (-14.4, 4), (-10.5, 10), (-4, 14.4),
            (52, 14.4), (54.5, 12), (54.5, -12), (52, -14.4)]
    return [
        prism("frame", "y", boot, -14.3, 14.3, (20, 0)), block("edge", (50, -9.7, -9.7), (136, 9.7, 9.7)),
        block("servo", (134, -14.2, -14.2), (165, 14.2, 14.2), 1.5), drum("frame", "x", 21.2, 164, 170.5),
        drum("horn", "x", 10, 170.5, 175, sides=12),
    ]


def lower_forearm_link() -> list[Part]:
    side = ((7, 33), (36, 33), (54, 17), (75, 17), (75, -17), (37, -17), (29, -11), (7, -11))

    def cheek(at: int) -> list[Part]:
        return [prism("frame", "z", side, *span(at, 14.2, 17.4), (45, 5)),
                drum("horn", "y", 9.7, *span(at, 16.8, 19), (75, 0), sides=12)]
    return [
        drum("frame", "x", 24.5, -4.4, 2, sides=20), block("frame", (2, -14, -16.5), (7, 18, 16.5)),
        block("servo", (6, -11.3, -14.3), (36, 35.2, 14.3), 1.5), block("servo", (40, -17, -14.3), (86.2, 17, 14.3), 1.5),
        *both_sides(cheek), drum("edge", "y", 4, -23.4, -19, (75, 0), sides=8),
    ]


def wrist_link() -> list[Part]:
    def cheek(side: int) -> list[Part]:
        low, high = span(side, 14, 19.5)
        plates = [prism("frame", "y", outline, *span(side, 19, 22), centre) for outline, centre in FORK]
        return [*plates, block("frame", (37, low, -4), (54.5, high, 28))]
    return [*both_sides(cheek), block("servo", (29, -14.2, -11.3), (63, 14.2, 35.2), 1.5),
            drum("frame", "x", 20, 63, 65.1, sides=20)]


def gripper_link() -> list[Part]:
    return [drum("frame", "x", 20, 0, 3, sides=20), block("edge", (0, -14.2, 5), (3, 14.2, 35)),
            block("servo", (3, -14.2, -11.3), (43, 14.2, 35.2), 1.5)]


def gripper_prop_link() -> list[Part]:
    lobe = ((-3.5, -17), (0, -18.2), (3.5, -17), (7, -8), (4, 17), (0, 18.2), (-3.5, 17), (-7, 8))
    return [drum("edge", "x", 10.2, -2.5, 2.3, sides=12), prism("edge", "x", lobe, -2.3, 2.5)]


def gripper_bar_link() -> list[Part]:
    half = ((0, -14), (44, -6), (49.5, -4), (51.7, 0), (49.5, 4), (22, 17.5), (13.5, 33), (11.5, 35.2))
    plate = [*half, *((-y, z) for y, z in half[:0:-1])]
    posts = both_sides(lambda side: [drum("edge", "x", 4.6, 2.8, 18.2, (45 * side, 0), sides=10)])
    return [prism("edge", "x", plate, 0, 3), block("frame", (18, -50.1, -5), (28, 50.1, 5)), *posts]


def finger(side: int) -> list[Part]:
    """Finger plate; ``side`` = 1 for the left finger (inner face towards -y), -1 for the right one."""
    return [solid(paint, np.asarray(points, float) * (1, side, 1)) for paint, points in FINGER]


VISUALS = {
    "base_link": base_link, "shoulder_link": shoulder_link, "upper_arm_link": upper_arm_link,
    "upper_forearm_link": upper_forearm_link, "lower_forearm_link": lower_forearm_link, "wrist_link": wrist_link,
    "gripper_link": gripper_link, "gripper_prop_link": gripper_prop_link, "gripper_bar_link": gripper_bar_link,
    "left_finger_link": lambda: finger(1), "right_finger_link": lambda: finger(-1),
}
