"""Reduces SAPIEN's memory for models: counts their texture pixels and makes copies with large images in separate files.

SAPIEN decodes an image inside a .glb into five simultaneous copies, an image in a separate file into two: for 4096x4096
pixels 345 MB against 134 MB at the peak. The decoder and the texels are the same, bit by bit.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from vla_gen_bench.assets import glb
from vla_gen_bench.assets.content import sha256
from vla_gen_bench.assets.derived import ensure_folder
from vla_gen_bench.data import MIB, read_bytes
from vla_gen_bench.errors import UserError, one_line

LARGE_PIXELS = 4_000_000  # 2048x2048 and more
LARGEST = 1024 * MIB
_SUFFIXES = {"image/jpeg": ".jpg", "image/png": ".png"}


@dataclass(frozen=True)
class _Picture:
    """An image inside a .glb: its bytes, MIME type and number of pixels."""

    content: bytes
    kind: str
    pixels: int


def lean_model(path: Path, cache: Path) -> Path:
    """Returns a copy of the .glb at `path` with large colour images in separate files, made in `cache` on first use.

    Returns `path` itself if it has no such images or the cache cannot be written.
    """
    if not _large(path):
        return path
    root, files = cache / "models" / _digest(path), _split(path)
    try:
        ensure_folder(root, files)
    except OSError:
        return path
    return root / path.name


@lru_cache(maxsize=None)
def texture_pixels(path: Path) -> int:
    """Returns the number of texture pixels SAPIEN keeps for the .glb at `path`; 0 for other models.

    Each use by a material counts; roughness and metalness count as two textures.
    """
    gltf, pictures = _read(path)
    used = Counter(index for material in gltf.get("materials", ()) for index in _used(gltf, material))
    return sum(pictures[index].pixels * count for index, count in used.items() if index in pictures)


def _used(gltf: dict[str, Any], material: dict[str, Any]) -> Iterator[int]:
    """Yields the image behind each texture SAPIEN makes for a material."""
    surface = material.get("pbrMetallicRoughness", {})
    uses = [surface.get("baseColorTexture"), *[surface.get("metallicRoughnessTexture")] * 2]
    for use in (*uses, material.get("normalTexture"), material.get("emissiveTexture")):
        if use and "source" in (texture := gltf["textures"][use["index"]]):
            yield texture["source"]


@lru_cache(maxsize=None)
def _large(path: Path) -> frozenset[int]:
    """Returns the large images used only as base colours, because SAPIEN splits others or reads them differently."""
    gltf, pictures = _read(path)
    colours, others = set(), set()
    for material in gltf.get("materials", ()):
        base = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
        first, *rest = _used(gltf, material) if base else (None, *_used(gltf, material))
        colours.add(first)
        others.update(rest)
    large = {index for index, picture in pictures.items() if picture.pixels >= LARGE_PIXELS}
    return frozenset(large & colours - others)


@lru_cache(maxsize=1)  # a scene requests the same model many times
def _split(path: Path) -> dict[Path, bytes]:
    """Returns the files of the lean copy: the model, which refers to its large images, and those images."""
    gltf, pictures = _read(path)
    files = {}
    for index in _large(path):
        name = f"{index}{_SUFFIXES[pictures[index].kind]}"
        gltf["images"][index] = {"uri": name}
        files[Path(name)] = pictures[index].content
    return {Path(path.name): glb.with_description(path.read_bytes(), gltf), **files}


def _read(path: Path) -> tuple[dict[str, Any], dict[int, _Picture]]:
    """Returns the JSON description of a .glb and its images by index; both empty for other models."""
    if path.suffix != ".glb":
        return {}, {}
    content = read_bytes(path, limit=LARGEST)
    try:
        return _parsed(content)
    except Exception as error:  # arbitrary bytes may raise anything
        raise UserError(
            f"{path}: damaged: not a GLB file ({one_line(repr(error), 80)}); fetch the pack again"
        ) from None


def _parsed(content: bytes) -> tuple[dict[str, Any], dict[int, _Picture]]:
    gltf, data = glb.parse(content)
    pictures = {}
    for index, image in enumerate(gltf.get("images", ())):
        if image.get("mimeType") in _SUFFIXES:
            pictures[index] = _picture(bytes(glb.view(gltf, data, image["bufferView"])), image["mimeType"])
    return gltf, pictures


def _picture(content: bytes, kind: str) -> _Picture:
    with Image.open(io.BytesIO(content)) as header:  # decodes nothing
        width, height = header.size
    return _Picture(content, kind, width * height)


@lru_cache(maxsize=None)
def _digest(path: Path) -> str:
    return sha256(path)[:16]
