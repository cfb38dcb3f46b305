"""What a critic lets an action be credited with: `.venv/bin/python benchmarks/critics.py CHECKPOINT --name NAME`.

The checkpoint has a value head on h0, as those that PPO with the paper's critic writes. Its policy runs `--iterations`
of the recipe of `openvla-ppo` on training-pool episodes from a run seed that no training uses. A critic of the
simulator's state is fitted to all but the last of them, and on the last one both critics estimate the advantage of each
action by a one-step temporal difference: of the decision that it belongs to, and with the critic of the state also of
the action alone. With `--write`, `critics.csv`, under docs/experiments/data, gets a row per estimate:

`explained`: the share of the variance of returns that the critic's values explain.
`power`: the mean square of the advantages, A.
`slope`: of the regression on A of what happened: the discounted rewards from that control step on, minus the value of
its state. 1 = an advantage is worth what it promises. The simulator is deterministic, so A depends on the action and
the state it met alone, and later luck does not correlate with it.
`signal`: slope^2 power, proportional to the ratio of signal to noise, squared, of a policy gradient with A: with four
times the signal, a quarter of the episodes serves as well.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pandas as pd
from gradients import GRADIENT_SEED, collected
from result_tables import add

from vla_gen_bench import runtime

runtime.prepare()

from vla_gen_bench.train.processes import join  # noqa: E402
from vla_gen_bench.train.recipe import load_recipe, recipe_file  # noqa: E402
from vla_gen_bench.train.rl import advantages as adv  # noqa: E402
from vla_gen_bench.train.rl.learner import Learner, open_simulator, use_threads  # noqa: E402
from vla_gen_bench.train.rl.ppo import PpoRecipe  # noqa: E402
from vla_gen_bench.train.rl.rollout import Collector, Rollout  # noqa: E402
from vla_gen_bench.train.rl.state_critic import estimate, fit  # noqa: E402

PASSES = 12


def state_critic(recipe: PpoRecipe, rollouts: list[Rollout]) -> Learner:
    """Returns a learner whose critic of the state is fitted to these rollouts."""
    use_threads(runtime.usable_cores())
    value = recipe.value.model_copy(update={"source": "state"})
    learner = Learner(recipe.model_copy(update={"value": value}), join("cpu"))
    returns = [estimate(learner, rollout, recipe.gamma, 0.0, False, True)[2] for rollout in rollouts]
    states = np.concatenate([rollout.states[:-1] for rollout in rollouts], axis=1)
    fit(learner, states.reshape(-1, states.shape[-1]), np.concatenate(returns, axis=1).ravel(), PASSES)
    return learner


def rows(recipe: PpoRecipe, learner: Learner, rollout: Rollout) -> list[dict[str, object]]:
    """Returns the table's rows of one policy; `learner` has the critic of the state."""
    gamma, (decisions, episodes, chunk) = recipe.gamma, rollout.rewards.shape
    head, paid = rollout.values[:-1], adv.chunk_rewards(rollout.rewards, gamma)
    single, values, returns = estimate(learner, rollout, gamma, 0.0, False, True)
    whole, _ = adv.gae(paid, values[::chunk], np.zeros(episodes), gamma**chunk, 0.0)
    seen, _ = adv.gae(paid, head, rollout.values[-1], gamma**chunk, 0.0)  # this critic was trained to see no end
    happened = (returns - values).reshape(decisions, chunk, episodes).swapaxes(1, 2)
    by_head = adv.explained_variance(head, returns[::chunk])
    by_state = adv.explained_variance(values, returns)
    table = []
    for critic, of, advantages, explained in (
        (recipe.value.source, "decision", seen[..., None], by_head),
        ("state", "decision", whole[..., None], by_state),
        ("state", "action", single, by_state),
    ):
        advantages = np.broadcast_to(advantages, happened.shape)
        power = (advantages**2).mean()
        slope = (advantages * happened).mean() / power
        numbers = {"explained": explained, "power": power, "slope": slope, "signal": slope**2 * power}
        table.append({"critic": critic, "of": of} | {name: round(float(value), 5) for name, value in numbers.items()})
    return table


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", required=True, help="Of the policy, in the table.")
@click.option("--iterations", type=click.IntRange(2), default=5, show_default=True)
@click.option("--write", is_flag=True, help="Into the table; otherwise rows are printed alone.")
def main(checkpoint: Path, name: str, iterations: int, write: bool) -> None:
    """See the top of the file."""
    changes = {"model.checkpoint": str(checkpoint.resolve()), "value.source": "h0", "time_limit": "bootstrap"}
    recipe = load_recipe(recipe_file("openvla-ppo"), PpoRecipe, changes)
    learner = Learner(recipe, join("cpu"))
    learner.actor.states = True
    with open_simulator(recipe, learner.actor, "cpu", runtime.usable_cores()) as simulator:
        collector = Collector(simulator, learner.actor, recipe.horizon)
        *earlier, last = [collected(recipe, collector, GRADIENT_SEED, number) for number in range(iterations)]
    keys = {"policy": name, "temperature": recipe.sampling.temperature, "episodes": recipe.episodes}
    keys |= {"iterations": iterations}
    found = [keys | row for row in rows(recipe, state_critic(recipe, earlier), last)]
    print(pd.DataFrame(found).to_string(index=False))
    if write:
        add("critics.csv", found, tuple(keys))


if __name__ == "__main__":
    main()
