"""Lean copies of models: large base colours beside the .glb, everything else untouched."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vla_gen_bench.assets import models


def png(side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def write_model(path: Path, sides: list[int], materials: list[dict]) -> Path:
    pictures = [png(side) for side in sides]
    starts = np.cumsum([0, *map(len, pictures)]).tolist()
    gltf = {
        "images": [{"bufferView": index, "mimeType": "image/png"} for index in range(len(sides))],
        "textures": [{"source": index} for index in range(len(sides))],
        "bufferViews": [{"byteOffset": s, "byteLength": len(p)} for s, p in zip(starts, pictures, strict=False)],
        "materials": materials,
    }
    text, data = json.dumps(gltf).encode(), b"".join(pictures)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    return path


def surface(colour: int, rough: int | None = None) -> dict:
    both = {} if rough is None else {"metallicRoughnessTexture": {"index": rough}}
    return {"pbrMetallicRoughness": {"baseColorTexture": {"index": colour}, **both}}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "LARGE_PIXELS", 64 * 64)


def test_pixels_count_roughness_and_metalness_twice_and_each_material(tmp_path: Path) -> None:
    model = write_model(tmp_path / "a.glb", [8, 4], [surface(0, 1), surface(0)])
    assert models.texture_pixels(model) == 64 + 2 * 16 + 64


def test_only_large_base_colours_move_out_byte_by_byte(tmp_path: Path, small: None) -> None:
    """Image 0 is a large colour, 1 a large roughness, 2 a small colour."""
    model = write_model(tmp_path / "a.glb", [64, 64, 8], [surface(0, 1), surface(2)])
    copy = models.lean_model(model, tmp_path / "cache")
    assert sorted(path.name for path in copy.parent.iterdir()) == ["0.png", "a.glb"]
    assert (copy.parent / "0.png").read_bytes() == png(64)
    content = copy.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    images = json.loads(content[20 : 20 + length])["images"]
    assert [sorted(image) for image in images] == [["uri"], ["bufferView", "mimeType"], ["bufferView", "mimeType"]]
    assert struct.unpack_from("<I", content, 8)[0] == len(content) and length % 4 == 0


def test_a_model_without_large_pictures_or_a_cache_stays_itself(tmp_path: Path, small: None) -> None:
    little = write_model(tmp_path / "little.glb", [8], [surface(0)])
    large = write_model(tmp_path / "large.glb", [64], [surface(0)])
    (tmp_path / "file").write_text("not a folder")
    assert models.lean_model(little, tmp_path / "cache") == little
    assert models.lean_model(large, tmp_path / "file") == large
