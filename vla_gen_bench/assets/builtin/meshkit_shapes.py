"""Textured primitives and the texture atlas of the mesh kit; import them from ``meshkit``.

Primitives are unit-agnostic and z-up. Texture coordinates follow glTF:
(0, 0) is the first pixel of the first image row. On every primitive u runs around the surface (counter-clockwise seen
from the end of the axis) and v runs along it, so image row 0 is at the first point of the profile or curve.
Nothing here draws random numbers or reads the clock: the same calls write the same bytes.
"""

import io
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

CREASE_DEG = 50.0


@dataclass(frozen=True)
class Region:
    """A rectangle of an atlas, as texture coordinates already inset by half a pixel."""

    low: tuple[float, float]
    high: tuple[float, float]


@dataclass(frozen=True)
class Mesh:
    """Triangles with one texture coordinate per vertex; normals are derived when the mesh is written.

    Attributes:
        vertices: float [V, 3].
        faces: int [F, 3], counter-clockwise seen from outside.
        uv: float [V, 2].
        crease_deg: edges whose faces differ by more than this are shaded as hard edges (0 facets everything).
    """

    vertices: NDArray
    faces: NDArray
    uv: NDArray
    crease_deg: float = CREASE_DEG

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> "Mesh":
        return replace(self, vertices=self.vertices + (x, y, z))

    def turned(self, axis: str, degrees: float) -> "Mesh":
        """Rotates about a fixed axis through the origin, 'x', 'y' or 'z' (right-handed)."""
        return replace(self, vertices=Rotation.from_euler(axis, degrees, degrees=True).apply(self.vertices))

    def scaled(self, factor: ArrayLike) -> "Mesh":
        """Scales by one positive factor or by three."""
        return replace(self, vertices=self.vertices * np.asarray(factor, float))

    def warped(self, function) -> "Mesh":
        """Replaces the vertices by ``function(vertices)``, [V, 3] -> [V, 3]."""
        return replace(self, vertices=np.asarray(function(self.vertices.copy()), float))

    def painted(self, region: Region) -> "Mesh":
        """Maps texture coordinates in [0, 1] to a region of the atlas; call it once per mesh."""
        low, high = np.array(region.low), np.array(region.high)
        return replace(self, uv=low + np.clip(self.uv, 0, 1) * (high - low))

    def projected(self, axis: str) -> "Mesh":
        """Texture coordinates seen along an axis: the two others, bounding box -> [0, 1], row 0 at the top."""
        across, up = {"x": (1, 2), "y": (0, 2), "z": (0, 1)}[axis]
        low, size = self.vertices.min(0), np.maximum(np.ptp(self.vertices, axis=0), 1e-9)
        unit = (self.vertices - low) / size
        return replace(self, uv=np.stack([unit[:, across], 1 - unit[:, up]], axis=1))

    def two_sided(self) -> "Mesh":
        """Adds the back faces of an open sheet, which renderers cull."""
        back = self.faces[:, ::-1] + len(self.vertices)
        doubled = np.concatenate([self.vertices, self.vertices])
        return replace(self, vertices=doubled, faces=np.concatenate([self.faces, back]),
                       uv=np.concatenate([self.uv, self.uv]))


@dataclass
class Atlas:
    """A square RGB texture filled left to right, row by row; the unused rest stays grey."""

    size: int = 128
    pixels: NDArray = field(init=False)
    _cursor: list[int] = field(default_factory=lambda: [0, 0, 0], init=False)  # x, y, height of the current row

    def __post_init__(self) -> None:
        self.pixels = np.full((self.size, self.size, 3), 128, np.uint8)

    def add(self, image: ArrayLike) -> Region:
        """Copies an [H, W, 3] image, 0..255, into the atlas and returns its place. Raises ValueError when full."""
        image = np.clip(np.rint(np.asarray(image, float)), 0, 255).astype(np.uint8)
        height, width = image.shape[:2]
        x, y, row = self._cursor
        if x + width > self.size:
            x, y, row = 0, y + row, 0
        if x + width > self.size or y + height > self.size:
            raise ValueError(f"atlas of {self.size} px is full: no room for {width} x {height} px")
        self.pixels[y:y + height, x:x + width] = image
        self._cursor = [x + width, y, max(row, height)]
        low, high = (x + 0.5, y + 0.5), (x + width - 0.5, y + height - 0.5)
        return Region(tuple(c / self.size for c in low), tuple(c / self.size for c in high))

    def solid(self, rgb: ArrayLike) -> Region:
        """A 4 x 4 pixel patch of one sRGB colour, 0..255."""
        return self.add(np.broadcast_to(np.asarray(rgb, float), (4, 4, 3)))

    def png(self) -> bytes:
        """Uncompressed PNG: its bytes do not depend on the zlib build."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, "PNG", compress_level=0)
        return buffer.getvalue()


def surface(points: ArrayLike, crease_deg: float = CREASE_DEG) -> Mesh:
    """Grid of points [rows, columns, 3] -> mesh; v follows the mean row distance; collapsed cells are dropped."""
    points = np.asarray(points, float)
    rows, columns = points.shape[:2]
    steps = np.linalg.norm(np.diff(points, axis=0), axis=-1).mean(axis=1)
    v = np.concatenate([[0.0], np.cumsum(steps)]) / max(steps.sum(), 1e-9)
    uv = np.stack(np.meshgrid(np.linspace(0, 1, columns), v), axis=-1).reshape(-1, 2)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    return _without_slivers(Mesh(points.reshape(-1, 3), faces, uv, crease_deg))


def _without_slivers(mesh: Mesh) -> Mesh:
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    shortest = np.min([np.linalg.norm(p - q, axis=1) for p, q in ((a, b), (b, c), (c, a))], axis=0)
    return replace(mesh, faces=mesh.faces[shortest > 1e-6 * np.ptp(mesh.vertices)])


def ring(segments: int, start_deg: float = 0.0) -> NDArray:
    """Unit circle [segments + 1, 2], first point repeated at the end as the texture seam."""
    angle = np.linspace(0, 2 * np.pi, segments + 1) + np.radians(start_deg)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def lathe(profile: ArrayLike, segments: int = 16, crease_deg: float = CREASE_DEG) -> Mesh:
    """Surface of revolution about z of a profile [N, 2] of (radius, z), outside to the right of the travel direction.

    Upward is outward. Radius 0 at an end closes it with a cap; coming back down inside makes a hollow vessel.
    """
    profile, circle = np.asarray(profile, float), ring(segments)
    points = np.empty((len(profile), segments + 1, 3))
    points[..., :2] = profile[:, None, :1] * circle
    points[..., 2] = profile[:, None, 1]
    return surface(points, crease_deg)


def sweep(curve: ArrayLike, radii: ArrayLike, segments: int = 8, up=(0, 0, 1), crease_deg: float = CREASE_DEG) -> Mesh:
    """Closed tube along a curve [N, 3]; radii is [N], or [N, 2] as (sideways, along ``up``).

    ``up`` must not be parallel to the curve anywhere: for a curve in a plane pass the plane's normal.
    """
    curve, radii = np.asarray(curve, float), np.asarray(radii, float)
    radii = radii if radii.ndim == 2 else np.stack([radii, radii], axis=1)
    tangent = np.gradient(curve, axis=0)
    side = unit_rows(np.cross(np.asarray(up, float), tangent))
    upward = unit_rows(np.cross(tangent, side))
    circle = ring(segments)
    offset = (circle[:, None, :1] * (side * radii[:, :1])[None] + circle[:, None, 1:] * (upward * radii[:, 1:])[None])
    tube = curve[:, None] + offset.transpose(1, 0, 2)
    caps = [np.broadcast_to(p, (1, *tube.shape[1:])) for p in (curve[0], curve[-1])]
    return surface(np.concatenate([caps[0], tube, caps[1]]), crease_deg)


def unit_rows(vectors: NDArray) -> NDArray:
    """Scales every row to length 1; zero rows stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def ellipsoid(radii: ArrayLike, segments: int = 12, rows: int = 8, squareness: ArrayLike = (1.0, 1.0)) -> Mesh:
    """Superellipsoid about the origin, poles on z. Squareness (vertical, horizontal): 1 round, towards 0 a box."""
    vertical, horizontal = np.broadcast_to(squareness, 2)
    latitude = np.linspace(-np.pi / 2, np.pi / 2, rows + 1)
    height, reach = (np.sign(f) * np.abs(f) ** vertical for f in (np.sin(latitude), np.cos(latitude).round(12)))
    circle = ring(segments).round(12)
    circle = np.sign(circle) * np.abs(circle) ** horizontal
    points = np.empty((rows + 1, segments + 1, 3))
    points[..., :2] = reach[:, None, None] * circle
    points[..., 2] = height[:, None]
    return surface(points * np.asarray(radii, float))


def extrude(polygon: ArrayLike, steps: ArrayLike, crease_deg: float = 30.0) -> Mesh:
    """Stacks scaled copies of a polygon [N, 2] that is star-shaped about the origin, and caps both ends.

    Args:
        polygon: counter-clockwise corners.
        steps: [M, 2] of (scale, z), bottom to top; ((1, 0), (1, h)) is a plain prism.
    """
    polygon, steps = np.asarray(polygon, float), np.asarray(steps, float)
    loop = np.concatenate([polygon, polygon[:1]])
    steps = np.concatenate([[(0, steps[0, 1])], steps, [(0, steps[-1, 1])]])
    points = np.empty((len(steps), len(loop), 3))
    points[..., :2] = steps[:, :1, None] * loop
    points[..., 2] = steps[:, 1:]
    return surface(points, crease_deg)


def box(size: ArrayLike, bevel: float = 0.0) -> Mesh:
    """Box [x, y, z] about the origin whose edges are all chamfered by ``bevel`` (0 for sharp edges, 12 triangles)."""
    half = np.asarray(size, float) / 2
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    inset = half - bevel
    corners = [signs * np.where(np.arange(3) == axis, half, inset) for axis in range(3)] if bevel else [signs * half]
    vertices, faces = hull(np.concatenate(corners))
    flat = vertices[faces].reshape(-1, 3)
    return Mesh(flat, np.arange(len(flat)).reshape(-1, 3), np.zeros((len(flat), 2)), 0.0).projected("z")


def hull(points: ArrayLike) -> tuple[NDArray, NDArray]:
    """Convex hull of points [N, 3]: vertices [V, 3] and outward faces [F, 3]. Raises QhullError when they are flat."""
    points = np.unique(np.asarray(points, float), axis=0)
    qhull = ConvexHull(points)
    a, b, c = (points[qhull.simplices[:, i]] for i in range(3))
    outward = np.einsum("ij,ij->i", np.cross(b - a, c - a), qhull.equations[:, :3]) > 0
    faces = np.where(outward[:, None], qhull.simplices, qhull.simplices[:, ::-1])
    kept, renumbered = np.unique(faces, return_inverse=True)
    return points[kept], renumbered.reshape(-1, 3)
