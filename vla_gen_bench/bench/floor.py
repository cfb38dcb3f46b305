"""The minimum cost of a step on this machine: PhysX and the renderer alone, on the very same episode."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv


class Floor:
    """Times SAPIEN's share of an environment's steps and resets.

    PhysX is timed where the environment calls it: `px.step` in a bare loop, with the contacts of the episode. For the
    renderer, one extra frame is rendered: the same bodies, read back and discarded.

    Args:
        env: An environment that renders, on the CPU; its time counts from now on.
    """

    def __init__(self, env: PickPlaceEnv) -> None:
        self._env, self._physics_s, self._simulate = env, 0.0, env.simulate
        env.simulate = self._timed

    def _timed(self, substeps: int) -> None:
        start = time.perf_counter()
        self._simulate(substeps)
        self._physics_s += time.perf_counter() - start

    def seconds(self) -> float:
        """Returns the PhysX time since the last call and the time of one frame as the scene is now; changes nothing."""
        physics_s, self._physics_s = self._physics_s, 0.0
        start = time.perf_counter()
        self._env.scene.update_render(update_sensors=True, update_human_render_cameras=False)
        for sensor in self._env._sensors.values():
            sensor.camera.take_picture()
            sensor.camera.get_picture(list(sensor.config.shader_config.texture_names))
        return physics_s + time.perf_counter() - start
