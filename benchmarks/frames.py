"""Compares the images of two shaders: `benchmarks/frames.py [EPISODES]`, episodes of each scenario, 20 steps each.

In world `builtin`, every image and segmentation from the fast copy of the shader must have the same SHA-256 as from
the stock shader. Prints the number of equal ones, and the processor time of an observation.
"""

from __future__ import annotations

import hashlib
import sys
import time
from statistics import median

from vla_gen_bench import runtime

runtime.prepare()

import numpy as np  # noqa: E402

from vla_gen_bench.assets.world import CAMERA  # noqa: E402
from vla_gen_bench.envs.pick_place import PickPlaceEnv  # noqa: E402
from vla_gen_bench.episodes.suite import draw, load_suite  # noqa: E402

STEPS = 20


class Watched(PickPlaceEnv):
    """Renders with the stock or the fast shader and times it."""

    def __init__(self, swift: bool) -> None:
        self.swift, self.seconds, self.digests = swift, [], []
        super().__init__(world="builtin", obs_mode="rgb+segmentation")

    def _draws_swiftly(self) -> bool:
        return self.swift and super()._draws_swiftly()

    def _get_obs_sensor_data(self, apply_texture_transforms: bool = True) -> dict:
        start = time.process_time()
        data = super()._get_obs_sensor_data(apply_texture_transforms)
        self.seconds.append(time.process_time() - start)
        parts = [data[CAMERA][name].numpy().tobytes() for name in sorted(data[CAMERA])]
        self.digests.append(hashlib.sha256(b"".join(parts)).digest())
        return data


def watch(swift: bool, episodes: int) -> Watched:
    env = Watched(swift)
    generator = np.random.default_rng(0)
    for scenario in load_suite("all").scenarios.values():
        for index in range(episodes):
            env.reset(options={"spec": draw(scenario, "builtin", 100, index)})
            moves = generator.normal(0, [0.02] * 3 + [0.06] * 3 + [1.0], (STEPS, 7)).clip(-1, 1)
            for move in moves.astype(np.float32):
                env.step(move[None])
    return env


def main() -> None:
    episodes = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    stock, swift = watch(False, episodes), watch(True, episodes)
    same = sum(ours == theirs for ours, theirs in zip(swift.digests, stock.digests, strict=True))
    print(f"{same} of {len(stock.digests)} observations equal")
    for name, env in (("stock", stock), ("swift", swift)):
        print(f"{name}: {1e3 * median(env.seconds):.2f} ms of processor time an observation")
    sys.exit(same != len(stock.digests))


if __name__ == "__main__":
    main()
