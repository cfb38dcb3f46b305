"""Shadows of the main light on the table and on what lies on it.

SAPIEN's fast shader casts no shadows, and the table is an image behind the rendered bodies. So shadows are computed
from geometry. A body's collision pieces are convex; the shadow of a convex piece on a plane is the convex hull of its
vertices above the plane, projected along the light. The table is such a plane. An object or receptacle is shaded as if
all that is visible of it were at the height of its top. The robot casts shadows and receives none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import sapien
import torch
from mani_skill.utils.structs.link import Link
from mani_skill.utils.structs.render_camera import RenderCamera
from scipy.spatial.transform import Rotation

from vla_gen_bench.assets.builtin import tables
from vla_gen_bench.envs.cameras import FIXED_LINK, TABLE_TOP_M
from vla_gen_bench.envs.effects.scene_changes import irradiance
from vla_gen_bench.envs.effects.sensor import GAMMA
from vla_gen_bench.envs.effects.setup import SceneSetup
from vla_gen_bench.envs.poses import Body, BodyPoses
from vla_gen_bench.envs.privileged import convex_pieces
from vla_gen_bench.envs.scene import TABLE_CENTRE, TABLE_HALF_SIZE, Thing

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv

CELL_M = 0.005  # of a shadow map
SOFT_CELLS = 3  # box that softens edges
CUT = 122  # of 255, taken off the softened map: OpenCV draws a polygon 0.7 cells wider than it is on each side
# With both, an edge is 1 cm wide (95% to 5%), as under a 10 cm lamp 1 m above a body 10 cm above the table, and its
# middle lies on the geometric edge.
_SOFT_EDGE = np.clip((np.arange(256) - CUT) * 255 / (255 - CUT), 0, 255).astype(np.uint8)
MARGIN_M = 0.01  # of the map around an object
ABOVE_M = 0.001  # what rises less above a plane casts no shadow on it; a body on the table may sink in by less
_FRACTION = 4  # bits of a vertex's position within a cell


class Window(NamedTuple):
    """A square of a horizontal plane, world frame, metres: its centre, half its side, and the plane's height."""

    x: float
    y: float
    half: float
    z: float

    @property
    def cells(self) -> int:
        return round(2 * self.half / CELL_M)

    @property
    def origin(self) -> tuple[float, float]:
        """The cell, column and row, of x = y = 0; integers are the cells' centres."""
        return (self.half - self.x) / CELL_M - 0.5, (self.half - self.y) / CELL_M - 0.5

    def to_cells(self) -> np.ndarray:
        """Returns the 3x3 matrix from (x, y, 1) to cells."""
        x, y = self.origin
        return np.array([[1 / CELL_M, 0, x], [0, 1 / CELL_M, y], [0, 0, 1]])


TABLE = Window(TABLE_CENTRE[0], TABLE_CENTRE[1], TABLE_HALF_SIZE[0], TABLE_TOP_M)


@dataclass(frozen=True)
class View:
    """A camera: its position [3] in the world, and the 3x3 matrix from (column, row, 1) to the pixel's ray.

    Integers are pixel centres; a ray has the length 1 along the optical axis.
    """

    position: np.ndarray
    rays: np.ndarray

    @cached_property
    def of_table(self) -> list[list[float]]:
        """The 3x3 matrix from (column, row, 1) of the table's cells to pixels; its last element is negative behind."""
        return np.linalg.inv(TABLE.to_cells() @ self.to_plane(TABLE.z)).tolist()

    def to_plane(self, height: float) -> np.ndarray:
        """Returns the 3x3 matrix from (column, row, 1) to (x, y, 1) on a horizontal plane.

        The last element of the product is how far the ray falls: negative above the horizon.
        """
        fall = -self.rays[2]
        across = np.outer(self.position[:2], fall) + (self.position[2] - height) * self.rays[:2]
        return np.stack([*across, fall])


class CastShadows:
    """The shadows in the images of an environment's running episodes, of those whose setup has any.

    Made when robot and bodies are in their places, because the external camera's view is read once.
    """

    def __init__(self, env: PickPlaceEnv) -> None:
        rows = {row: setup for row, setup in enumerate(env.setups) if setup.shadow > 0 and _shines_down(setup)}
        self._poses = None
        if not rows:  # as in nearly all episodes
            return
        bodies = [*(link for link in env.agent.robot.links if link._bodies[0].collision_shapes), *env.things]
        self._poses = BodyPoses(bodies, env.num_envs, env.gpu_sim_enabled)
        self._scenes = {row: Scene(setup, _pieces(bodies, row), _ids(bodies, row)) for row, setup in rows.items()}
        self._outlines = {row: _outline(env.world.name, env.specs[row].table) for row in rows}
        self._fixed: dict[int, View] = {}  # sub-scene -> view of the external camera, which never moves in an episode

    def cast(
        self, images: torch.Tensor, segmentation: torch.Tensor, foreground: torch.Tensor, camera: RenderCamera
    ) -> None:
        """Darkens the shaded pixels in place.

        Args:
            images: uint8 [B, H, W, 3], bodies in front of the table.
            segmentation: [B, H, W, 1] ids of the bodies.
            foreground: bool [B, H, W], False where the table shows.
            camera: The camera that shows them.
        """
        if self._poses is None:
            return
        poses = self._poses.read().cpu().numpy().astype(np.float64)
        for row, scene in self._scenes.items():
            image, ids, body = (of[row].cpu().numpy() for of in (images, segmentation[..., 0], foreground))
            scene.move(poses[:, row])
            shade = scene.shade(ids, body, self._view(camera, row), self._outlines[row])
            scene.darken(image, shade)
            if images.is_cuda:
                images[row] = torch.from_numpy(image).to(images.device)

    def _view(self, camera: RenderCamera, row: int) -> View:
        """Returns the present view of a sub-scene's camera."""
        if camera.mount.name != FIXED_LINK:
            return _view(camera, row)
        if row not in self._fixed:
            self._fixed[row] = _view(camera, row)
        return self._fixed[row]


class Scene:
    """The convex pieces of one sub-scene's bodies, and its main light.

    Args:
        pieces: (index of the body, vertices [N, 3] in its frame) of each.
        things: (index of the body, its id in a segmentation) of those that receive shadows.
    """

    def __init__(
        self, setup: SceneSetup, pieces: Sequence[tuple[int, np.ndarray]], things: Sequence[tuple[int, int]] = ()
    ) -> None:
        main, *others = setup.lights
        x, y, z = main.direction
        self._slant = np.array([x, y], float) / -z  # metres sideways for each metre down
        total = np.maximum(irradiance(setup.ambient, setup.lights), 1e-9)
        lost = setup.shadow * np.maximum(total - irradiance(setup.ambient, tuple(others)), 0) / total
        left = np.maximum(1 - np.arange(256)[:, None] / 255 * lost, 0) ** (1 / GAMMA)
        self._curve = np.rint(255 * left).astype(np.uint8)[None]  # [1, 256, 3]: factor of 255 by shade
        lengths = [len(points) for _, points in pieces]
        self._starts = np.cumsum([0, *lengths[:-1]])
        self._parts = [slice(start, start + length) for start, length in zip(self._starts, lengths, strict=True)]
        self._local = np.concatenate([points for _, points in pieces])
        self._owner = np.repeat([index for index, _ in pieces], lengths)  # of the vertices
        self._vertices = {index: _span(self._owner == index) for index, _ in things}
        self._things = things

    def move(self, poses: np.ndarray) -> None:
        """Moves the bodies to `poses` [N, 7], world frame; NaN where the sub-scene lacks one."""
        turns = np.zeros((len(poses), 3, 3))
        there = ~np.isnan(poses[:, 0])
        turns[there] = Rotation.from_quat(poses[there, 3:], scalar_first=True).as_matrix()
        self._points = np.einsum("nij,nj->ni", turns[self._owner], self._local) + poses[self._owner, :3]
        self._spots = (self._points[:, :2] + self._slant * (self._points[:, 2:] - TABLE.z)).astype(np.float32)
        low, high = (
            of.reduceat(np.column_stack([self._spots, self._points[:, 2]]), self._starts)
            for of in (np.minimum, np.maximum)
        )
        self._low, self._high, self._bottoms, self._tops = low[:, :2], high[:, :2], low[:, 2].tolist(), high[:, 2]
        self._hulls: dict[int, np.ndarray] = {}

    def shade(self, ids: np.ndarray, bodies: np.ndarray, view: View, outline: np.ndarray | None) -> np.ndarray:
        """Returns uint8 [H, W], how far each pixel is in the shadow; 255 = fully.

        Args:
            ids: [H, W] of the bodies shown.
            bodies: bool [H, W], False where the table shows.
            outline: uint8 [cells, cells], 255 on the table's top; None: everywhere.
        """
        drawn = self.shadow(TABLE, self.casting(TABLE))
        drawn = drawn if outline is None else cv2.bitwise_and(drawn, outline)
        shade = np.zeros(ids.shape, np.uint8)
        _cover(shade, (~bodies).view(np.uint8), _extent(drawn, view, ids.shape), drawn, TABLE, view)
        for index, id in self._things:
            window = self._above(index)
            casting = self.casting(window)
            if casting:
                mask = (ids == id).view(np.uint8)
                _cover(shade, mask, cv2.boundingRect(mask), self.shadow(window, casting), window, view, on=True)
        return shade

    def casting(self, window: Window) -> list[int]:
        """Returns the pieces that rise above the window's plane and whose shadow may meet the window."""
        move = self._slant * (TABLE.z - window.z) - (window.x, window.y)
        near = ((self._low + move < window.half) & (self._high + move > -window.half)).all(1)
        return np.flatnonzero(near & (self._tops > window.z + ABOVE_M)).tolist()

    def shadow(self, window: Window, pieces: list[int]) -> np.ndarray:
        """Returns uint8 [cells, cells], 255 in the full shadow of `pieces`."""
        drawn = np.zeros((window.cells, window.cells), np.uint8)
        start = (self._slant * (TABLE.z - window.z) / CELL_M + window.origin) * (1 << _FRACTION)
        hulls = [self._hull(piece, window.z) for piece in pieces]
        if hulls:
            cells, end = np.rint(np.concatenate(hulls) * ((1 << _FRACTION) / CELL_M) + start).astype(np.int32), 0
            for hull in hulls:
                first, end = end, end + len(hull)
                cv2.fillConvexPoly(drawn, cells[first:end], 255, cv2.LINE_AA, _FRACTION)
        return cv2.LUT(cv2.blur(drawn, (SOFT_CELLS, SOFT_CELLS)), _SOFT_EDGE)

    def _hull(self, piece: int, height: float) -> np.ndarray:
        """Returns [N, 2], the outline of a piece's shadow on the plane at `height`, moved along the light to the table.

        Only what lies above the plane casts it.
        """
        if self._bottoms[piece] > height - ABOVE_M:  # the same on all planes below the piece
            if piece not in self._hulls:
                self._hulls[piece] = cv2.convexHull(self._spots[self._parts[piece]])[:, 0]
            return self._hulls[piece]
        points = _upper_part(self._points[self._parts[piece]], height)
        spots = points[:, :2] + self._slant * (points[:, 2:] - TABLE.z)
        return cv2.convexHull(spots.astype(np.float32))[:, 0]

    def _above(self, index: int) -> Window:
        """Returns the window around a body, at the height of its top."""
        points = self._points[self._vertices[index]]
        low, high = points.min(0).tolist(), points.max(0).tolist()
        x, y = ((low[axis] + high[axis]) / 2 for axis in (0, 1))
        half = max(high[axis] - low[axis] for axis in (0, 1)) / 2
        return Window(x, y, half + MARGIN_M, high[2])

    def darken(self, image: np.ndarray, shade: np.ndarray) -> None:
        """Darkens the image [H, W, 3] in place."""
        left, top, width, height = cv2.boundingRect(shade)
        if width:
            part = np.s_[top : top + height, left : left + width]
            factors = cv2.LUT(cv2.merge([shade[part]] * 3), self._curve)
            image[part] = cv2.multiply(image[part], factors, scale=1 / 255)


def _span(chosen: np.ndarray) -> slice:
    """Returns the slice of the true elements, which lie side by side."""
    (places,) = np.nonzero(chosen)
    return slice(int(places[0]), int(places[-1]) + 1)


def _upper_part(points: np.ndarray, height: float) -> np.ndarray:
    """Returns points [N, 3] whose convex hull is the part above a plane of the hull of `points`."""
    above = points[:, 2] >= height
    upper, lower = points[above], points[~above]
    share = (upper[:, None, 2:] - height) / (upper[:, None, 2:] - lower[None, :, 2:])
    return np.concatenate([upper, (upper[:, None] + share * (lower - upper[:, None])).reshape(-1, 3)])


def _shines_down(setup: SceneSetup) -> bool:
    return bool(setup.lights) and setup.lights[0].direction[2] < 0


def _view(camera: RenderCamera, row: int) -> View:
    """Returns the present view of a sub-scene's camera."""
    component = camera._render_cameras[row]
    mount = camera.mount.pose.raw_pose[row].cpu().numpy()
    pose = (sapien.Pose(mount[:3], mount[3:]) * component.local_pose).to_transformation_matrix().astype(np.float64)
    return pinhole(pose[:3, 3], pose[:3, :3], component.get_intrinsic_matrix())


def pinhole(position: np.ndarray, rotation: np.ndarray, matrix: np.ndarray) -> View:
    """Returns the view of a camera.

    Args:
        position, rotation: In the world, [3] and [3, 3]; columns of `rotation`: forward, left, up.
        matrix: Its 3x3 intrinsic matrix; pixel i spans [i, i + 1].
    """
    focal, centre = np.array([matrix[0, 0], matrix[1, 1]], float), np.array([matrix[0, 2], matrix[1, 2]], float)
    right, down = -rotation[:, 1] / focal[0], -rotation[:, 2] / focal[1]
    middle = centre - 0.5
    return View(position, np.stack([right, down, rotation[:, 0] - right * middle[0] - down * middle[1]], axis=1))


def _cover(
    shade: np.ndarray,
    mask: np.ndarray,
    rectangle: tuple[int, ...],
    drawn: np.ndarray,
    window: Window,
    view: View,
    on: bool = False,
) -> None:
    """Writes the shadow map `drawn` of a plane into the pixels of `shade` in `mask` and the rectangle.

    Args:
        rectangle: Left, top, width, height.
        on: Pixels beyond the map have the value of its edge, not 0: the sides of the thing whose top it is.
    """
    left, top, width, height = rectangle
    if not width or not height or view.position[2] <= window.z:  # such a camera sees no top
        return
    part = np.s_[top : top + height, left : left + width]
    to_plane = view.to_plane(window.z)
    to_plane[:, 2] += to_plane[:, 0] * left + to_plane[:, 1] * top
    flags, beyond = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_REPLICATE if on else cv2.BORDER_CONSTANT
    seen = cv2.warpPerspective(drawn, window.to_cells() @ to_plane, (width, height), flags=flags, borderMode=beyond)
    a, b, c = to_plane[2]
    if min(c, c + a * width, c + b * height, c + a * width + b * height) <= 0:
        y, x = np.mgrid[0:height, 0:width]
        seen[a * x + b * y + c <= 0] = 0  # above the horizon
    cv2.copyTo(seen, mask[part], shade[part])


def _extent(drawn: np.ndarray, view: View, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Returns left, top, width and height of a part of an image of `size` that contains all shadows on the table."""
    left, top, width, height = cv2.boundingRect(drawn)
    if not width or view.position[2] <= TABLE.z:
        return 0, 0, 0, 0
    (a, b, c), (d, e, f), (g, h, i) = view.of_table
    corners = [(x, y) for x in (left - 1, left + width) for y in (top - 1, top + height)]
    depths = [g * x + h * y + i for x, y in corners]
    if min(depths) <= 0:  # behind the camera
        return 0, 0, size[1], size[0]
    columns = [(a * x + b * y + c) / depth for (x, y), depth in zip(corners, depths, strict=True)]
    rows = [(d * x + e * y + f) / depth for (x, y), depth in zip(corners, depths, strict=True)]
    left, right = (min(max(math.floor(column), 0), size[1]) for column in (min(columns), max(columns) + 2))
    top, bottom = (min(max(math.floor(row), 0), size[0]) for row in (min(rows), max(rows) + 2))
    return left, top, right - left, bottom - top


def _pieces(bodies: list[Body], row: int) -> list[tuple[int, np.ndarray]]:
    """Returns the convex pieces of the bodies that sub-scene `row` has, see `Scene`."""
    there = {index: body for index, body in enumerate(bodies) if isinstance(body, Link) or row in body.rows}
    parts = {
        index: body._bodies[row] if isinstance(body, Link) else body.actor._bodies[body.index(row)]
        for index, body in there.items()
    }
    return [(index, points) for index, part in parts.items() for points in convex_pieces(part)]


def _ids(bodies: list[Body], row: int) -> list[tuple[int, int]]:
    """Returns index and id of each object and receptacle that sub-scene `row` has."""
    things = [(index, body) for index, body in enumerate(bodies) if isinstance(body, Thing) and row in body.rows]
    return [(index, int(thing.actor.per_scene_id[thing.index(row)])) for index, thing in things]


def _outline(world: str, table: str) -> np.ndarray | None:
    """Returns uint8 [cells, cells], 255 on the table's top; None in other worlds: shadows fall on all of the image."""
    if world != "builtin":
        return None
    across = (np.arange(TABLE.cells) + 0.5) * CELL_M - TABLE.half
    x, y = np.meshgrid(across + TABLE.x, across + TABLE.y)
    return np.where(tables.distance(tables.named(table), x, y) < 0, 255, 0).astype(np.uint8)
