"""Episodes to be compared bit by bit: random motions, an episode alone, what a judge sees."""

from __future__ import annotations

import numpy as np
import torch
from sim import draw, environment, load_suite

from vla_gen_bench.envs.vector import EnvBatch

STEPS = 8  # the teleport happens in the fifth


def table1_spec():
    return draw(load_suite("table1").select(["multi_receptacle"])[0], "builtin", 0, 5)


def actions(seed: int, steps: int = STEPS) -> np.ndarray:
    """Random motions down into the scene, float32 [steps, 7]."""
    drawn = np.random.default_rng(seed).normal([0, 0, -0.015, 0, 0, 0, 0], [0.01] * 3 + [0.03] * 3 + [1], (steps, 7))
    return drawn.clip(-1, 1).astype(np.float32)


def judged(batch: EnvBatch) -> list[torch.Tensor]:
    """What the judge saw at the reset, [B] each."""
    infos = [env.evaluate() for env in batch.active]
    return [torch.cat([info[name] for info in infos]) for name in sorted(infos[0])]


def alone(spec, moves: np.ndarray) -> list[tuple]:
    """The episode in an environment of its own: state, image, reward and flags at every step."""
    single = EnvBatch([environment("builtin", "rgb")])
    image = single.reset([spec])
    history = [(single.states()[0], image[0], *(value[0] for value in judged(single)))]
    for move in moves:
        image, reward, info = single.step(move[None])
        history.append((single.states()[0], image[0], reward[0], *(info[name][0] for name in sorted(info))))
    return history


def assert_same(found: list[tuple], expected: list[tuple], tolerance: float = 0.0) -> None:
    """State and image bit by bit, what is computed from them within `tolerance`."""
    for step, (a, b) in enumerate(zip(found, expected, strict=True)):
        for part, (x, y) in enumerate(zip(a, b, strict=True)):
            np.testing.assert_allclose(x, y, 0, tolerance * (part > 1), err_msg=f"step {step}, part {part}")
