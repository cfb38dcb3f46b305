"""Measures each effect's cost: a control step with its image, and a reset, against those of IND.

Processor time, all threads. Rounds of IND and every effect alternate; the lower quartile is shown, because other load
on the machine can only add time.

    python benchmarks/effects.py [WORLD [EFFECT ...]]
"""

from __future__ import annotations

import statistics
import sys
import time

from vla_gen_bench import runtime

runtime.prepare(1)

import numpy as np  # noqa: E402

from vla_gen_bench.envs.pick_place import PickPlaceEnv  # noqa: E402
from vla_gen_bench.episodes.draw import draw  # noqa: E402
from vla_gen_bench.episodes.effects import built_in_effects  # noqa: E402
from vla_gen_bench.episodes.shift import Scenario, Shift  # noqa: E402

HORIZON, ROUNDS, STEPS = 80, 3, 20
ACTION = np.array([0.003, 0, -0.002, 0, 0, 0, 1], np.float32)


def scenario(name: str) -> Scenario:
    """Returns IND, or IND with an effect at its highest level."""
    effects = built_in_effects()
    written = [] if name == "ind" else [{"name": name, **({"level": 5} if effects[name].levels else {})}]
    return Scenario(id=name, label=name, dimension="vision", shift=Shift.parse({"effects": written}))


def main(world: str = "builtin", *chosen: str) -> None:
    """Prints a line per effect: milliseconds of a step and of a reset, and the cost of an episode relative to IND's."""
    env = PickPlaceEnv(world=world)
    names = ["ind", *(chosen or built_in_effects())]
    steps: dict[str, list[float]] = {name: [] for name in names}
    resets: dict[str, list[float]] = {name: [] for name in names}
    for index in range(ROUNDS + 1):
        for name in names:
            spec = draw(scenario(name), world, 0, index)
            start = time.process_time()
            env.reset(options={"spec": spec})
            took = [time.process_time() - start]
            for _ in range(STEPS):
                start = time.process_time()
                env.step(ACTION)
                took.append(time.process_time() - start)
            if index:  # the first round loads models
                resets[name].append(took[0])
                steps[name] += took[1:]
    quartiles = {name: tuple(statistics.quantiles(of[name])[0] for of in (steps, resets)) for name in names}
    step, reset = quartiles["ind"]
    print(f"{'effect':18} {'step ms':>8} {'reset ms':>9} {'step':>7} {'episode of 80':>14}")
    for name, (a, b) in quartiles.items():
        whole = (HORIZON * a + b) / (HORIZON * step + reset) - 1
        print(f"{name:18} {a * 1e3:8.2f} {b * 1e3:9.1f} {a / step - 1:+7.1%} {whole:+14.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
