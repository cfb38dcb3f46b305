"""Reads safetensors checkpoints: one file or shards, memory-mapped; every error names its file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vla_gen_bench.policies.openvla.checkpoint.extras import need
from vla_gen_bench.policies.openvla.checkpoint.tensor_files import INDEX_FILE, SINGLE_FILE, shapes_of, shards_of
from vla_gen_bench.policies.openvla.config import CheckpointError

SHOWN = 5


@dataclass(frozen=True)
class Entry:
    """A tensor's location and shape."""

    file: Path
    shape: tuple[int, ...]


class TensorFiles:
    """The tensors of a checkpoint by name, read lazily.

    Args:
        entries: Name -> location.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = dict(entries)
        self._open: dict[Path, Any] = {}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self.entries.items()}

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Returns a tensor backed by the file, or a copy as `dtype` if the types differ.

        Raises:
            CheckpointError: It holds a value that is not finite.
        """
        file = self.entries[name].file
        if file not in self._open:
            self._open[file] = need("safetensors").safe_open(file, framework="pt")
        tensor = self._open[file].get_tensor(name)
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{file}: {name}: {_count_bad(tensor)}; the checkpoint is damaged")
        return tensor if dtype is None else tensor.to(dtype)


def read_file(file: Path, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Returns every tensor of one safetensors file, checked as by `TensorFiles.read`."""
    files = open_file(file)
    return {name: files.read(name, dtype) for name in files.entries}


def open_checkpoint(folder: Path) -> TensorFiles:
    """Finds the weights in `folder`: `model.safetensors`, or the shards its index lists.

    Raises:
        CheckpointError: Neither exists, or a shard is missing, truncated or contradicts the index.
    """
    if (folder / INDEX_FILE).is_file():
        return _open_shards(folder)
    if (folder / SINGLE_FILE).is_file():
        return open_file(folder / SINGLE_FILE)
    raise CheckpointError(f"{folder}: neither {SINGLE_FILE} nor {INDEX_FILE}; only safetensors weights are read")


def open_file(file: Path) -> TensorFiles:
    """Opens one safetensors file; checks that it is complete."""
    return TensorFiles({name: Entry(file, shape) for name, shape in shapes_of(file).items()})


def check_names(expected: Mapping[str, Any], found: Iterable[str], optional: Iterable[str], where: object) -> None:
    """Raises `CheckpointError` naming tensors of `expected` that are missing, and those in neither list."""
    found, optional = set(found), set(optional)
    for what, names in (("missing", expected.keys() - found), ("unexpected", found - expected.keys() - optional)):
        if names:
            listed = ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            raise CheckpointError(f"{where}: {len(names)} {what} tensors: {listed}")


def check_shapes(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: object) -> None:
    """Raises `CheckpointError` for the first common tensor whose shapes differ."""
    for name, shape in expected.items():
        if name in found and tuple(found[name]) != tuple(shape):
            raise CheckpointError(f"{where}: {name}: has shape {list(found[name])}; expected {list(shape)}")


def _open_shards(folder: Path) -> TensorFiles:
    places = shards_of(folder)
    shards = {name: shapes_of(folder / name) for name in sorted(set(places.values()))}
    for name, shard in places.items():
        if name not in shards[shard]:
            raise CheckpointError(f"{folder / shard}: lacks the tensor {name}, which {INDEX_FILE} places there")
    for shard, header in shards.items():
        for name in header:
            if places.get(name) != shard:
                raise CheckpointError(f"{folder / shard}: holds {name}, which {INDEX_FILE} does not place there")
    return TensorFiles({name: Entry(folder / shard, shards[shard][name]) for name, shard in places.items()})


def _count_bad(tensor: Tensor) -> str:
    nans, infinities = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    return f"{nans} NaN and {infinities} infinite of {tensor.numel()} values"
