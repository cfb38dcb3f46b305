"""Axes, named pools, random streams and shifts: how a scenario becomes concrete episodes."""

from vla_gen_bench.pools.draw import FIRST_TRAINING_SEED, draw, draw_for_env, draw_training, training_scenario
from vla_gen_bench.pools.shift import Choice, Scenario, Shift, compose
from vla_gen_bench.pools.streams import POOLS_VERSION, Stream

__all__ = [
    "FIRST_TRAINING_SEED",
    "POOLS_VERSION",
    "Choice",
    "Scenario",
    "Shift",
    "Stream",
    "compose",
    "draw",
    "draw_for_env",
    "draw_training",
    "training_scenario",
]
