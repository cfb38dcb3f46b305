"""Runs in this project's environment, with vla-eval's beside it: its specs against ours, and an episode's start."""

import json
import sys

sys.path += [sys.argv[1], sys.argv[2]]

import anyio  # noqa: E402
import numpy as np  # noqa: E402
from vgb_vla_eval import VgbBenchmark  # noqa: E402
from vla_eval.specs import GRIPPER_01, POSITION_DELTA, ROTATION_EULER, check_specs  # noqa: E402

from vla_gen_bench import runtime  # noqa: E402

runtime.prepare(1)
bench = VgbBenchmark("execution", ["ind", "object_reposition"], send_wrist_image=True, send_state=True)
server = {"position": POSITION_DELTA, "rotation": ROTATION_EULER, "gripper": GRIPPER_01}


async def main() -> dict:
    task = {**bench.get_tasks()[0], "episode_idx": 3}
    await bench.start_episode(task)
    seen = await bench.get_observation()
    await bench.apply_action({"actions": np.array([0, 0, 0, 0, 0, 0, 1.0])})
    return {
        "tasks": [item["name"] for item in bench.get_tasks()],
        "warnings": check_specs(server, bench.get_action_spec(), {}, bench.get_observation_spec()),
        "images": {name: list(image.shape) for name, image in seen["images"].items()},
        "state": list(seen["states"].shape),
        "instruction": seen["task_description"],
        "done": await bench.is_done(),
        "result": await bench.get_result(),
    }


print(json.dumps(anyio.run(main)))
