"""Encodes messages as bytes: msgpack with arrays in the two common dialects, and JSON with arrays. Never pickle.

`openpi`: an array is a map with *bytes* keys, {b"__ndarray__": True, b"data", b"dtype", b"shape"}.
`vla-eval`: the same with *str* keys; images may be files: {"__image__": True, "format": "png", "data", "shape"}.
`json_numpy`, for REST: {"__numpy__": base64, "dtype", "shape"}.

A decoder takes both msgpack dialects, an encoder writes one. Layouts: openpi_client 0.1.2 `msgpack_numpy`, vla-eval
0.8 `protocol/numpy_codec`, json-numpy 2.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from typing import Any, Literal

import numpy as np

from vla_gen_bench.errors import UserError

Dialect = Literal["openpi", "vla-eval"]
ImageCodec = Literal["raw", "png", "jpeg"]
KINDS = "biuf"  # booleans, integers, floats; objects would need pickle
JPEG_QUALITY = 95
MAX_PIXELS = 4096 * 4096
MEBIBYTE = 1 << 20


class WireError(ValueError):
    """Bytes that are not a message, or a message with disallowed content."""


def need_packages() -> None:
    """Raises `UserError` if packages of the extra `remote` are missing."""
    try:
        import aiohttp  # noqa: F401
        import msgpack  # noqa: F401
        import urllib3  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise UserError(f"policies behind a server need {error.name}; pip install 'vla-gen-bench[remote]'") from None


def pack(message: Any, dialect: Dialect, images: ImageCodec = "raw") -> bytes:
    """Returns a message of plain data and arrays as msgpack.

    Args:
        images: vla-eval's encoding of uint8 [H, W, 1 | 3 | 4]; "raw" = as any other array. openpi always uses raw.
    """
    import msgpack

    def encode(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, np.ndarray):
            raise WireError(f"a {type(value).__name__} cannot be sent")
        if value.dtype.kind not in KINDS:
            raise WireError(f"an array of {value.dtype} cannot be sent")
        if dialect == "vla-eval" and images != "raw" and _is_image(value):
            return {"__image__": True, "format": images, "data": _to_file(value, images), "shape": list(value.shape)}
        fields = {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
        return fields if dialect == "vla-eval" else {name.encode(): part for name, part in fields.items()}

    return msgpack.packb(message, default=encode, use_bin_type=True)


def unpack(data: bytes, limit: int = 64 * MEBIBYTE) -> Any:
    """Returns the message in `data`, arrays of both dialects decoded and writeable.

    Raises:
        WireError: Not msgpack, larger than `limit`, or with an array that contradicts its header.
    """
    import msgpack

    if len(data) > limit:
        raise WireError(f"a message of {len(data) / MEBIBYTE:.1f} MiB; the limit is {limit / MEBIBYTE:.0f} MiB")
    try:
        return msgpack.unpackb(data, object_hook=_decode, strict_map_key=False)
    except WireError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise WireError(f"not msgpack: {' '.join(str(error).split()) or type(error).__name__}") from None


def _decode(fields: dict[Any, Any]) -> Any:
    named = {name.decode("ascii", "replace") if isinstance(name, bytes) else name: fields[name] for name in fields}
    if named.get("__ndarray__"):
        return decode_array(named.get("data"), named.get("dtype"), named.get("shape"))
    if named.get("__npgeneric__"):
        return named.get("data")
    if named.get("__image__"):
        return _decode_image(named)
    return fields


def decode_array(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    """Returns the array; raises `WireError` unless bytes, dtype and shape match."""
    if isinstance(dtype, bytes):
        dtype = dtype.decode("ascii", "replace")
    try:
        kind = np.dtype(str(dtype))
        sides = tuple(int(side) for side in shape)
    except (TypeError, ValueError):
        raise WireError(f"an array of dtype {dtype!r} and shape {shape!r}") from None
    if kind.kind not in KINDS:
        raise WireError(f"an array of {kind}; allowed are booleans, integers and floats")
    if not isinstance(data, bytes) or min(sides, default=0) < 0 or len(data) != kind.itemsize * math.prod(sides):
        raise WireError(f"an array of {kind} {list(sides)} with {len(data) if isinstance(data, bytes) else 0} bytes")
    return np.frombuffer(data, kind).reshape(sides).copy()


def _is_image(value: np.ndarray) -> bool:
    return value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] in (1, 3, 4)


def _to_file(image: np.ndarray, codec: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, codec.upper(), **({"quality": JPEG_QUALITY} if codec == "jpeg" else {}))
    return buffer.getvalue()


def _decode_image(fields: dict[str, Any]) -> np.ndarray:
    if fields.get("format") == "raw":
        return decode_array(fields.get("data"), fields.get("dtype"), fields.get("shape"))
    return decode_file(fields.get("data"))


def decode_file(data: Any) -> np.ndarray:
    """Returns uint8 [H, W, 3] of a PNG or JPEG file; raises `WireError` for anything else or a huge one."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as file:
            if file.width * file.height > MAX_PIXELS:
                raise WireError(f"an image of {file.width} x {file.height} pixels")
            return np.array(file.convert("RGB"))
    except WireError:
        raise
    except Exception as error:  # Pillow passes on any exception of its decoders
        raise WireError(f"an image that is neither PNG nor JPEG ({type(error).__name__})") from None


def dumps(message: Any) -> str:
    """Returns a message as JSON, arrays as json-numpy writes them."""

    def encode(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, np.ndarray) or value.dtype.kind not in KINDS:
            raise WireError(f"a {getattr(value, 'dtype', type(value).__name__)} cannot be sent")
        text = base64.b64encode(np.ascontiguousarray(value)).decode()
        return {"__numpy__": text, "dtype": value.dtype.str, "shape": list(value.shape)}

    return json.dumps(message, default=encode)


def loads(data: bytes | str, limit: int = 64 * MEBIBYTE) -> Any:
    """Returns the message in JSON `data`; raises `WireError` as `unpack`."""
    if len(data) > limit:
        raise WireError(f"a message of {len(data) / MEBIBYTE:.1f} MiB; the limit is {limit / MEBIBYTE:.0f} MiB")
    try:
        return json.loads(data, object_hook=_decode_json)
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {' '.join(str(error).split())}") from None


def _decode_json(fields: dict[str, Any]) -> Any:
    if "__numpy__" not in fields:
        return fields
    try:
        data = base64.b64decode(fields["__numpy__"], validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise WireError("an array that is not base64") from None
    return decode_array(data, fields.get("dtype"), fields.get("shape"))
