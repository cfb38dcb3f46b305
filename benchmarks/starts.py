"""Where a checkpoint of `builtin` still acts well: `.venv/bin/python benchmarks/starts.py NAME=CHECKPOINT ...`.

Writes two tables under docs/experiments/data, a row per checkpoint and start, replacing rows of the same name.
`starts.csv`: success from the usual start and three others. `displaced-actions.csv`: the policy's first action and
the expert's. All use training-pool episodes that no training uses. "anywhere" is where `wander` of the first
`openvla-ppo` (docs/experiments/recipes/first/ppo.yaml) leaves the arm, applied in every episode and with an open
gripper; "tilted" and "low" add what `ppo-tilted.yaml` there adds, in every episode.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from result_tables import add

from vla_gen_bench import runtime

runtime.prepare()

from vla_gen_bench.envs.vector import EnvBatch, make_batch  # noqa: E402
from vla_gen_bench.episodes.draw import draw_training  # noqa: E402
from vla_gen_bench.eval.rollout import run_episodes  # noqa: E402
from vla_gen_bench.policies.chunking import ChunkRunner  # noqa: E402
from vla_gen_bench.policies.expert.expert import Expert  # noqa: E402
from vla_gen_bench.policies.openvla.policy import OpenVLAPolicy  # noqa: E402
from vla_gen_bench.protocol import Observation  # noqa: E402
from vla_gen_bench.train.closed_loop import CHECK_SEED, HORIZON  # noqa: E402
from vla_gen_bench.train.recipe import load_recipe  # noqa: E402
from vla_gen_bench.train.rl.ppo import PpoRecipe  # noqa: E402
from vla_gen_bench.train.starts import Start, starts  # noqa: E402

WORLD, TOGETHER = "builtin", 8
FIRST = Path(__file__).resolve().parents[1] / "docs" / "experiments" / "recipes" / "first" / "ppo.yaml"
ACTION_SEED, PLACING_SEED = 78, 79  # run seeds that no training uses
ELSEWHERE = {"anywhere": {}, "tilted": {"turn": 0.075, "tilt": 0.05}, "low": {"low": 1.0}}  # changes of `wander`
FIRST_CHECK = 64  # earlier ones are the checks of training runs


class AfterMoves:
    """An action source for `run_episodes`: first the moves before an episode, [B, W, 7], then a policy."""

    def __init__(self, source: ChunkRunner, moves: np.ndarray) -> None:
        self._source, self._moves = source, list(moves.swapaxes(0, 1))

    @property
    def needs_observation(self) -> bool:
        return len(self._moves) == 0 and self._source.needs_observation

    def reset(self, instructions: list[str], seeds: list[int]) -> None:
        self._source.reset(instructions, seeds)

    def next_actions(self, observation: Observation | None) -> np.ndarray:
        return self._moves.pop(0) if self._moves else self._source.next_actions(observation)


def from_run(seed: int, episodes: int, **changes: float) -> Iterator[list[Start]]:
    """Yields the first episodes of a run in batches, with the arm moved before each; `changes` modify `wander`."""
    recipe = load_recipe(FIRST, PpoRecipe)
    wander = recipe.wander.model_copy(update={"share": 1.0, "closed": 0.0} | changes)
    for number in range(episodes // TOGETHER):
        yield starts(WORLD, seed, number, TOGETHER, wander=wander)


def checks(episodes: int) -> Iterator[list[Start]]:
    """Yields check episodes that no training run uses, in batches."""
    for first in range(FIRST_CHECK, FIRST_CHECK + episodes, TOGETHER):
        yield [Start(draw_training(WORLD, CHECK_SEED, index), 0) for index in range(first, first + TOGETHER)]


def placed(policy: OpenVLAPolicy, batch: EnvBatch, groups: Iterator[list[Start]]) -> dict[str, float]:
    """Returns success shares over complete episodes, and the number of episodes."""
    runner, rows = ChunkRunner(policy, "the checkpoint"), []
    for group in groups:
        moves = np.stack([start.moves for start in group])
        specs, steps = [start.spec for start in group], moves.shape[1] + HORIZON
        rows += [episode.row for episode in run_episodes(batch, AfterMoves(runner, moves), specs, steps)]
    columns = {"success": "success_at_end", "held": "held_ever"}
    shares = {name: np.mean([row[column] for row in rows]).round(4) for name, column in columns.items()}
    return shares | {"episodes": len(rows)}


def first_actions(policy: OpenVLAPolicy, batch: EnvBatch, groups: Iterator[list[Start]]) -> dict[str, float]:
    """Returns correlations and mean absolute differences between the policy's first actions and the expert's."""
    ours, theirs = [], []
    for group in groups:
        images = batch.reset([start.spec for start in group])
        for actions in np.stack([start.moves for start in group], axis=1):
            images = batch.step(actions).images
        expert, clock, keys = Expert(close_steps=1), np.zeros(len(group), np.int64), [start.key for start in group]
        for actor, found in ((policy, ours), (expert, theirs)):
            actor.reset(batch.instructions, keys)
            found += list(actor.act(Observation(images, batch.instructions, clock, batch.privileged()))[:, 0])
    ours, theirs = np.array(ours), np.array(theirs)
    dims = {"x": 0, "y": 1, "z": 2, "yaw": 5}
    numbers = {f"corr_{name}": np.corrcoef(ours[:, dim], theirs[:, dim])[0, 1].round(2) for name, dim in dims.items()}
    apart = np.abs(ours - theirs).mean(axis=0)
    numbers |= {f"{name}_mm": (1000 * apart[dims[name]]).round(1) for name in "xyz"}
    return {"episodes": len(ours)} | numbers | {"yaw_rad": apart[dims["yaw"]].round(3)}


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, metavar="NAME=CHECKPOINT...")
@click.option("--episodes", default=192, show_default=True, help="To place, from each start; a multiple of 8.")
@click.option("--temperature", default=0.25, show_default=True)
@click.option("--write", is_flag=True, help="Into the tables; otherwise rows are printed alone.")
def main(checkpoints: tuple[str, ...], episodes: int, temperature: float, write: bool) -> None:
    """See the top of the file."""
    batch = make_batch(WORLD, TOGETHER)
    for name, path in (pair.split("=", 1) for pair in checkpoints):
        policy = OpenVLAPolicy(Path(path), temperature=temperature)
        groups = {"usual": checks(episodes)}
        groups |= {start: from_run(PLACING_SEED, episodes, **changes) for start, changes in ELSEWHERE.items()}
        still = {"move": 0.0, "rise": 0.0, "turn": 0.0}
        first = {"usual": from_run(ACTION_SEED, 48, **still), "anywhere": from_run(ACTION_SEED, 48)}
        tables = {"displaced-actions.csv": (first_actions, first), "starts.csv": (placed, groups)}
        for file, (measure, of) in tables.items():
            rows = [{"policy": name, "start": start} | measure(policy, batch, group) for start, group in of.items()]
            for row in rows:
                print(*row.values(), sep=",", flush=True)
            if write:
                add(file, rows, ("policy", "start"))


if __name__ == "__main__":
    main()
