"""Key maps: assign a part of an observation to each key of a server's message.

keys:
  observation/image: image                       # or image.wrist
  observation/state: state.ee_position+ee_euler+gripper_opening
  images: {cam_high: image}                      # maps nest
  prompt: instruction
  unnorm_key: {value: bridge_orig}               # a constant
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from vla_gen_bench.errors import UserError, one_line, suggest
from vla_gen_bench.protocol import CAMERAS, EXTERNAL, STATE, Needs, Observation

# BridgeData V2's state in its data sets' layout: x, y, z, roll, pitch, yaw, 0, gripper.
SOURCES = (
    "image", *(f"image.{camera}" for camera in CAMERAS), "state", *(f"state.{part}" for part in STATE),
    *(f"history.{camera}" for camera in CAMERAS), "instruction", "step",
)  # fmt: skip

# openpi: the keys that inspect-robots-widowx sends; vla-eval: its observation format; act: openvla's deploy.py.
BRIDGE: dict[str, dict[str, Any]] = {
    "openpi": {"observation/image": "image", "prompt": "instruction"},
    "vla-eval": {"images": {"primary": "image"}, "task_description": "instruction"},
    "act": {"image": "image", "instruction": "instruction", "unnorm_key": {"value": "bridge_orig"}},
}


def check_keys(keys: Any, where: str) -> dict[str, Any]:
    """Returns a key map; raises `UserError` for one with an unknown source, naming the key."""
    if not isinstance(keys, Mapping) or not keys:
        raise UserError(f"{where}: expected a map such as {{observation/image: image, prompt: instruction}}")
    for path, source in _leaves(keys):
        for part in _parts(source) if isinstance(source, str) else [source]:
            if part not in SOURCES:
                hint = suggest(str(part), SOURCES)
                listed = "" if "known:" in hint else f" known: {', '.join(SOURCES)}"
                raise UserError(f"{where}: {path}: no piece '{one_line(part, 80)}' of an observation{hint}{listed}")
    return dict(keys)


def _leaves(keys: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, source in keys.items():
        if not isinstance(source, Mapping):
            yield f"{path}{name}", source
        elif set(source) != {"value"}:
            yield from _leaves(source, f"{path}{name}.")


def _parts(source: str) -> list[str]:
    """Returns ["state.a", "state.b"] for "state.a+b"."""
    head, dot, rest = source.partition(".")
    return [f"{head}.{part.strip()}" for part in rest.split("+")] if dot and head == "state" else [source]


def needs_of(keys: Mapping[str, Any], needs: Needs = Needs()) -> Needs:  # noqa: B008
    """Returns the inputs needed to fill a key map."""
    sources = [part for _, source in _leaves(keys) for part in _parts(source)]
    cameras = [
        source.partition(".")[2] or EXTERNAL for source in sources if source.split(".")[0] in ("image", "history")
    ]
    return replace(
        needs,
        state=needs.state or any(source.startswith("state") for source in sources),
        cameras=tuple(camera for camera in CAMERAS if camera in cameras) or needs.cameras,
        history=max(needs.history, 2) if any(source.startswith("history") for source in sources) else needs.history,
    )


def fill(keys: Mapping[str, Any], observation: Observation, row: int) -> dict[str, Any]:
    """Returns the message for episode `row`: images uint8 [H, W, 3], states float32 [n]."""
    return {name: _take(source, observation, row) for name, source in keys.items()}


def _take(source: Any, observation: Observation, row: int) -> Any:
    if isinstance(source, Mapping):
        return source["value"] if set(source) == {"value"} else fill(source, observation, row)
    head, _, rest = source.partition(".")
    if head == "image":
        return observation.images[rest or EXTERNAL][row]
    if head == "history":
        return observation.history[rest][row]
    if head == "state":
        parts = [part.partition(".")[2] for part in _parts(source)] if rest else list(STATE)
        return np.concatenate([observation.part(part)[row] for part in parts])
    return observation.instruction[row] if head == "instruction" else int(observation.step[row])


def describe(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a summary of a message for logs and errors: {"observation/image": "uint8 [224, 224, 3]"}."""
    described: dict[str, Any] = {}
    for name, value in message.items():
        if isinstance(value, Mapping):
            described[str(name)] = describe(value)
        elif isinstance(value, np.ndarray):
            described[str(name)] = f"{value.dtype} {list(value.shape)}"
        else:
            described[str(name)] = type(value).__name__
    return described
