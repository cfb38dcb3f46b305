"""Runs in lerobot's environment: the real LeRobotDataset on FOLDER, then LeRobot's own edit; prints JSON."""

import json
import sys
from pathlib import Path

from lerobot.datasets.dataset_tools import delete_episodes
from lerobot.datasets.lerobot_dataset import LeRobotDataset

folder, edited = Path(sys.argv[1]), Path(sys.argv[2])
data = LeRobotDataset("local/demos", root=folder)
frame = data[5]
delete_episodes(data, [0], output_dir=edited, repo_id="local/edited")
print(
    json.dumps(
        {
            "cameras": data.meta.camera_keys,
            "frames": len(data),
            "state": list(frame["observation.state"].shape),
            "image": list(frame["observation.images.external"].shape),
            "task": frame["task"],
            "action": frame["action"].tolist(),
        }
    )
)
