"""`EnvBatch`: many parallel episodes behind one batched interface, on the CPU or on a GPU.

    batch = make_batch("builtin", 8)                     # eight scenes in this process; or backend="gpu"
    images = batch.reset(specs)                          # B <= 8 specs -> uint8 [B, H, W, 3]
    while any episode runs:
        images, rewards, infos = batch.step(actions)     # float32 [B, 7] -> images, float32 [B], {name: [B]}
        images[rows] = batch.reset_rows(rows, new_specs) # on the CPU any rows may begin a new episode

On the CPU the cost of a step per episode does not depend on their number (2.6 GHz, 320x240: about 10 ms with 1 to 16
scenes in a process with its own core); a scene takes 8 MB at 320x240. Run one process per core, with enough episodes
for an efficient policy batch.

An episode depends only on its spec and its actions: on the CPU it is the same bit by bit in any row of any batch
(tests/envs/test_vector.py). A batch is a list of `PickPlaceEnv`s with one sub-scene each (CPU), or one that holds all
of them (GPU); everything else is shared. Episodes never end automatically: count the steps, or read
`infos["elapsed_steps"]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from vla_gen_bench.envs.admission import check_specs
from vla_gen_bench.envs.cameras import UIDS
from vla_gen_bench.envs.pick_place import PickPlaceEnv
from vla_gen_bench.envs.privileged import PrivilegedState
from vla_gen_bench.envs.proprioception import robot_states
from vla_gen_bench.envs.scene import LoadedModels
from vla_gen_bench.episodes.spec import EpisodeSpec
from vla_gen_bench.errors import UserError
from vla_gen_bench.protocol import ACTION_DIMS, EXTERNAL, USUAL, Needs

BACKENDS = {"cpu": "physx_cpu", "gpu": "physx_cuda"}


class Step(NamedTuple):
    """What `EnvBatch.step` returns.

    Attributes:
        images: uint8 [B, H, W, 3], the policies' next observation; None if rendering is off.
        rewards: float32 [B].
        infos: Name -> [B]: the task's flags and distances, see `Judge.info`, and "elapsed_steps".
    """

    images: np.ndarray | None
    rewards: np.ndarray
    infos: dict[str, np.ndarray]


class EnvBatch:
    """Up to `size` parallel episodes; row b of every array is the same episode until it is reset.

    Args:
        envs: Environments of one world, all with the same number of sub-scenes, cameras and `obs_mode`.

    Attributes:
        views: Camera -> uint8 [B, H, W, 3], images of all cameras but the external one in the rows of the last `reset`,
            `reset_rows` or `step`; empty if nothing was rendered.
    """

    def __init__(self, envs: Sequence[PickPlaceEnv]) -> None:
        self.envs = list(envs)
        self._width = self.envs[0].num_envs
        self._running = 0
        self.size = self._width * len(self.envs)
        self.world, self.image_size = self.envs[0].world, self.envs[0].image_size
        self.views: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        """Returns B, the number of running episodes."""
        return self._running

    @property
    def specs(self) -> list[EpisodeSpec]:
        """The specs of the running episodes."""
        return [spec for env in self.active for spec in env.specs][: self._running]

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instruction the policy is given, one sentence per running episode."""
        return tuple(spec.instruction for spec in self.specs)

    def reset(self, specs: Sequence[EpisodeSpec]) -> np.ndarray | None:
        """Starts B = len(specs) episodes, at most `size`; rows beyond B stay idle until the next reset.

        Returns:
            uint8 [B, H, W, 3], or None if rendering is off.

        Raises:
            UserError: A spec belongs to another world or names an unknown asset or effect.
            ValueError: No specs, or more than `size`.
        """
        if not 1 <= len(specs) <= self.size:
            raise ValueError(f"{len(specs)} specs for a batch of 1 to {self.size}")
        return self._begin(self.envs[: -(-len(specs) // self._width)], list(specs), len(specs))

    def reset_rows(self, rows: Sequence[int], specs: Sequence[EpisodeSpec]) -> np.ndarray | None:
        """Starts new episodes in `rows`; all others continue unaffected.

        A GPU simulation can only start all its episodes at once: there, `rows` must list all of them, in order.

        Returns:
            uint8 [len(rows), H, W, 3], or None if rendering is off.
        """
        known = 0 < len(rows) == len(set(rows)) and set(rows) <= set(range(self._running))
        if not known or len(rows) != len(specs):
            raise ValueError(f"{len(specs)} specs for rows {list(rows)} of {self._running} running episodes")
        if self._width == 1:
            return self._begin([self.envs[row] for row in rows], list(specs), self._running)
        if list(rows) != list(range(self._running)):
            raise ValueError("a GPU simulation begins all its episodes at once: give all rows, or call reset()")
        return self.reset(specs)

    def step(self, actions: np.ndarray, draw: bool = True) -> Step:
        """Executes one control step (0.2 s) in every running episode.

        Args:
            actions: float32 [B, 7], see `PickPlaceEnv`.
            draw: If False, `images` is None: takes half the time, for steps without an observer.

        Raises:
            ValueError: A wrong shape, or a number that is not finite; no episode has moved then.
        """
        actions = np.asarray(actions, np.float32)
        if actions.shape != (self._running, ACTION_DIMS):
            raise ValueError(f"actions are {list(actions.shape)}; expected [{self._running}, {ACTION_DIMS}]")
        if not np.isfinite(actions).all():
            raise ValueError(f"the action of row {int(np.argwhere(~np.isfinite(actions))[0, 0])} is not finite")
        for env in self.active:
            env.draws = draw
        try:
            parts = [env.step(rows) for env, rows in zip(self.active, self._split(actions), strict=True)]
        finally:
            for env in self.active:
                env.draws = True
        infos = [part[4] for part in parts]
        return Step(
            self._pictures([part[0] for part in parts]),
            self._join([part[1] for part in parts]),
            {name: self._join([info[name] for info in infos]) for name in infos[0]},
        )

    def privileged(self) -> list[PrivilegedState]:
        """Returns the simulator's true state of each running episode; for privileged policies."""
        return [env.privileged_state(row) for env in self.active for row in range(self._width)][: self._running]

    def proprioception(self) -> np.ndarray:
        """Returns float32 [B, 17], each robot's measured state, see `protocol.STATE`."""
        return np.concatenate([robot_states(env) for env in self.active])[: self._running]

    def states(self) -> list[np.ndarray]:
        """Returns per episode float32 [8 + 7 N]: joint angles, then position and quaternion of its N bodies."""
        return [state for env in self.active for state in env.state_vectors()][: self._running]

    @property
    def active(self) -> list[PickPlaceEnv]:
        """The environments that hold running episodes."""
        return self.envs[: -(-self._running // self._width)]

    def locate(self, row: int) -> tuple[PickPlaceEnv, int]:
        """Returns the environment of episode `row` and its sub-scene there."""
        return self.envs[row // self._width], row % self._width

    def close(self) -> None:
        """Frees the scenes."""
        for env in self.envs:
            env.close()

    def _begin(self, envs: list[PickPlaceEnv], specs: list[EpisodeSpec], running: int) -> np.ndarray | None:
        """Begins episodes in `envs`, of which `running` then run; nothing has changed if a spec is refused."""
        specs = [*specs, *[specs[-1]] * (len(envs) * self._width - len(specs))]
        shares = [specs[start : start + self._width] for start in range(0, len(specs), self._width)]
        for env, share in zip(envs, shares, strict=True):
            check_specs(share, self._width, env.pack)
        self._running = running
        return self._pictures([env.reset(options={"specs": own})[0] for env, own in zip(envs, shares, strict=True)])

    def _split(self, actions: np.ndarray) -> list[np.ndarray]:
        """Returns [width, 7] per active environment; idle sub-scenes repeat the last row."""
        idle = len(self.active) * self._width - len(actions)
        return np.split(np.concatenate([actions, np.repeat(actions[-1:], idle, 0)]), len(self.active))

    def _pictures(self, observations: list[dict[str, Any]]) -> np.ndarray | None:
        """Returns the external images, None if that camera renders nothing; keeps the others in `views`."""
        drawn = [observation.get("sensor_data", {}) for observation in observations]
        images = {
            camera: self._join([data[uid]["rgb"] for data in drawn]) for camera, uid in UIDS.items() if uid in drawn[0]
        }
        external = images.pop(EXTERNAL, None)
        self.views = images
        return external

    def _join(self, parts: list[torch.Tensor]) -> np.ndarray:
        return torch.cat(parts)[: self._running].cpu().numpy()  # always a copy, because environments reuse their arrays


def make_batch(
    world: str, size: int = 1, backend: str = "cpu", render: bool = True, sensors: Needs = USUAL
) -> EnvBatch:
    """Returns a batch of `size` sub-scenes of `world`.

    Args:
        backend: "cpu": one scene after the other in this process; "gpu": all at once in PhysX on a CUDA device.
        render: Whether to render images; if False, `reset` and `step` return None for them.
        sensors: The cameras and the size of their images.

    Raises:
        UserError: Unknown world or backend.
        RuntimeError: Rendering is impossible here, or the device does not exist.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend '{backend}': expected cpu or gpu")
    models = LoadedModels()
    count, width = (size, 1) if backend == "cpu" else (1, size)
    settings = {"world": world, "obs_mode": "rgb" if render else "none", "sim_backend": BACKENDS[backend]}
    settings |= {"cameras": sensors.cameras, "image_size": sensors.image_size}
    return EnvBatch([PickPlaceEnv(num_envs=width, models=models, **settings) for _ in range(count)])
