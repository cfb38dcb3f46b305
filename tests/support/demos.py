"""Made-up demonstrations for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla_gen_bench.episodes.draw import draw_training
from vla_gen_bench.train.demos.dataset import Demos, Writer
from vla_gen_bench.train.demos.demonstrate import Demo
from vla_gen_bench.train.demos.sentences import decisive_names

OPEN, SHUT = 1.0, -1.0
SIDE = 32  # x264 codes 16 pixels now and then otherwise: 1 time in 60 with the same frames
ORIGIN = {"world": "builtin", "policy": "expert", "noise": 1.0, "side": SIDE, "seed": 1_000_000}


def demo(index: int = 0, gripper: tuple[float, ...] = (OPEN, SHUT, SHUT, OPEN), side: int = SIDE) -> Demo:
    """A made-up demonstration: the end effector moves 1 cm along x in every step."""
    length, random = len(gripper), np.random.default_rng(index)
    actions = np.zeros((length, 7), np.float32)
    actions[:, 0], actions[:, 6] = 0.02, gripper
    states = np.zeros((length, 7), np.float32)
    states[:, 0] = 0.01 * np.arange(length)
    images = np.repeat(random.integers(0, 255, (1, side, side, 3)), length, axis=0).astype(np.uint8)
    foreground = np.zeros((length, side, side), np.uint8)
    foreground[:, : side // 2] = 255
    spec = draw_training("builtin", 1_000_000, index)
    return Demo(spec, True, images, foreground, actions, actions + 0.001, states)


def written(folder: Path, demos: list[Demo]) -> Writer:
    writer = Writer(folder, SIDE, ORIGIN)
    for item in demos:
        writer.add(item)
    writer.finish()
    return writer


def demos_of(grippers: list[tuple[float, ...]]) -> Demos:
    items = [demo(index, gripper) for index, gripper in enumerate(grippers)]
    lengths = [len(item) for item in items]
    joined = {
        name: np.concatenate([getattr(item, name) for item in items])
        for name in ("images", "foreground", "actions", "executed", "states")
    }
    return Demos(
        **joined,
        episode=np.repeat(np.arange(len(items)), lengths),
        instructions=[item.spec.instruction for item in items],
        tables=[item.spec.table for item in items],
        targets=[item.spec.target.id for item in items],
        decisive=[decisive_names(item.spec) for item in items],
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        world="builtin",
    )
