"""`vgb.make_env`: one scenario as a gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium


def make_env(scenario: str = "ind", suite: str = "all", world: str = "builtin", **options: Any) -> gymnasium.Env:
    """Returns `VGB-PickPlace-v1` for a scenario; a reset draws a new episode, never one that an evaluation uses.

    An episode never terminates; it is truncated after the suite's horizon.

    ```python
    env = vgb.make_env("unseen_table")
    observation, info = env.reset(seed=7)
    ```

    Args:
        scenario: Id of a scenario of the suite.
        suite: Name or path of a suite.
        world: "builtin" or "rl4vla".
        options: ManiSkill's arguments: `num_envs`, `obs_mode`, `render_mode`, ...; `max_episode_steps` replaces the
            horizon.

    Raises:
        UserError: Unknown suite, scenario or world.
    """
    from vla_gen_bench.assets.world import get_world
    from vla_gen_bench.envs import BASE_ID
    from vla_gen_bench.episodes.suite import load_suite

    get_world(world)
    found = load_suite(suite)
    found.select([scenario])
    options = {"max_episode_steps": found.protocol.horizon, **options}
    return gymnasium.make(BASE_ID, suite=suite, scenario=scenario, world=world, **options)
