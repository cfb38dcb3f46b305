"""The container of a .glb file (binary glTF 2.0): a JSON description and the data that it refers to."""

from __future__ import annotations

import json
import struct
from typing import Any

from vla_gen_bench.data import parse_json

_HEADER = struct.Struct("<4sII")  # magic, version, length of the file
_CHUNK = struct.Struct("<I4s")  # length, kind
_START = _HEADER.size + _CHUNK.size


def parse(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Returns the description and the data; arbitrary bytes may raise anything."""
    length, _ = _CHUNK.unpack_from(content, _HEADER.size)
    gltf = parse_json(content[_START : _START + length], dict[str, Any], shown="its description")
    return gltf, memoryview(content)[_START + length + _CHUNK.size :]


def view(gltf: dict[str, Any], data: memoryview, number: int) -> memoryview:
    """Returns the bytes of a buffer view."""
    found = gltf["bufferViews"][number]
    start = found.get("byteOffset", 0)
    return data[start : start + found["byteLength"]]


def with_description(content: bytes, gltf: dict[str, Any]) -> bytes:
    """Returns a .glb with another description; data it no longer refers to stays."""
    length, _ = _CHUNK.unpack_from(content, _HEADER.size)
    rest = content[_START + length :]
    text = json.dumps(gltf).encode()
    text += b" " * (-len(text) % 4)
    total = _START + len(text) + len(rest)
    return _HEADER.pack(b"glTF", 2, total) + _CHUNK.pack(len(text), b"JSON") + text + rest
