"""Simulators and specs shared by the tests: one environment per world and mode, built on first use."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from vla_gen_bench import runtime
from vla_gen_bench.envs.pick_place import PickPlaceEnv
from vla_gen_bench.episodes.spec import Effect, EpisodeSpec, Placed
from vla_gen_bench.episodes.suite import draw, load_suite

CAMERA = "3rd_view_camera"
ALL = load_suite("all")
STILL = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)


@lru_cache(maxsize=None)
def environment(world: str = "builtin", obs_mode: str = "rgb+segmentation") -> PickPlaceEnv:
    runtime.limit_threads(1)
    return PickPlaceEnv(world=world, obs_mode=obs_mode)


def spec_of(scenario: str = "ind", seed: int = 0, index: int = 0, world: str = "builtin") -> EpisodeSpec:
    return draw(ALL.select([scenario])[0], world, seed, index)


def simple_spec(**changes) -> EpisodeSpec:
    """A carrot and the plate 12 cm apart on the first table."""
    fields = {
        "world": "builtin", "seed": 0, "index": 0, "instruction": "put carrot on plate", "table": load_table(0),
        "target": Placed(id="carrot", position=(-0.20, 0.05, 0.95)),
        "receptacle": Placed(id="plate", position=(-0.12, -0.05, 0.95)),
    }  # fmt: skip
    return EpisodeSpec(**{**fields, **changes})


def load_table(position: int) -> str:
    return environment("builtin", "none").pack.catalog.tables[position].id


def overlay(name: str, alpha: float) -> Effect:
    return Effect(
        name=name, params={"texture": environment("builtin", "none").pack.catalog.textures[1].id, "alpha": alpha}
    )


def image(observation: dict) -> np.ndarray:
    return observation["sensor_data"][CAMERA]["rgb"][0].numpy()


def poses(env: PickPlaceEnv) -> np.ndarray:
    """Joint angles and all body poses, one vector."""
    parts = [env.agent.robot.get_qpos()[0], *(thing.actor.pose.raw_pose[0] for thing in env.things)]
    return torch.cat([part.float() for part in parts]).numpy()


def shared(name: str) -> Path:
    import os

    return Path(os.environ.get("VGB_SHARED", Path(__file__).parents[3] / "shared")) / name
