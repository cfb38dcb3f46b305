"""Runs in vla-eval's environment: a real model server, batched; prints its port."""

import sys

import anyio
import numpy as np
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import serve_async
from vla_eval.specs import GRIPPER_01, POSITION_DELTA, ROTATION_EULER


class Model(PredictModelServer):
    def predict_batch(self, obs_batch, ctx_batch):
        return [{"actions": self.chunk(obs)} for obs in obs_batch]

    def chunk(self, obs):
        actions = np.zeros((4, 7), np.float32)
        [image] = obs["images"].values()
        actions[:, 0] = image.mean() / 10000
        actions[:, 1] = np.arange(4) / 100
        actions[:, 6] = "carrot" in obs["task_description"]
        return actions

    def get_action_spec(self):
        return {"position": POSITION_DELTA, "rotation": ROTATION_EULER, "gripper": GRIPPER_01}

    def get_observation_spec(self):
        return {}


async def main() -> None:
    chunk = int(sys.argv[1]) or None
    async with anyio.create_task_group() as group:
        port = await group.start(
            lambda task_status: serve_async(
                Model(chunk_size=chunk, max_batch_size=4), "127.0.0.1", 0, task_status=task_status
            )
        )
        print(port, flush=True)


anyio.run(main)
