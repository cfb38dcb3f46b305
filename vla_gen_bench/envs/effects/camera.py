"""A camera that is not where it was in training, and the table image that it sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import sapien
import torch
from mani_skill.utils.structs.render_camera import RenderCamera
from scipy.spatial.transform import Rotation

from vla_gen_bench.assets.pack import Pack
from vla_gen_bench.envs import robot
from vla_gen_bench.envs.compositing import load_image
from vla_gen_bench.envs.effects.setup import STANDARD, CameraSetup, SceneSetup

FULL_SIZE = (480, 640)  # of the table images in a pack


def aim_cameras(camera: RenderCamera, setups: Sequence[SceneSetup]) -> None:
    """Moves and zooms the cameras of those sub-scenes whose setup says so; `camera` is mounted on the base link."""
    for component, setup in zip(camera._render_cameras, setups, strict=True):
        if setup.camera != STANDARD.camera:
            component.local_pose = sapien.Pose(setup.camera.position, setup.camera.quaternion)
            component.set_focal_lengths(component.fx * setup.camera.zoom, component.fy * setup.camera.zoom)


def table_image(pack: Pack, table: str, camera: CameraSetup, size: tuple[int, int]) -> torch.Tensor:
    """Returns the table image as `camera` sees it, uint8 [H, W, 3].

    A moved camera sees the image warped as what it shows were a plane at the height of the table's top: exact for the
    top, wrong for floor and wall behind it. What the image does not show repeats its nearest edge.
    """
    file = pack.path(pack.catalog.get("tables", table).image)
    if camera == STANDARD.camera:
        return load_image(file, size[1], size[0])
    return torch.from_numpy(_warped(file, camera, size))


def _warped(file: Path, camera: CameraSetup, size: tuple[int, int]) -> np.ndarray:
    full = load_image(file, FULL_SIZE[1], FULL_SIZE[0]).numpy()
    mapping = homography(camera, STANDARD.camera)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(full, mapping, FULL_SIZE[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return seen if size == FULL_SIZE else cv2.resize(seen, size[::-1])


def homography(new: CameraSetup, old: CameraSetup) -> np.ndarray:
    """Returns the 3x3 matrix that maps pixels of `new` to those of `old` that show the same point of the table's top.

    At 640x480; whole numbers are the centres of pixels.
    """
    return _plane_to_pixel(old) @ np.linalg.inv(_plane_to_pixel(new))


def _plane_to_pixel(camera: CameraSetup) -> np.ndarray:
    """Returns the 3x3 matrix from (x, y, 1) on the plane z = 0 of the base frame, the table's top, to pixels."""
    turn = Rotation.from_quat(camera.quaternion, scalar_first=True).as_matrix()  # columns: forward, left, up
    axes = np.stack([-turn[:, 1], -turn[:, 2], turn[:, 0]])  # right, down, forward
    matrix = robot.camera_matrix(FULL_SIZE[1])
    matrix[:2, :2] *= camera.zoom
    matrix[:2, 2] -= 0.5  # its pixel i spans [i, i + 1]
    return matrix @ np.column_stack([axes[:, 0], axes[:, 1], -axes @ np.array(camera.position)])
