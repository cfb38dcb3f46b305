# /// script
# requires-python = ">=3.12"
# dependencies = ["lerobot==0.6.1", "websockets>=13", "msgpack>=1.0"]
# ///
"""Serves any LeRobot policy (ACT, diffusion, SmolVLA, pi0, ...) to `vgb eval --policy openpi://HOST:PORT`.

    uv run servers/serve_lerobot.py CHECKPOINT [--port 8000] [--device cuda]

CHECKPOINT is a folder that `lerobot-train` wrote (`.../checkpoints/last/pretrained_model`) or a hub id. SmolVLA and pi0
need their extras: uv run --with 'lerobot[smolvla]' servers/serve_lerobot.py ...

A policy trained on what `vgb collect` writes needs nothing else: its features say which cameras, image size and state
it looks at, and its actions are the benchmark's. For one trained on other data tell with `--renamed` which camera each
feature is, and convert its actions on the client's side (`adapter:` in a card).
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
from openpi_loop import HIGHEST, greeting, serve

IMAGES, STATE = "observation.images.", "observation.state"
CAMERAS = ("external", "wrist")


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
    """A policy in openpi's terms."""

    def __init__(self, checkpoint: str, device: str, renamed: dict[str, str]) -> None:
        self.policy, self.before, self.after = load(checkpoint, device)
        config = self.policy.config
        self.cameras = cameras_of(config.input_features, renamed)
        self.state = STATE in config.input_features
        self.chunk = int(getattr(config, "chunk_size", None) or getattr(config, "horizon", 1))
        self.execute = min(int(getattr(config, "n_action_steps", 1)), self.chunk)
        self.dims = config.output_features["action"].shape[0]
        if getattr(config, "n_obs_steps", 1) != 1:
            raise SystemExit(f"{config.type} looks at {config.n_obs_steps} steps; this server gives it one")

    @property
    def needs(self) -> dict:
        features = self.policy.config.input_features
        sizes = {tuple(features[name].shape[-2:]) for name in self.cameras}
        if len(sizes) > 1:
            raise SystemExit(f"cameras of different sizes: {sizes}; the benchmark draws all in one")
        size = {"image_size": list(sizes.pop())} if sizes else {}
        cameras = [camera for camera in CAMERAS if camera in self.cameras.values()]
        return {"state": self.state, "cameras": cameras or ["external"], **size}

    def reset(self) -> None:
        self.policy.reset()

    @torch.inference_mode()
    def act(self, message: dict) -> np.ndarray:
        """Returns float32 [K, 7]; a regressed action slightly beyond the limits is cut to them."""
        names = {"external": "observation/image", "wrist": "observation/wrist_image"}
        batch = {
            feature: torch.from_numpy(message[names[camera]]).permute(2, 0, 1)[None].float() / 255
            for feature, camera in self.cameras.items()
        }
        if self.state:
            batch[STATE] = torch.from_numpy(np.asarray(message["observation/state"], np.float32))[None]
        batch = self.before({**batch, "task": [message["prompt"]]})
        chunk = self.policy.predict_action_chunk(batch)[0]  # [K, n]
        actions = self.after(chunk).float().cpu().numpy()
        return np.clip(actions, -np.array(HIGHEST), HIGHEST) if self.dims == 7 else actions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--renamed", type=json.loads, default={}, metavar="JSON", help="feature -> external or wrist")
    given = parser.parse_args()
    model = Model(given.checkpoint, given.device, given.renamed)
    told = greeting(f"lerobot {model.policy.config.type}", model.chunk, model.execute, model.needs)
    if model.dims != 7:
        told.pop("vgb")  # another convention: the client converts
    serve(model.act, told, given.host, given.port, model.reset)


if __name__ == "__main__":
    main()
