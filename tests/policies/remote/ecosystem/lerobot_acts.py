"""Runs in lerobot's environment: a checkpoint's select_action over each episode of a data set; prints JSON."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import get_policy_class, make_pre_post_processors

checkpoint, folder = sys.argv[1], Path(sys.argv[2])
data = LeRobotDataset("local/demos", root=folder)
config = PreTrainedConfig.from_pretrained(checkpoint)
config.device = "cpu"
policy = get_policy_class(config.type).from_pretrained(checkpoint, config=config).eval()
before, after = make_pre_post_processors(policy.config, checkpoint)
episodes = {}
for frame in torch.utils.data.DataLoader(data, batch_size=1):
    episode = int(frame["episode_index"])
    if episode not in episodes:
        policy.reset()
    with torch.inference_mode():
        action = after(policy.select_action(before(frame)))
    episodes.setdefault(episode, []).append(action[0].tolist())
limit = np.array([1, 1, 1, np.pi / 2, np.pi / 2, np.pi / 2, 1])
print(json.dumps(np.clip(list(episodes.values()), -limit, limit).tolist()))
