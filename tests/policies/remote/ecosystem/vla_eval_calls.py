"""Runs in vla-eval's environment: the real harness connection against the server at PORT; prints JSON."""

import json
import sys

import anyio
import numpy as np
from vla_eval.connection import Connection
from vla_eval.protocol.messages import Message, MessageType, pack_message


async def main() -> None:
    got = []
    async with Connection(f"ws://127.0.0.1:{sys.argv[1]}") as connection:
        await connection.start_episode({"task": {"name": "put carrot on plate", "suite": "test"}, "mode": "sync"})
        observation = {
            "images": {"primary": np.full((8, 6, 3), 60, np.uint8)},
            "task_description": "put carrot on plate",
        }
        for _ in range(3):
            action = await connection.act(observation)
            got.append(np.asarray(action["actions"]).tolist())
        await connection.end_episode({"metrics": {"success": True}})
        server = connection.server_info
    message = Message(MessageType.OBSERVATION, {"state": np.array([0, 1, 2], np.float32)}, 1, 0.0)
    print(json.dumps({"actions": got, "server": server["model_server"], "golden": pack_message(message).hex()}))


anyio.run(main)
