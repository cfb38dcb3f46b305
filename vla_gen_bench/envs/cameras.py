"""The cameras a policy may use: the third-person camera of the bridge data set, and one on the wrist.

The wrist camera is where ALOHA's ViperX arms carry theirs (a RealSense D405 above the gripper, 25 degrees down, 58
degrees high; pose in MuJoCo Menagerie, `aloha/aloha.xml`): the WidowX-250S has the same gripper. BridgeData V2 has
such a camera too, but its calibration was never published.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import sapien
from mani_skill.sensors.camera import CameraConfig

from vla_gen_bench.assets.world import CAMERA, WRIST_CAMERA
from vla_gen_bench.envs.shaders import lean_shader_config, swift_shader_config
from vla_gen_bench.protocol import EXTERNAL, WRIST

UIDS = {EXTERNAL: CAMERA, WRIST: WRIST_CAMERA}
REFERENCE_SIZE = (640, 480)  # pixels: the image size of the calibrations below
BASE_POSITION = (0.147, 0.028, 0.870)
BASE_QUATERNION = (0.0, 0.0, 0.0, 1.0)  # wxyz: the robot faces -x
TABLE_TOP_M = 0.870
SURROUNDINGS = 128  # grey level where the wrist camera looks past the table's plane

CAMERA_POSITION = (0.00, -0.16, 0.36)  # of the external camera, on base_link
CAMERA_QUATERNION = (0.8992917, -0.09263245, 0.35892478, 0.23209205)
_EXTERNAL_POSE = sapien.Pose(CAMERA_POSITION, CAMERA_QUATERNION)
_EXTERNAL_FOCAL, _EXTERNAL_CENTRE = 623.588, (319.501, 239.545)
_WRIST_POSE = sapien.Pose(  # on gripper_link, x forward, z up: 25 degrees about y
    (0.0254045, 0.0, 0.0824748), (np.cos(np.radians(12.5)), 0.0, np.sin(np.radians(12.5)), 0.0)
)
_WRIST_FOCAL, _WRIST_CENTRE = 240 / np.tan(np.radians(29)), (319.5, 239.5)  # 58 degrees over 480 rows
FIXED_LINK = "base_link"
_MOUNTS = {
    EXTERNAL: (FIXED_LINK, _EXTERNAL_POSE, _EXTERNAL_FOCAL, _EXTERNAL_CENTRE),
    WRIST: ("gripper_link", _WRIST_POSE, _WRIST_FOCAL, _WRIST_CENTRE),
}
_TO_IMAGE_AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])  # x forward, z up -> z forward, y down


def camera_matrix(width: int, height: int | None = None, camera: str = EXTERNAL) -> np.ndarray:
    """Returns the 3x3 intrinsic matrix, in pixels, of a camera whose field of view fills `width` x `height`.

    Args:
        height: 3/4 of `width` where None.
    """
    _, _, focal, centre = _MOUNTS[camera]
    sides = width, width * REFERENCE_SIZE[1] / REFERENCE_SIZE[0] if height is None else height
    scales = [side / reference for side, reference in zip(sides, REFERENCE_SIZE, strict=True)]
    middle = [(value + 0.5) * scale - 0.5 for value, scale in zip(centre, scales, strict=True)]
    return np.array([[focal * scales[0], 0, middle[0]], [0, focal * scales[1], middle[1]], [0, 0, 1]])


def camera_configs(
    cameras: Sequence[str], width: int, height: int, shader: str, swift: bool = False
) -> list[CameraConfig]:
    """Returns ManiSkill's description of each camera.

    Args:
        swift: Render only colours and segmentation of opaque bodies, in a quarter of the time.
    """
    shaders = swift_shader_config if swift else lean_shader_config
    return [
        CameraConfig(
            uid=UIDS[camera],
            pose=_MOUNTS[camera][1],
            width=width,
            height=height,
            entity_uid=_MOUNTS[camera][0],
            intrinsic=camera_matrix(width, height, camera),
            shader_config=shaders(shader),
        )
        for camera in cameras
    ]


def table_seen_from_wrist(gripper_link: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Returns uint8 [H, W, 3]: the empty table top as the wrist camera sees it.

    The table image is the external camera's view of the table top. Two views of a plane differ by a homography, so both
    images show the same table in the same place; beyond the image's edges the table is continued by reflection.

    Args:
        gripper_link: [7] pose of the link in the world frame, position and quaternion wxyz.
        table: uint8 [H, W, 3], the table image.
    """
    height, width = table.shape[:2]
    mapping, horizon = table_homography(gripper_link, width, height)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(table, mapping, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64)
    lines = np.stack([mapping[2], horizon])
    if (corners @ lines.T <= 0).any():  # linear in the pixel, so checking the corners is enough
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        past = ((lines[:, 0, None, None] * x + lines[:, 1, None, None] * y + lines[:, 2, None, None]) <= 0).any(0)
        seen[past] = SURROUNDINGS
    return seen


def table_homography(gripper_link: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the homography [3, 3] from wrist camera pixels to external camera pixels for the table's plane.

    Also returns the horizon [3]: `horizon @ (x, y, 1)` is positive for wrist camera pixels (x, y) that look down.
    """
    outside = _matrix(sapien.Pose(BASE_POSITION, BASE_QUATERNION) * _EXTERNAL_POSE)
    wrist = _matrix(sapien.Pose(gripper_link[:3], gripper_link[3:]) * _WRIST_POSE)
    rotation, origin = wrist[:3, :3], wrist[:3, 3]
    down = -rotation[2]  # a ray d of the camera falls by down @ d; where it hits, the point times that is `hit` @ d
    hit = np.outer(origin, down) + (origin[2] - TABLE_TOP_M) * rotation
    to_external = outside[:3, :3].T @ (hit - np.outer(outside[:3, 3], down))
    rays = _TO_IMAGE_AXES.T @ np.linalg.inv(_of_pixel_centres(camera_matrix(width, height, WRIST)))
    return _of_pixel_centres(camera_matrix(width, height)) @ _TO_IMAGE_AXES @ to_external @ rays, down @ rays


def _of_pixel_centres(matrix: np.ndarray) -> np.ndarray:
    """Returns the matrix in OpenCV's convention: integers are pixel centres. In SAPIEN pixel i spans [i, i + 1]."""
    return matrix - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]


def _matrix(pose: sapien.Pose) -> np.ndarray:
    return pose.to_transformation_matrix().astype(np.float64)
