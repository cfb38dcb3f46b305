"""Runs in inspect-robots' environment: its WidowX's real OpenVLA policy against `/act` at PORT; prints JSON."""

import json
import sys

import numpy as np
from inspect_robots import Observation
from inspect_robots_widowx.policy import OpenVLAPolicy

policy = OpenVLAPolicy(server_url=f"http://127.0.0.1:{sys.argv[1]}")


class Scene:
    instruction = "put carrot on plate"


policy.reset(Scene())
chunk = policy.act(Observation(images={"external_cam": np.full((480, 640, 3), 60, np.uint8)}, state={}))
print(json.dumps({"action": chunk.actions[0].data.tolist(), "low": policy.info.action_space.low.tolist()}))
