# /// script
# requires-python = ">=3.12"
# dependencies = ["lerobot[dataset]==0.6.1"]
# ///
"""Prints the error that LeRobot itself computes on frames of a data set, as `vgb policies check --replay` does.

    python servers/replay_lerobot.py CHECKPOINT DATA [--frames 128] [--actions FILE.npy]

Data, policy and processors are loaded as `lerobot-train` loads them; nothing here passes through the server, the
benchmark's reader or its observations. Equal errors show that a served policy gets what it was trained on.
For policies that take one observation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

HIGHEST = np.array([1, 1, 1, np.pi / 2, np.pi / 2, np.pi / 2, 1])  # the benchmark's limits; the server clips to them
BATCH = 16


@torch.inference_mode()
def predictions(checkpoint: str, data, frames: np.ndarray, device: str) -> np.ndarray:
    """Returns float32 [N, K, 7], the chunk predicted for each frame."""
    from lerobot.configs.policies import PreTrainedConfig
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    config = PreTrainedConfig.from_pretrained(checkpoint)
    config.device = device
    policy = get_policy_class(config.type).from_pretrained(checkpoint, config=config).to(device).eval()
    overrides = {"device_processor": {"device": device}}
    before, after = make_pre_post_processors(policy.config, checkpoint, preprocessor_overrides=overrides)
    chunks = []
    for batch in torch.utils.data.DataLoader(torch.utils.data.Subset(data, frames.tolist()), BATCH):
        chunks.append(after(policy.predict_action_chunk(before(batch))).float().cpu().numpy())
    return np.concatenate(chunks)


def main() -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("data", type=Path)
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--actions", type=Path, help="Save the predicted actions, float32 [N, K, 7].")
    given = parser.parse_args()
    data = LeRobotDataset("local/demos", root=given.data)
    # The frames that `vgb policies check --replay --frames N` takes.
    frames = np.sort(np.random.default_rng(0).choice(len(data), min(given.frames, len(data)), replace=False))
    actions = np.clip(predictions(given.checkpoint, data, frames, given.device), -HIGHEST, HIGHEST)
    if given.actions:
        np.save(given.actions, actions.astype(np.float32))
    truth = np.stack([data[int(frame)]["action"].numpy() for frame in frames])
    off = np.abs(actions[:, 0] - truth).mean(axis=0)
    print(
        f"error: translation {off[:3].mean():.6f} m, rotation {off[3:6].mean():.6f} rad, gripper {off[6]:.5f}: mean "
        f"absolute difference from the expert, {len(frames)} frames"
    )


if __name__ == "__main__":
    main()
