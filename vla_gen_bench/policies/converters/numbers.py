"""Converters for action values: selection, scale, normalisation, gripper, ensembles of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from vla_gen_bench.data import checked, read_json
from vla_gen_bench.errors import UserError, one_line, suggest
from vla_gen_bench.policies.converters.base import Converter
from vla_gen_bench.protocol import Observation
from vla_gen_bench.strict_yaml import parse


class Cast(Converter):
    """Only casts, as every adapter does: accepts float64, torch tensors and lists of numbers."""


class Select(Converter):
    """Keeps some numbers, in this order: `select: {dims: [0, 1, 2, 3, 4, 5, 6]}`."""

    dims: tuple[int, ...] = Field(min_length=1)

    def convert(self, actions: np.ndarray, observation: Observation) -> np.ndarray:
        if max(self.dims) >= actions.shape[-1] or min(self.dims) < -actions.shape[-1]:
            raise ValueError(f"select: dims {list(self.dims)} of actions with {actions.shape[-1]} numbers")
        return actions[..., list(self.dims)]


class Scale(Converter):
    """Multiplies translation and rotation: `scale: {translation: 0.02}`; the gripper, the last number, stays."""

    translation: float = 1.0
    rotation: float = 1.0

    def convert(self, actions: np.ndarray, observation: Observation) -> np.ndarray:
        factors = np.full(actions.shape[-1], self.rotation)
        factors[:3], factors[-1] = self.translation, 1.0
        return actions * factors


class Unnormalise(Converter):
    """Maps a data set's normalised actions to its units.

    The statistics come from a JSON `file` next to the card, `{key: {"action": {...}}}` as written by OpenVLA, OFT, RLDS
    and LeRobot, or from explicit lists.

    Args:
        mode: "q01_q99" and "min_max" map [-1, 1] to the two limits; "mean_std" multiplies and adds.
        low, high: For the first two; mean, std for the third.
        mask: False for values used unchanged; None = True for all but the last (the gripper).
        epsilon: Added to the range or spread, as some trainers do.
    """

    mode: Literal["q01_q99", "min_max", "mean_std"] = "q01_q99"
    file: str | None = None
    key: str | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    mask: tuple[bool, ...] | None = None
    epsilon: float = 0.0

    @model_validator(mode="after")
    def _complete(self) -> Unnormalise:
        names = ("mean", "std") if self.mode == "mean_std" else ("low", "high")
        missing = [name for name in names if getattr(self, name) is None]
        if missing and self.file is None:
            raise ValueError(f"mode {self.mode} needs {' and '.join(missing)}, or a file with them")
        sizes = {len(getattr(self, name)) for name in (*names, "mask") if getattr(self, name) is not None}
        if len(sizes) > 1:
            raise ValueError(f"{' and '.join(names)} and mask differ in length")
        return self

    def convert(self, actions: np.ndarray, observation: Observation) -> np.ndarray:
        names = ("mean", "std") if self.mode == "mean_std" else ("low", "high")
        first, second = (np.array(getattr(self, name)) for name in names)
        if len(first) != actions.shape[-1]:
            raise ValueError(f"unnormalise: statistics of {len(first)} numbers, actions have {actions.shape[-1]}")
        if self.mode == "mean_std":
            scaled = actions * (second + self.epsilon) + first
        else:
            scaled = 0.5 * (actions + 1) * (second - first + self.epsilon) + first
        mask = np.arange(len(first)) < len(first) - 1 if self.mask is None else np.array(self.mask)
        return np.where(mask, scaled, actions)


LIMITS = {"q01_q99": ("q01", "q99"), "min_max": ("min", "max"), "mean_std": ("mean", "std")}


def with_statistics(converter: Unnormalise, folder: Path, where: str) -> Unnormalise:
    """Returns the converter with the statistics of its file in `folder`; raises `UserError`."""
    path = folder / converter.file
    at = f"{where}: {one_line(path)}"
    entry = _entry(read_json(path, dict[str, Any], shown=at), converter.key, at)
    mine = ("mean", "std") if converter.mode == "mean_std" else ("low", "high")
    found: dict[str, Any] = {}
    for name, theirs in zip(mine, LIMITS[converter.mode], strict=True):
        if theirs not in entry:
            has = one_line(", ".join(entry), 200)
            raise UserError(f"{at}: no '{theirs}' in it for mode {converter.mode}; it has {has}")
        found[name] = checked(entry[theirs], list[float], f"{at}: {theirs}")
    mask = converter.mask
    if mask is None and entry.get("mask") is not None:
        mask = checked(entry["mask"], list[bool], f"{at}: mask")
    return parse(Unnormalise, {**converter.model_dump(), **found, "file": None, "mask": mask}, f"{at}:")


def _entry(data: dict[str, Any], key: str | None, where: str) -> dict[str, Any]:
    """Finds the action statistics in any of the known file layouts."""
    data = _mapping(data.get("norm_stats", data), f"{where}: norm_stats")
    if key is None and "action" not in data and len(data) == 1:
        key = next(iter(data))
    if key is not None:
        if key not in data:
            raise UserError(f"{where}: no '{one_line(key, 80)}' in it{suggest(key, data)}")
        data = _mapping(data[key], f"{where}: {one_line(key, 80)}")
    return _mapping(data.get("action", data), f"{where}: action")


def _mapping(data: Any, where: str) -> dict[str, Any]:
    return checked(data, dict[str, Any], where)


class Gripper(Converter):
    """Maps another gripper convention to +1 open, -1 closed: `gripper: {closed: 0, open: 1, binarise: true}`.

    Args:
        closed, open: The policy's values for closed and open; linear between them, clipped beyond them.
        binarise: Output only open or closed; open above the fraction `threshold` of the opening.
        sticky: Number of control steps for which a change of command is held before the next one counts (SimplerEnv's
            Google Robot: 15, with `relative`).
        relative: The value is a change: a small one (below half) leaves the gripper unchanged.
    """

    closed: float = 0.0
    open: float = 1.0
    binarise: bool = False
    threshold: float = Field(0.5, ge=0, le=1)
    sticky: int = Field(0, ge=0, le=100_000)
    relative: bool = False
    _held: np.ndarray | None = PrivateAttr(default=None)  # [B], the command being executed
    _left: np.ndarray | None = PrivateAttr(default=None)  # [B], control steps for which it is still held
    _execute: int = PrivateAttr(default=1)

    @model_validator(mode="after")
    def _differ(self) -> Gripper:
        if self.closed == self.open:
            raise ValueError("closed and open are the same number")
        return self

    @property
    def stateful(self) -> bool:
        return self.relative or self.sticky > 0

    def reset(self, batch: int, execute: int) -> None:
        self._held, self._left, self._execute = np.ones(batch), np.zeros(batch, int), execute

    def convert(self, actions: np.ndarray, observation: Observation) -> np.ndarray:
        share = np.clip((actions[..., -1] - self.closed) / (self.open - self.closed), 0.0, 1.0)  # [B, K]
        if self.relative:
            gripper = self._follow(2 * share - 1)
        elif self.binarise or self.sticky:
            gripper = self._follow(np.where(share > self.threshold, 1.0, -1.0))
        else:
            gripper = 2 * share - 1
        return np.concatenate([actions[..., :-1], gripper[..., None]], axis=-1)

    def _follow(self, wanted: np.ndarray) -> np.ndarray:
        """Returns [B, K] of +1 and -1; the command held after `execute` of them carries over to the next call."""
        out = np.empty_like(wanted)
        held, left = self._held.copy(), self._left.copy()
        for k in range(wanted.shape[1]):
            clear = np.abs(wanted[:, k]) > 0.5 if self.relative else np.ones(len(held), bool)
            wish = np.where(clear, np.sign(wanted[:, k]), held)
            turns = (wish != held) & (left == 0)
            left = np.where(turns, self.sticky, np.maximum(left - 1, 0))
            held = np.where(turns, wish, held)
            out[:, k] = held
            if k == self._execute - 1:
                self._held, self._left = held.copy(), left.copy()
        return out


class Ensemble(Converter):
    """Queries at every control step and combines the chunks' predictions for it: `ensemble: {method: average}`.

    Args:
        method: "newest": the first action of the newest chunk; "average": the weighted mean of all chunks that cover
            the current step.
        decay: Weights exp(-decay * i), i = 0 for the oldest chunk (ACT, Zhao et al. 2023, uses 0.01); 0 = equal.
    """

    method: Literal["newest", "average"]
    decay: float = 0.0
    _chunks: list[np.ndarray] = PrivateAttr(default_factory=list)  # [B, K, n] each, the oldest first

    @property
    def queries_every_step(self) -> bool:
        return True

    @property
    def stateful(self) -> bool:
        return self.method == "average"

    def reset(self, batch: int, execute: int) -> None:
        self._chunks = []

    def convert(self, actions: np.ndarray, observation: Observation) -> np.ndarray:
        if self.method == "newest":
            return actions[:, :1]
        self._chunks = [*self._chunks, actions][-actions.shape[1] :]
        count = len(self._chunks)
        said = np.stack([chunk[:, count - 1 - place] for place, chunk in enumerate(self._chunks)])  # [count, B, n]
        weights = np.exp(-self.decay * np.arange(count))
        return np.tensordot(weights / weights.sum(), said, axes=1)[:, None]
