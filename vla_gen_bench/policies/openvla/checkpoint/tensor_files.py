"""Reads what safetensors files hold, without torch: names, shapes, completeness."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, NonNegativeInt

from vla_gen_bench.data import checked, parse_json, read_json
from vla_gen_bench.policies.openvla.config import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
HEADER_LENGTH_BYTES = 8
LONGEST_HEADER = 100_000_000  # the format's own limit
FLOATS = ("F", "BF")
PACKED = 0.1  # a larger share of whole numbers is quantised weights, several to a number, and not counters


class _Index(BaseModel):
    """The used part of a shard index: tensor name -> file name."""

    weight_map: dict[str, str]


class _Tensor(BaseModel):
    """A tensor's entry in the header of a safetensors file."""

    dtype: str
    shape: tuple[NonNegativeInt, ...]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


def shapes_of(file: Path) -> dict[str, tuple[int, ...]]:
    """Returns tensor -> shape of a safetensors file, after comparing the file's length with its header."""
    return {name: tensor.shape for name, tensor in _read_header(file).items()}


def count_weights(folder: Path) -> int | None:
    """Returns the number of weights of a checkpoint; None if it has none that are read, or if they are packed."""
    if (folder / INDEX_FILE).is_file():
        files = [folder / name for name in sorted(set(shards_of(folder).values()))]
    else:
        files = [folder / SINGLE_FILE]
    if not all(file.is_file() for file in files):
        return None
    tensors = [tensor for file in files for tensor in _read_header(file).values()]
    every = sum(prod(tensor.shape) for tensor in tensors)
    floats = sum(prod(tensor.shape) for tensor in tensors if tensor.dtype.startswith(FLOATS))
    return floats if every - floats <= PACKED * every else None


def shards_of(folder: Path) -> dict[str, str]:
    """Returns tensor -> file name, from the index of a checkpoint in shards."""
    places = read_json(folder / INDEX_FILE, _Index, error=CheckpointError).weight_map
    for name in sorted(set(places.values())):
        if Path(name).name != name or name == "..":
            raise CheckpointError(f"{folder / INDEX_FILE}: shard '{name}' is no plain file name")
    return places


def _read_header(file: Path) -> dict[str, _Tensor]:
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(HEADER_LENGTH_BYTES), "little")
            text = stream.read(min(length, LONGEST_HEADER))
            size = stream.seek(0, 2)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file; the checkpoint is incomplete") from None
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    if len(text) < length:
        raise CheckpointError(f"{file}: truncated in its header, or no safetensors file ({size} bytes)")
    where = f"{file}: not a safetensors file: its header"
    header = parse_json(text, dict[str, Any], shown=where, error=CheckpointError)
    header.pop("__metadata__", None)
    tensors = checked(header, dict[str, _Tensor], where, CheckpointError)
    end = HEADER_LENGTH_BYTES + length + max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    if size != end:
        what = "truncated" if size < end else "too long"
        raise CheckpointError(f"{file}: {what}: {size} bytes, its header says {end}; download it again")
    return tensors
