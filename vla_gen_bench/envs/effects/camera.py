"""Moves the camera from its training pose and computes the table image from the new view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import sapien
import torch
from mani_skill.utils.structs.render_camera import RenderCamera
from scipy.spatial.transform import Rotation

from vla_gen_bench.assets.builtin import tables
from vla_gen_bench.assets.builtin.paint import to_image
from vla_gen_bench.assets.pack import Pack
from vla_gen_bench.envs import robot
from vla_gen_bench.envs.compositing import load_image
from vla_gen_bench.envs.effects.scene_changes import irradiance
from vla_gen_bench.envs.effects.sensor import GAMMA
from vla_gen_bench.envs.effects.setup import STANDARD, CameraSetup, SceneSetup

FULL_SIZE = (480, 640)  # of the table images in a pack


def aim_cameras(camera: RenderCamera, setups: Sequence[SceneSetup]) -> None:
    """Moves and zooms the camera of each sub-scene whose setup changes it; `camera` is mounted on the base link."""
    for component, setup in zip(camera._render_cameras, setups, strict=True):
        if setup.camera != STANDARD.camera:
            component.local_pose = sapien.Pose(setup.camera.position, setup.camera.quaternion)
            component.set_focal_lengths(component.fx * setup.camera.zoom, component.fy * setup.camera.zoom)


def table_image(pack: Pack, table: str, setup: SceneSetup, size: tuple[int, int]) -> torch.Tensor:
    """Returns the table image as the camera of `setup` sees it in its light, uint8 [H, W, 3].

    The tables of `builtin` have 3D geometry and are rendered exactly for a moved camera. Other worlds have photographs,
    warped as if they showed a plane at the height of the table's top: correct for the top, wrong for everything behind
    and below it; areas outside the photograph repeat its nearest edge. Light changes the image as it would change a
    matt table: by the ratio of the irradiance on a horizontal surface.
    """
    file = pack.path(pack.catalog.get("tables", table).image)
    if setup.camera == STANDARD.camera:
        image = load_image(file, size[1], size[0])
    elif pack.catalog.world == "builtin":
        image = torch.from_numpy(_painted(table, setup.camera, size))
    else:
        image = torch.from_numpy(_warped(file, setup.camera, size))
    return _lit(image, setup)


def _painted(table: str, camera: CameraSetup, size: tuple[int, int]) -> np.ndarray:
    width = max(size[1], round(size[0] * FULL_SIZE[1] / FULL_SIZE[0]))  # another aspect ratio is stretched afterwards
    view = replace(tables.STANDARD.scaled(width), mount=(camera.position, camera.quaternion))
    seen = np.array(to_image(tables.render(tables.named(table), view=replace(view, focal=view.focal * camera.zoom))))
    return seen if seen.shape[:2] == size else cv2.resize(seen, size[::-1], interpolation=cv2.INTER_AREA)


def _warped(file: Path, camera: CameraSetup, size: tuple[int, int]) -> np.ndarray:
    full = load_image(file, FULL_SIZE[1], FULL_SIZE[0]).numpy()
    mapping = homography(camera, STANDARD.camera)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(full, mapping, FULL_SIZE[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return seen if size == FULL_SIZE else cv2.resize(seen, size[::-1])


def _lit(image: torch.Tensor, setup: SceneSetup) -> torch.Tensor:
    if (setup.ambient, setup.lights) == (STANDARD.ambient, STANDARD.lights):
        return image
    ratio = irradiance(setup.ambient, setup.lights) / irradiance(STANDARD.ambient, STANDARD.lights)
    curve = np.clip(np.arange(256)[:, None] * ratio ** (1 / GAMMA), 0, 255).astype(np.uint8)  # [256, 3]
    return torch.from_numpy(cv2.LUT(image.numpy(), curve[:, None]))


def homography(new: CameraSetup, old: CameraSetup) -> np.ndarray:
    """Returns the 3x3 matrix from pixels of `new` to pixels of `old` that show the same point of the table's top.

    At 640x480; integers are pixel centres.
    """
    return _plane_to_pixel(old) @ np.linalg.inv(_plane_to_pixel(new))


def _plane_to_pixel(camera: CameraSetup) -> np.ndarray:
    """Returns the 3x3 matrix from (x, y, 1) on the plane z = 0 of the base frame, the table's top, to pixels."""
    turn = Rotation.from_quat(camera.quaternion, scalar_first=True).as_matrix()  # columns: forward, left, up
    axes = np.stack([-turn[:, 1], -turn[:, 2], turn[:, 0]])  # right, down, forward
    matrix = robot.camera_matrix(FULL_SIZE[1])
    matrix[:2, :2] *= camera.zoom
    matrix[:2, 2] -= 0.5  # the camera's pixel i spans [i, i + 1]
    return matrix @ np.column_stack([axes[:, 0], axes[:, 1], -axes @ np.array(camera.position)])
