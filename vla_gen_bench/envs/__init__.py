"""Importing this registers the environments with gymnasium and ManiSkill.

`VGB-PickPlace-v1` takes `suite` and `scenario`; every scenario of the built-in suites `all` and `table1` has an id of
its own: `VGB-UnseenTable-v1`, `VGB-Table1UnseenTable-v1`. A reset without a spec draws a new episode of the scenario,
seeded, and never one an evaluation uses.

Those are ManiSkill environments: batched torch tensors, nested observations. `make_cpu_env()` gives one environment in
gymnasium's own terms, for other libraries.
"""

from __future__ import annotations

from vla_gen_bench import runtime

runtime.prepare()  # before ManiSkill is imported: for users who come through gymnasium

from mani_skill.utils.registration import REGISTERED_ENVS, register_env  # noqa: E402

from vla_gen_bench.envs.pick_place import HORIZON, PickPlaceEnv  # noqa: E402
from vla_gen_bench.envs.single import make_cpu_env  # noqa: E402
from vla_gen_bench.episodes.suite import load_suite  # noqa: E402

__all__ = ["BASE_ID", "PickPlaceEnv", "env_id", "make_cpu_env", "register_all"]

BASE_ID = "VGB-PickPlace-v1"
SUITES = {"all": "", "table1": "Table1"}


def env_id(scenario: str, suite: str = "all") -> str:
    """Returns the gymnasium id of a built-in scenario: "unseen_table" -> "VGB-UnseenTable-v1"."""
    return f"VGB-{SUITES[suite]}{''.join(part.capitalize() for part in scenario.split('_'))}-v1"


def register_all() -> None:
    """Registers the base id and one per scenario; calling it again changes nothing."""
    if BASE_ID in REGISTERED_ENVS:
        return
    register_env(BASE_ID, max_episode_steps=HORIZON)(PickPlaceEnv)
    for suite in SUITES:
        for scenario in load_suite(suite).scenarios:
            register_env(env_id(scenario, suite), max_episode_steps=HORIZON, suite=suite, scenario=scenario)(
                PickPlaceEnv
            )


register_all()
