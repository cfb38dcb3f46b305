# /// script
# requires-python = "~=3.11"
# dependencies = [
#     "gr00t @ git+https://github.com/NVIDIA/Isaac-GR00T.git@e29d8fc50b0e4745120ae3fb72447986fe638aa6",
#     "torch>=2.2,<2.8", "websockets>=13", "msgpack>=1.0",
# ]
# ///
"""Serves a GR00T N1.6 checkpoint for the WidowX to `vgb eval --policy openpi://HOST:PORT`.

    uv run servers/serve_gr00t.py nvidia/GR00T-N1.6-bridge --embodiment-tag OXE_WIDOWX

State goes to the checkpoint's state keys in order; a key map on the client's side sends what they are, such as
`observation/state: state.ee_position+ee_euler+gripper_opening`. Actions are joined in the checkpoint's order, and
`vgb eval` takes them as Bridge's unless a card converts them.
NOT RUN with a model in this project, which has no GPU: the calls are those of `gr00t/policy/gr00t_policy.py` of that
commit, by reading. Tested: the bytes of the protocol, and what a stand-in of that module is called with. See README.md.
"""

from __future__ import annotations

import argparse

import numpy as np
from openpi_loop import serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--embodiment-tag", required=True)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()

    from gr00t.data.embodiment_tags import EmbodimentTag
    from gr00t.policy.gr00t_policy import Gr00tPolicy

    tag = getattr(EmbodimentTag, given.embodiment_tag, given.embodiment_tag)
    policy = Gr00tPolicy(model_path=given.checkpoint, embodiment_tag=tag, device=given.device, strict=False)
    config = policy.get_modality_config()
    video, state, action = (config[kind].modality_keys for kind in ("video", "state", "action"))

    def act(message: dict) -> np.ndarray:
        images = [message["observation/image"], message.get("observation/wrist_image")]
        numbers = np.asarray(message.get("observation/state", np.zeros(len(state))), np.float32)
        observation = {
            "video": {key: image[None, None] for key, image in zip(video, images, strict=False)},  # [1, 1, H, W, 3]
            "state": {key: numbers[None, None, place : place + 1] for place, key in enumerate(state)},
            "language": {policy.language_key: [[message["prompt"]]]},
        }
        answer, _ = policy.get_action(observation)
        return np.concatenate([answer[key][0] for key in action], axis=-1)

    def begin():
        policy.reset()
        return act

    serve(begin, {"policy": "gr00t"}, given.host, given.port)


if __name__ == "__main__":
    main()
