"""Small numpy mesh kit: textured primitives, a texture atlas, and the GLB / OBJ writers of the builtin pack.

Primitives are unit-agnostic and z-up; the writers scale to metres and round to 1e-6 m. Texture coordinates follow glTF:
(0, 0) is the first pixel of the first image row. On every primitive u runs around the surface (counter-clockwise seen
from the end of the axis) and v runs along it, so image row 0 lies at the first point of the profile or curve.
Nothing here draws random numbers or reads the clock: the same calls write the same bytes.
"""

import io
import json
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

ROUNDING_M = 6  # decimals kept in written files
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
        crease_deg: edges whose faces differ by more than this are drawn hard (0 facets everything).
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
        """Texture coordinates seen along an axis: the two other coordinates, bounding box -> [0, 1], row 0 at the top."""
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
    """Grid of points [rows, columns, 3] -> mesh; v follows the mean distance between rows; collapsed cells are dropped."""
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
    """Surface of revolution about z of a profile [N, 2] of (radius, z), outside to the right of the direction of travel.

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
    side = _unit(np.cross(np.asarray(up, float), tangent))
    upward = _unit(np.cross(tangent, side))
    circle = ring(segments)
    offset = (circle[:, None, :1] * (side * radii[:, :1])[None] + circle[:, None, 1:] * (upward * radii[:, 1:])[None])
    tube = curve[:, None] + offset.transpose(1, 0, 2)
    caps = [np.broadcast_to(p, (1, *tube.shape[1:])) for p in (curve[0], curve[-1])]
    return surface(np.concatenate([caps[0], tube, caps[1]]), crease_deg)


def _unit(vectors: NDArray) -> NDArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def ellipsoid(radii: ArrayLike, segments: int = 12, rows: int = 8, squareness: ArrayLike = (1.0, 1.0)) -> Mesh:
    """Superellipsoid about the origin, poles on z. Squareness (vertical, horizontal): 1 round, towards 0 a box."""
    vertical, horizontal = np.broadcast_to(squareness, 2)
    latitude = np.linspace(-np.pi / 2, np.pi / 2, rows + 1)
    height, reach = (np.sign(f) * np.abs(f) ** vertical for f in (np.sin(latitude), np.cos(latitude).round(12)))
    circle = ring(segments).round(12)
    circle = np.sign(circle) * np.abs(circle) ** horizontal
    points = np.concatenate([reach[:, None, None] * circle, np.broadcast_to(height[:, None, None], (rows + 1, segments + 1, 1))], -1)
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
    points = np.concatenate([steps[:, :1, None] * loop, np.broadcast_to(steps[:, 1:, None], (len(steps), len(loop), 1))], -1)
    return surface(points, crease_deg)


def box(size: ArrayLike, bevel: float = 0.0) -> Mesh:
    """Box [x, y, z] about the origin whose edges are all chamfered by ``bevel`` (0 for sharp edges, 12 triangles)."""
    half, signs = np.asarray(size, float) / 2, np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
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


def merge(meshes: list[Mesh]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Joins meshes into arrays for a renderer: vertices [V, 3], normals [V, 3], uv [V, 2], faces [F, 3]."""
    shaded = [_shaded(mesh) for mesh in meshes]
    offsets = np.cumsum([0] + [len(s[0]) for s in shaded])
    faces = np.concatenate([s[3] + offset for s, offset in zip(shaded, offsets)])
    return *(np.concatenate([s[i] for s in shaded]) for i in range(3)), faces


def _shaded(mesh: Mesh) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    corners = mesh.vertices[mesh.faces]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    size = max(np.ptp(mesh.vertices), 1e-9)
    place = np.unique((corners.reshape(-1, 3) / size).round(5), axis=0, return_inverse=True)[1].ravel()
    normals = _corner_normals(np.repeat(area, 3, axis=0), place, mesh.crease_deg)
    table = np.concatenate([corners.reshape(-1, 3), normals.round(4), mesh.uv[mesh.faces].reshape(-1, 2)], axis=1)
    rows, index = np.unique(table.round(9), axis=0, return_inverse=True)
    return rows[:, :3], rows[:, 3:6], rows[:, 6:], index.reshape(-1, 3)


def _corner_normals(area: NDArray, place: NDArray, crease_deg: float) -> NDArray:
    """Area-weighted mean over the faces at the same place that lie within the crease angle, per face corner."""
    unit, result = _unit(area), np.empty_like(area)
    order = np.argsort(place, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(place[order])) + 1):
        near = unit[group] @ unit[group].T > np.cos(np.radians(crease_deg)) - 1e-9
        result[group] = near @ area[group]
    return _unit(result)


def bounds(meshes: list[Mesh], scale: float = 1.0) -> tuple[NDArray, NDArray]:
    """Axis-aligned corners of the meshes, low and high, in metres when ``scale`` is metres per unit."""
    vertices = np.concatenate([mesh.vertices[np.unique(mesh.faces)] for mesh in meshes]) * scale
    return vertices.min(axis=0).round(ROUNDING_M), vertices.max(axis=0).round(ROUNDING_M)


def write_glb(path: Path, meshes: list[Mesh], atlas: Atlas, scale: float = 1.0, roughness: float = 0.8) -> None:
    """Writes the meshes as one glTF primitive with the atlas embedded. ``scale`` is metres per unit."""
    vertices, normals, uv, faces = merge(meshes)
    vertices = (vertices * scale).round(ROUNDING_M).astype("<f4")
    chunks = [vertices.tobytes(), normals.astype("<f4").tobytes(), uv.astype("<f4").tobytes(),
              faces.astype("<u2").tobytes(), atlas.png()]
    chunks = [chunk + b"\0" * (-len(chunk) % 4) for chunk in chunks]
    text = json.dumps(_gltf(vertices, faces.size, [len(c) for c in chunks], roughness), separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    binary = b"".join(chunks)
    total = 12 + 8 + len(text) + 8 + len(binary)
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, total) + struct.pack("<I4s", len(text), b"JSON") + text
                     + struct.pack("<I4s", len(binary), b"BIN\0") + binary)


def _gltf(vertices: NDArray, indices: int, lengths: list[int], roughness: float) -> dict:
    starts, count = np.cumsum([0] + lengths).tolist(), len(vertices)
    accessors = [{"bufferView": i, "componentType": 5126, "count": count, "type": t} for i, t in enumerate(("VEC3", "VEC3", "VEC2"))]
    accessors[0] |= {"min": vertices.min(0).tolist(), "max": vertices.max(0).tolist()}
    accessors.append({"bufferView": 3, "componentType": 5123, "count": indices, "type": "SCALAR"})
    surface_look = {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": roughness}
    primitive = {"attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2}, "indices": 3, "material": 0}
    return {
        "asset": {"version": "2.0", "generator": "vla-gen-bench meshkit"}, "scene": 0, "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}], "meshes": [{"primitives": [primitive]}], "accessors": accessors,
        "materials": [{"pbrMetallicRoughness": surface_look}], "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": 9729, "minFilter": 9729, "wrapS": 33071, "wrapT": 33071}],
        "images": [{"bufferView": 4, "mimeType": "image/png"}], "buffers": [{"byteLength": starts[-1]}],
        "bufferViews": [{"buffer": 0, "byteOffset": s, "byteLength": n} for s, n in zip(starts, lengths)],
    }


def write_collision(path: Path, pieces: list[ArrayLike], scale: float = 1.0) -> float:
    """Writes the convex hull of each point set as its own OBJ group and returns their summed volume in m^3.

    SAPIEN loads one convex shape per group (``add_multiple_convex_collisions_from_file``).
    """
    lines, first, volume = [], 1, 0.0
    for number, piece in enumerate(pieces):
        vertices, faces = hull((np.asarray(piece, float) * scale).round(ROUNDING_M))
        lines.append(f"o piece_{number}")
        lines += ["v %.6f %.6f %.6f" % tuple(v + 0.0) for v in vertices]
        lines += ["f %d %d %d" % tuple(f + first) for f in faces]
        first += len(vertices)
        volume += ConvexHull(vertices).volume
    path.write_text("\n".join(lines) + "\n")
    return volume
