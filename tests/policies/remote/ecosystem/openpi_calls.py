"""Runs in openpi-client's environment: the real client against the server at PORT; prints what it got as JSON."""

import json
import sys

import numpy as np
from openpi_client import action_chunk_broker, image_tools, msgpack_numpy, websocket_client_policy

port = int(sys.argv[1])
policy = websocket_client_policy.WebsocketClientPolicy("127.0.0.1", port)
image = image_tools.resize_with_pad(np.full((240, 320, 3), 60, np.uint8), 224, 224)
observation = {"observation/image": image, "prompt": "put carrot on plate"}
first = policy.infer(observation)
broker = action_chunk_broker.ActionChunkBroker(policy, action_horizon=2)
broken = [broker.infer(observation)["actions"].tolist() for _ in range(3)]
golden = msgpack_numpy.packb({"observation/state": np.array([0, 1, 2], np.float32)}).hex()
print(
    json.dumps(
        {
            "metadata": sorted(map(str, policy.get_server_metadata())),
            "actions": np.asarray(first["actions"]).tolist(),
            "broken": broken,
            "golden": golden,
            "padded": [int(image[0, 0, 0]), int(image[112, 112, 0])],
        }
    )
)
