"""Small numpy mesh kit: textured primitives, a texture atlas, and the GLB / OBJ writers of the builtin pack.

Primitives are unit-agnostic and z-up; the writers scale to metres and round to 1e-6 m. Nothing here draws random
numbers or reads the clock: the same calls write the same bytes.
"""

import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull

from vla_gen_bench.assets.builtin.meshkit_shapes import (
    CREASE_DEG, Atlas, Mesh, Region, box, ellipsoid, extrude, hull, lathe, ring, surface, sweep, unit_rows,
)

__all__ = ["CREASE_DEG", "Atlas", "Mesh", "Region", "bounds", "box", "ellipsoid", "extrude", "hull", "lathe", "merge",
           "ring", "surface", "sweep", "write_collision", "write_glb"]

ROUNDING_M = 6  # decimals kept in written files


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
    """Per face corner, the area-weighted mean normal of faces at the same point within the crease angle."""
    unit, result = unit_rows(area), np.empty_like(area)
    order = np.argsort(place, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(place[order])) + 1):
        near = unit[group] @ unit[group].T > np.cos(np.radians(crease_deg)) - 1e-9
        result[group] = near @ area[group]
    return unit_rows(result)


def bounds(meshes: list[Mesh], scale: float = 1.0) -> tuple[NDArray, NDArray]:
    """Axis-aligned corners of the meshes, low and high; in metres if ``scale`` is metres per unit."""
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
    accessors = [{"bufferView": i, "componentType": 5126, "count": count, "type": kind}
                 for i, kind in enumerate(("VEC3", "VEC3", "VEC2"))]
    accessors[0] |= {"min": vertices.min(0).tolist(), "max": vertices.max(0).tolist()}
    accessors.append({"bufferView": 3, "componentType": 5123, "count": indices, "type": "SCALAR"})
    surface_look = {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": roughness}
    primitive = {"attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2}, "indices": 3, "material": 0}
    return {
        "asset": {"version": "2.0", "generator": "vla-gen-bench meshkit"},
        "scene": 0, "scenes": [{"nodes": [0]}],
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
