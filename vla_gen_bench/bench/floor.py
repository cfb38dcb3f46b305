"""What a step cannot cost less than on this machine: PhysX and the renderer alone, on the very same episode."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv


class Floor:
    """Times what SAPIEN does in an environment's steps and resets.

    PhysX is timed where the environment calls it: `px.step` in a bare loop, with the contacts of the episode. A frame
    is drawn once more for it: the same bodies, read back, nothing made of it.

    Args:
        env: One that draws, on the CPU; it counts from now on.
    """

    def __init__(self, env: PickPlaceEnv) -> None:
        self._env, self._physics_s, self._simulate = env, 0.0, env.simulate
        env.simulate = self._timed

    def _timed(self, substeps: int) -> None:
        start = time.perf_counter()
        self._simulate(substeps)
        self._physics_s += time.perf_counter() - start

    def seconds(self) -> float:
        """Returns the time of PhysX since the last call and of one frame as things are now; changes nothing."""
        physics_s, self._physics_s = self._physics_s, 0.0
        start = time.perf_counter()
        self._env.scene.update_render(update_sensors=True, update_human_render_cameras=False)
        for sensor in self._env._sensors.values():
            sensor.camera.take_picture()
            sensor.camera.get_picture(list(sensor.config.shader_config.texture_names))
        return physics_s + time.perf_counter() - start
