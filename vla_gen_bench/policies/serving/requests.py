"""Converts a protocol's message to one episode's observation, and actions to the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla_gen_bench.errors import shown
from vla_gen_bench.policies.remote.links import VGB
from vla_gen_bench.policies.remote.wire import decode_file
from vla_gen_bench.protocol import CAMERAS, EXTERNAL, STATE_DIMS, WRIST, Needs

LARGEST_SIDE = 4096
LARGEST_NUMBER = 2**63
LONGEST_INSTRUCTION = 2000  # characters
# Other projects' names for the same inputs; the first one is ours.
NAMES = {
    EXTERNAL: (
        "observation/image",
        "image",
        "full_image",
        "external",
        "primary",
        "external_cam",
        "observation.images.external",
    ),
    WRIST: ("observation/wrist_image", "wrist_image", "wrist", "observation.images.wrist"),
    "state": ("observation/state", "state", "states", "observation.state", "proprio"),
    "instruction": ("prompt", "instruction", "task_description", "task"),
}


class BadRequest(ValueError):
    """A message that the policy cannot act on; its text goes to the client."""


@dataclass
class Request:
    """One observation of one episode.

    Attributes:
        images: Camera -> uint8 [H, W, 3].
        history: Camera -> uint8 [N, H, W, 3], from clients that send it.
        own: Data that only this project's clients send: "episode", "seed", "step". None for others, who get answers
            in Bridge's convention: gripper 0 closed .. 1 open.
    """

    images: dict[str, np.ndarray]
    state: np.ndarray | None
    instruction: str | None
    history: dict[str, np.ndarray] = field(default_factory=dict)
    own: dict[str, Any] | None = None


def parse_request(message: Any, needs: Needs) -> Request:
    """Parses a message; raises `BadRequest` naming the key and what was expected."""
    if not isinstance(message, Mapping):
        raise BadRequest(f"a message is a {type(message).__name__}; expected a map of keys")
    flat = {**message, **(message["images"] if isinstance(message.get("images"), Mapping) else {})}
    images = {camera: _image(flat, camera) for camera in needs.cameras}
    state = _state(flat) if needs.state else None
    instruction = _found(flat, "instruction")
    if instruction is not None and (not isinstance(instruction, str) or len(instruction) > LONGEST_INSTRUCTION):
        raise BadRequest(f"instruction: expected text of at most {LONGEST_INSTRUCTION} characters")
    history = {camera: _history(flat, camera, needs, images) for camera in needs.cameras if needs.history > 1}
    own = message.get(VGB)
    if own is not None:
        _check_own(own)
    sent = {camera: frames for camera, frames in history.items() if frames is not None}
    return Request(images, state, instruction, sent, None if own is None else dict(own))


def _check_own(own: Any) -> None:
    """Raises `BadRequest` for a value that would fail in the policy, where it fails the whole batch."""
    if not isinstance(own, Mapping):
        raise BadRequest(f"{VGB}: is a {type(own).__name__}; expected a map")
    for name in ("step", "seed"):
        value = own.get(name, 0)
        if type(value) is not int or not 0 <= value < LARGEST_NUMBER:
            raise BadRequest(f"{VGB}.{name}: is {shown(value)}; expected an integer from 0 to 2**63 - 1")
    if not isinstance(own.get("episode"), str | int | None):
        raise BadRequest(f"{VGB}.episode: is a {type(own['episode']).__name__}; expected text or a number")


def _found(flat: Mapping[str, Any], what: str) -> Any:
    return next((flat[name] for name in NAMES[what] if name in flat), None)


def _image(flat: Mapping[str, Any], camera: str) -> np.ndarray:
    image = _found(flat, camera)
    if image is None and camera == EXTERNAL and isinstance(flat.get("images"), Mapping) and len(flat["images"]) == 1:
        [image] = flat["images"].values()  # the only camera, whatever its name
    if image is None:
        keys = ", ".join(str(name) for name in flat) or "none"
        raise BadRequest(f"no image '{NAMES[camera][0]}', which this policy needs; keys sent: {keys}")
    if isinstance(image, bytes):
        image = decode_file(image)
    return _checked(image, 3, NAMES[camera][0])


def _checked(image: Any, ndim: int, name: str) -> np.ndarray:
    image = np.asarray(image)
    fine = image.dtype == np.uint8 and image.ndim == ndim and image.shape[-1] == 3
    if not fine or not all(0 < side <= LARGEST_SIDE for side in image.shape[-3:-1]):
        sides = "[N, H, W, 3]" if ndim == 4 else "[H, W, 3]"
        raise BadRequest(
            f"{name}: {image.dtype} {list(image.shape)}; expected uint8 {sides}, RGB, sides up to {LARGEST_SIDE}"
        )
    return image


def _history(flat: Mapping[str, Any], camera: str, needs: Needs, images: Mapping[str, np.ndarray]) -> np.ndarray | None:
    frames = next((flat[name] for name in (f"observation/history/{camera}", f"history/{camera}") if name in flat), None)
    if frames is None:
        return None
    frames = _checked(frames, 4, f"history/{camera}")
    if len(frames) != needs.history:
        raise BadRequest(f"history/{camera}: {len(frames)} frames; this policy needs {needs.history}")
    if frames.shape[1:] != images[camera].shape:
        sizes = f"{list(frames.shape[1:])}; expected that of the image, {list(images[camera].shape)}"
        raise BadRequest(f"history/{camera}: frames of shape {sizes}")
    return frames


def _state(flat: Mapping[str, Any]) -> np.ndarray:
    state = _found(flat, "state")
    if state is None:
        raise BadRequest(f"no '{NAMES['state'][0]}', which this policy needs; keys sent: {', '.join(map(str, flat))}")
    state = np.asarray(state)
    if state.dtype.kind not in "fiu" or state.shape != (STATE_DIMS,) or not np.isfinite(state).all():
        raise BadRequest(
            f"state: {state.dtype} {list(state.shape)}; expected {STATE_DIMS} finite numbers, as protocol.STATE"
        )
    return state.astype(np.float32)


def bridge_convention(actions: np.ndarray) -> np.ndarray:
    """Returns actions [K, 7] in the convention for other projects' harnesses: gripper 0 closed .. 1 open."""
    return np.concatenate([actions[:, :6], (actions[:, 6:] + 1) / 2], axis=1)


def camera_names(needs: Needs) -> list[str]:
    """Returns the cameras used by a policy with `needs`, in a fixed order."""
    return [camera for camera in CAMERAS if camera in needs.cameras]
