# /// script
# requires-python = ">=3.12"
# dependencies = ["lerobot==0.6.1", "websockets>=13", "msgpack>=1.0"]
# ///
"""Serves any LeRobot policy (ACT, diffusion, SmolVLA, pi0, ...) to `vgb eval --policy openpi://HOST:PORT`.

    uv run servers/serve_lerobot.py CHECKPOINT [--port 8000] [--device cuda]

CHECKPOINT is a folder that `lerobot-train` wrote (`.../checkpoints/last/pretrained_model`) or a hub id. SmolVLA and pi0
need their extras: uv run --with 'lerobot[smolvla]' servers/serve_lerobot.py ...

A policy trained on what `vgb collect` writes needs nothing else: its features name the cameras, image size and state
it takes, and its actions are the benchmark's. For one trained on other data map each feature to a camera with
`--renamed`, and convert its state and actions on the client's side (`keys:` and `adapter:` in a card).

A policy that takes one observation returns its whole chunk, of which `vgb eval` executes `n_action_steps`. One with a
history or temporal ensembling is asked at every control step, and LeRobot's own `select_action` keeps its queues, one
set per episode. Random numbers depend on the episode's seed and the step alone.

Tested with lerobot 0.6.1 on a CPU: an ACT that lerobot-train trained, by chunk and with temporal ensembling, against
the actions that lerobot computes itself. Others (diffusion, SmolVLA, pi0, VQ-BeT, ...) use the same calls; not run.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from openpi_loop import HIGHEST, greeting, serve

IMAGES, STATE = "observation.images.", "observation.state"
CAMERAS = ("external", "wrist")


def folder_of(checkpoint: str) -> Path:
    """Returns the checkpoint's folder; one on the hub is downloaded."""
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(checkpoint, allow_patterns=["*.json", "*.safetensors"]))


def digest_of(folder: Path) -> str:
    """Returns a digest of weights, configuration and normalisation; `vgb eval` logs it with the greeting."""
    found = hashlib.sha256()
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        with file.open("rb") as opened:
            found.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()[:16]


def load(checkpoint: str, device: str):
    """Returns the policy with its processors, which hold the normalisation."""
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(checkpoint)
    config.device = device
    policy = get_policy_class(config.type).from_pretrained(checkpoint, config=config).to(device).eval()
    overrides = {"device_processor": {"device": device}}
    before, after = make_pre_post_processors(policy.config, checkpoint, preprocessor_overrides=overrides)
    return policy, before, after


def cameras_of(features: dict, renamed: dict[str, str]) -> dict[str, str]:
    """Returns feature -> camera of the benchmark; raises SystemExit where one has no camera."""
    found = {}
    for feature in (name for name in features if name.startswith("observation.image")):
        camera = renamed.get(feature, feature.removeprefix(IMAGES))
        if camera not in CAMERAS:
            raise SystemExit(f"'{feature}' is no camera of the benchmark; --renamed says which one goes there")
        found[feature] = camera
    return found


class Model:
    """A policy in openpi's terms.

    Attributes:
        by_step: Whether LeRobot's `select_action` decides at every step, instead of a chunk per request.
        chunk, execute: Actions per answer, and how many of them are executed.
    """

    def __init__(self, checkpoint: str, device: str, renamed: dict[str, str]) -> None:
        self.policy, self.before, self.after = load(checkpoint, device)
        config = self.policy.config
        self.cameras = cameras_of(config.input_features, renamed)
        self.state = config.input_features[STATE].shape[0] if STATE in config.input_features else 0
        self.dims = config.output_features["action"].shape[0]
        ensembles = getattr(config, "temporal_ensemble_coeff", None) is not None
        self.by_step = ensembles or getattr(config, "n_obs_steps", 1) > 1
        whole = int(getattr(config, "chunk_size", None) or getattr(config, "horizon", 1))
        self.chunk = 1 if self.by_step else whole
        self.execute = min(int(getattr(config, "n_action_steps", 1)), self.chunk)

    @property
    def needs(self) -> dict:
        features = self.policy.config.input_features
        sizes = {tuple(features[name].shape[-2:]) for name in self.cameras}
        if len(sizes) > 1:
            raise SystemExit(f"cameras of different sizes: {sizes}; the benchmark draws all in one")
        size = {"image_size": list(sizes.pop())} if sizes else {}
        cameras = [camera for camera in CAMERAS if camera in self.cameras.values()]
        return {"state": bool(self.state), "cameras": cameras or ["external"], **size}

    def begin(self) -> Callable[[dict], np.ndarray]:
        """Returns the function that acts in a new episode, with queues of its own if it acts by step."""
        if not self.by_step:
            return partial(self.act, lambda batch: self.policy.predict_action_chunk(batch)[0])
        shared = {id(tensor): tensor for tensor in (*self.policy.parameters(), *self.policy.buffers())}
        policy = copy.deepcopy(self.policy, shared)  # everything but the weights
        policy.reset()
        return partial(self.act, policy.select_action)

    @torch.inference_mode()
    def act(self, predict: Callable[[dict], torch.Tensor], message: dict) -> np.ndarray:
        """Returns float32 [K, n]; a regressed action slightly beyond the limits is clipped to them."""
        if "vgb" in message:
            torch.manual_seed(zlib.crc32(f"{message['vgb']['seed']}/{message['vgb']['step']}".encode()))
        actions = self.after(predict(self.before(self.batch_of(message)))).float().cpu().numpy()
        return np.clip(actions, -np.array(HIGHEST), HIGHEST) if self.dims == 7 else actions

    def batch_of(self, message: dict) -> dict:
        """Returns LeRobot's names for the pieces of a message: images float32 [1, 3, H, W] in 0..1."""
        names = {"external": "observation/image", "wrist": "observation/wrist_image"}
        batch = {
            feature: torch.from_numpy(message[names[camera]]).permute(2, 0, 1)[None].float() / 255
            for feature, camera in self.cameras.items()
        }
        if self.state:
            state = np.asarray(message["observation/state"], np.float32)
            if state.shape != (self.state,):
                raise ValueError(
                    f"observation/state has {state.size} numbers, this policy takes {self.state}; choose parts with "
                    "--policy-option 'keys={observation/state: state.ee_position+..., observation/image: image, ...}'"
                )
            batch[STATE] = torch.from_numpy(state)[None]
        return {**batch, "task": [message["prompt"]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--renamed", type=json.loads, default={}, metavar="JSON", help="feature -> external or wrist")
    given = parser.parse_args()
    folder = folder_of(given.checkpoint)
    model = Model(str(folder), given.device, given.renamed)
    hello = greeting(f"lerobot {model.policy.config.type}", model.chunk, model.execute, model.needs)
    hello["checkpoint"] = digest_of(folder)
    if model.dims != 7:
        hello.pop("vgb")  # another convention: the client converts
    serve(model.begin, hello, given.host, given.port)


if __name__ == "__main__":
    main()
