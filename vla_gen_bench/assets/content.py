"""The files of a pack and their digests, also of what they contain: equal for equal pixels and meshes.

The bytes of a generated pack differ between machines that make the same assets: another zlib compresses the same pixels
otherwise, and another processor's matrix product may give -0.0 for 0.0. Logs of such machines must be comparable.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_gen_bench.assets import glb
from vla_gen_bench.episodes.catalog import Catalog

ROBOT_MESH_SUFFIXES = (".obj", ".stl", ".glb", ".mtl", ".png")
COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}  # of glTF
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
STORAGE = ("buffers", "bufferViews", "images")  # keys of glTF that depend on how an image is compressed


def files_of(catalog: Catalog, root: Path, substitutes: dict[str, str] | None = None) -> list[str]:
    """Returns every file the catalogue uses, relative to `root`, sorted, including the robot's entire folder."""
    skip = substitutes or {}
    files = [image.image for image in (*catalog.tables, *catalog.textures)]
    for body in (*catalog.objects, *catalog.receptacles):
        files += [body.collision] + ([] if body.visual in skip else [body.visual])
    robot = (root / catalog.robot_urdf).parent
    files += [str(p.relative_to(root)) for p in robot.rglob("*") if p.suffix.lower() in ROBOT_MESH_SUFFIXES]
    return sorted({*files, catalog.robot_urdf})


def combined(files: Mapping[str, str]) -> str:
    """Returns 16 hex digits over names and digests."""
    lines = "\n".join(f"{name} {digest}" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content_digest(path: Path) -> str:
    """Returns the SHA-256 of a file's content: a PNG's pixels, a GLB's meshes and pixels, any other file's bytes."""
    data = path.read_bytes()
    kind = path.suffix.lower()
    return hashlib.sha256(_pixels(data) if kind == ".png" else _model(data) if kind == ".glb" else data).hexdigest()


def _pixels(png: bytes) -> bytes:
    from PIL import Image  # only to generate a pack: every start of a command would pay for it

    image = Image.open(io.BytesIO(png))
    return f"{image.mode} {image.size} ".encode() + image.tobytes()


def _model(content: bytes) -> bytes:
    gltf, data = glb.parse(content)
    rest = {key: value for key, value in gltf.items() if key not in STORAGE}
    parts = [json.dumps(_unsigned(rest), sort_keys=True).encode()]
    parts += [_numbers(gltf, data, accessor) for accessor in gltf.get("accessors", [])]
    parts += [_pixels(bytes(glb.view(gltf, data, image["bufferView"]))) for image in gltf.get("images", [])]
    return b"".join(hashlib.sha256(part).digest() for part in parts)


def _unsigned(value: Any) -> Any:
    """Returns JSON data with 0.0 for every -0.0."""
    if isinstance(value, dict):
        return {key: _unsigned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unsigned(item) for item in value]
    return value + 0.0 if isinstance(value, float) else value


def _numbers(gltf: dict[str, Any], data: memoryview, accessor: dict[str, Any]) -> bytes:
    kind = np.dtype(COMPONENTS[accessor["componentType"]])
    count = accessor["count"] * WIDTHS[accessor["type"]]
    start = accessor.get("byteOffset", 0)
    array = np.frombuffer(glb.view(gltf, data, accessor["bufferView"]), kind, count, start)
    return (array + kind.type(0)).tobytes()  # -0.0 + 0.0 = 0.0
