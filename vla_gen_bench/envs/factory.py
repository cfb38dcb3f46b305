"""Environments for a run: as `envs.vector.make_batch`, but driver and GPU failures become messages for users."""

from __future__ import annotations

import gc

from vla_gen_bench.envs.pick_place import PickPlaceEnv
from vla_gen_bench.envs.vector import EnvBatch, make_batch
from vla_gen_bench.errors import UserError
from vla_gen_bench.protocol import USUAL, Needs


def build_batch(
    world: str, size: int = 1, backend: str = "cpu", render: bool = True, sensors: Needs = USUAL
) -> EnvBatch:
    """Returns `size` sub-scenes of `world`; raises `UserError` if rendering or simulation is impossible."""
    try:
        batch = make_batch(world, size, backend, render, sensors)
    except RuntimeError as error:
        if backend == "gpu":
            raise UserError(f"a GPU cannot simulate {size} episodes ({error}); give a smaller --num-envs") from error
        if "render" in str(error) or "vulkan" in str(error).lower():
            raise UserError(f"no Vulkan driver can render here ({error}); run 'vgb doctor'") from error
        raise
    gc.collect()
    gc.freeze()  # imported objects stay alive anyway, so the collector need not scan them
    return batch


def build_env(world: str, render: bool = True, sensors: Needs = USUAL) -> PickPlaceEnv:
    """Returns one environment of `world` on the CPU; raises as `build_batch`."""
    return build_batch(world, render=render, sensors=sensors).envs[0]
