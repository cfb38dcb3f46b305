# /// script
# requires-python = ">=3.10,<3.12"
# dependencies = [
#     "openvla-oft @ git+https://github.com/moojink/openvla-oft.git@e4287e94541f459edc4feabc4e181f537cd569a8",
#     "transformers @ git+https://github.com/moojink/transformers-openvla-oft.git",
#     "websockets>=13", "msgpack>=1.0",
# ]
# ///
"""Serves an OpenVLA-OFT checkpoint through its own code to `vgb eval --policy openpi://HOST:PORT`.

    uv run servers/serve_openvla_oft.py CHECKPOINT --unnorm-key bridge_orig [--chunk 8] [--proprio 8]

Its actions are in its data set's convention; without an adapter in a card `vgb eval` takes Bridge's: gripper 0 closed
to 1 open, rotation as it is. Checkpoints without proprioception also run in plain PyTorch: `--policy openvla-oft`.
NOT RUN with a model in this project, which has no GPU: the calls are those of `experiments/robot/openvla_utils.py` of
that commit, by reading. Tested: the bytes of the protocol, and the arguments of the calls, with a stand-in (README.md).
"""

from __future__ import annotations

import argparse
from types import SimpleNamespace

import numpy as np
from openpi_loop import serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--unnorm-key", default="bridge_orig")
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--proprio", type=int, default=0, help="Numbers of state the checkpoint takes; 0 = none.")
    parser.add_argument("--images", type=int, default=1, choices=(1, 2), help="2 with a wrist camera.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()

    from experiments.robot import openvla_utils as oft

    config = SimpleNamespace(
        pretrained_checkpoint=given.checkpoint, unnorm_key=given.unnorm_key, num_images_in_input=given.images,
        model_family="openvla", num_diffusion_steps_train=50, num_diffusion_steps_inference=50,
        use_proprio=bool(given.proprio), use_l1_regression=True, use_diffusion=False, use_film=False, center_crop=True,
        lora_rank=32, load_in_8bit=False, load_in_4bit=False, num_open_loop_steps=given.chunk,
    )  # fmt: skip
    model, processor = oft.get_vla(config), oft.get_processor(config)
    head = oft.get_action_head(config, llm_dim=model.llm_dim)
    projector = None
    if given.proprio:
        projector = oft.get_proprio_projector(config, llm_dim=model.llm_dim, proprio_dim=given.proprio)

    def act(message: dict) -> np.ndarray:
        observation = {"full_image": message["observation/image"]}
        if given.images == 2:
            observation["wrist_image"] = message["observation/wrist_image"]
        if given.proprio:
            observation["state"] = message["observation/state"]
        prompt = message["prompt"]
        return np.stack(oft.get_vla_action(config, model, processor, observation, prompt, head, projector))

    serve(lambda: act, {"policy": "openvla-oft"}, given.host, given.port)


if __name__ == "__main__":
    main()
