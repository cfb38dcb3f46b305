"""Kinematics, masses and joint limits of the WidowX-250S, taken from its published description.

Source: haosulab/ManiSkill-WidowX250S at 6a12bb7 (wx250s.urdf). Link and joint names are the same, so one controller
drives both robots. Lengths in m, angles in rad, masses in kg, inertias in kg m^2; every pose is relative to
the frame of the parent link (joints) or of the link itself (centres of mass).
"""

from math import pi
from typing import NamedTuple

Vector = tuple[float, float, float]


class Link(NamedTuple):
    """One rigid body.

    Attributes:
        centre: centre of mass in the link frame.
        rpy: fixed-axis roll, pitch, yaw of the frame the inertia is given in.
        inertia: ixx, ixy, ixz, iyy, iyz, izz about the centre of mass.
    """

    name: str
    mass: float
    centre: Vector
    rpy: Vector
    inertia: tuple[float, float, float, float, float, float]


class Limit(NamedTuple):
    """Range in rad or m, effort in N m or N, velocity in rad/s or m/s."""

    lower: float
    upper: float
    effort: float
    velocity: float


class Joint(NamedTuple):
    """One joint; ``origin`` is the child frame in the parent frame (no joint of this robot has a rotated origin)."""

    name: str
    kind: str
    parent: str
    child: str
    origin: Vector
    axis: Vector
    limit: Limit | None = None


LINKS = (
    Link("base_link", 0.538736, (-0.0380446, 0.000613892, 0.0193354), (0, 0, pi / 2),
         (0.002115, -1.635e-05, 6.998e-07, 0.0006921, 4.642e-05, 0.002524)),
    Link("shoulder_link", 0.480879, (2.23482e-05, 4.14609e-05, 0.0066287), (0, 0, pi / 2),
         (0.000379, 2.2e-09, -3.561e-07, 0.0005557, 1.2245e-06, 0.0005889)),
    Link("upper_arm_link", 0.430811, (0.0171605, 2.725e-07, 0.191323), (0, 0, pi / 2),
         (0.003463, -1e-10, -2e-10, 0.003587, 0.0004272, 0.0004566)),
    Link("upper_forearm_link", 0.234589, (0.107963, 0.000115876, 0), (0, 0, 0),
         (3.971e-05, 2.3528e-06, 0, 0.0008878, 0, 0.000888)),
    Link("lower_forearm_link", 0.220991, (0.0374395, 0.00522252, 0), (pi, 0, 0),
         (6.369e-05, -2.292e-05, 0, 0.0001677, 0, 0.0001834)),
    Link("wrist_link", 0.084957, (0.04236, -1.0663e-05, 0.010577), (0, 0, pi / 2),
         (3.082e-05, 1.91e-08, 2.3e-09, 2.822e-05, 2.5481e-06, 3.152e-05)),
    Link("gripper_link", 0.072885, (0.021631, 2.516e-07, 0.01141), (0, 0, pi / 2),
         (2.537e-05, 0, 0, 1.836e-05, 4.34e-07, 1.674e-05)),
    Link("ee_arm_link", 0.001, (0, 0, 0), (0, 0, 0),
         (0.001, 0, 0, 0.001, 0, 0.001)),
    Link("gripper_prop_link", 0.00434, (0.000846, -1.6817e-06, 4.2e-05), (0, 0, pi / 2),
         (5.923e-07, 0, 3.195e-07, 1.1156e-06, -4e-10, 5.743e-07)),
    Link("gripper_bar_link", 0.034199, (0.009687, 8.177e-07, 0.004962), (0, 0, pi / 2),
         (7.4125e-06, -8e-10, -6e-10, 2.843e-05, -1.3889e-06, 2.86e-05)),
    Link("fingers_link", 0.001, (0, 0, 0), (0, 0, 0),
         (0.001, 0, 0, 0.001, 0, 0.001)),
    Link("left_finger_link", 0.016246, (0.013816, 0, 0), (pi, pi, pi / 2),
         (4.731e-06, -4.56e-07, 0, 1.5506e-06, 0, 3.7467e-06)),
    Link("right_finger_link", 0.016246, (0.013816, 0, 0), (0, pi, pi / 2),
         (4.731e-06, 4.56e-07, 0, 1.5506e-06, 0, 3.7467e-06)),
    Link("ee_gripper_link", 0.001, (0, 0, 0), (0, 0, 0),
         (0.001, 0, 0, 0.001, 0, 0.001)),
)

JOINTS = (
    Joint("waist", "revolute", "base_link", "shoulder_link", (0, 0, 0.072), (0, 0, 1),
          Limit(-pi, pi, 10, pi)),
    Joint("shoulder", "revolute", "shoulder_link", "upper_arm_link", (0, 0, 0.03865), (0, 1, 0),
          Limit(-1.8849555921538759, 1.9896753472735358, 20, pi)),
    Joint("elbow", "revolute", "upper_arm_link", "upper_forearm_link", (0.04975, 0, 0.25), (0, 1, 0),
          Limit(-2.1467549799530254, 1.6057029118347832, 15, pi)),
    Joint("forearm_roll", "revolute", "upper_forearm_link", "lower_forearm_link", (0.175, 0, 0), (1, 0, 0),
          Limit(-3.141582653589793, 3.141582653589793, 2, pi)),
    Joint("wrist_angle", "revolute", "lower_forearm_link", "wrist_link", (0.075, 0, 0), (0, 1, 0),
          Limit(-1.7453292519943295, 2.1467549799530254, 5, pi)),
    Joint("wrist_rotate", "revolute", "wrist_link", "gripper_link", (0.065, 0, 0), (1, 0, 0),
          Limit(-3.141582653589793, 3.141582653589793, 1, pi)),
    Joint("ee_arm", "fixed", "gripper_link", "ee_arm_link", (0.043, 0, 0), (1, 0, 0)),
    Joint("gripper", "fixed", "ee_arm_link", "gripper_prop_link", (0.0055, 0, 0), (1, 0, 0)),
    Joint("gripper_bar", "fixed", "ee_arm_link", "gripper_bar_link", (0, 0, 0), (1, 0, 0)),
    Joint("ee_bar", "fixed", "gripper_bar_link", "fingers_link", (0.023, 0, 0), (1, 0, 0)),
    Joint("left_finger", "prismatic", "fingers_link", "left_finger_link", (0, 0, 0), (0, 1, 0),
          Limit(0.015, 0.037, 5, 1)),
    Joint("right_finger", "prismatic", "fingers_link", "right_finger_link", (0, 0, 0), (0, -1, 0),
          Limit(0.015, 0.037, 5, 1)),
    Joint("ee_gripper", "fixed", "fingers_link", "ee_gripper_link", (0.027575, 0, 0), (1, 0, 0)),
)

# Pairs whose shapes overlap by design. PhysX already ignores collisions of directly jointed links.
TOUCHING_PAIRS = (
    ("base_link", "upper_arm_link"),
    ("gripper_link", "left_finger_link"),
    ("gripper_link", "right_finger_link"),
    ("gripper_bar_link", "gripper_link"),
    ("gripper_bar_link", "left_finger_link"),
    ("gripper_bar_link", "right_finger_link"),
    ("left_finger_link", "right_finger_link"),
)
