"""Which of two objects the arm approaches: `.venv/bin/python benchmarks/approach.py NAME=CHECKPOINT ...`.

Long before a policy grasps reliably, this shows whether the sentence moves it. Each scene of the training pools, from a
seed that no data uses, has two objects and is run twice, each of them named once. An episode's answer is the object to
which the end effector comes closest, horizontally, within `--steps` control steps. For a policy that does not listen,
the share of answers that are the named object is one half.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pandas as pd

from vla_gen_bench import runtime

runtime.prepare()

from vla_gen_bench.envs.vector import EnvBatch, make_batch  # noqa: E402
from vla_gen_bench.episodes.draw import draw_training, with_roles_swapped  # noqa: E402
from vla_gen_bench.episodes.shift import Shift  # noqa: E402
from vla_gen_bench.episodes.spec import EpisodeSpec  # noqa: E402
from vla_gen_bench.eval.rollout import run_episodes  # noqa: E402
from vla_gen_bench.log.counts import wilson  # noqa: E402
from vla_gen_bench.policies.chunking import ChunkRunner  # noqa: E402
from vla_gen_bench.policies.openvla.policy import OpenVLAPolicy  # noqa: E402
from vla_gen_bench.protocol import Observation  # noqa: E402
from vla_gen_bench.train.closed_loop import CHECK_SEED  # noqa: E402

TOGETHER = 8
TWO = Shift.parse({"distractor_object": {"pool": "train", "min_distance": 0.07}}, where="two objects")


class Watched:
    """An action source that notes how close the end effector comes to the two objects whenever its policy acts."""

    def __init__(self, source: ChunkRunner) -> None:
        self.source, self.closest = source, np.empty((0, 2))

    @property
    def needs_observation(self) -> bool:
        return self.source.needs_observation

    def reset(self, instructions: list[str], seeds: list[int]) -> None:
        self.closest = np.full((len(instructions), 2), np.inf)
        self.source.reset(instructions, seeds)

    def next_actions(self, observation: Observation | None) -> np.ndarray:
        if observation is not None:
            for row, state in enumerate(observation.privileged):
                bodies = state.target, next(iter(state.distractors.values()))
                away = [np.linalg.norm((body.position - state.position)[:2]) for body in bodies]
                self.closest[row] = np.minimum(self.closest[row], away)
        return self.source.next_actions(observation)


def named_first(batch: EnvBatch, source: Watched, specs: list[EpisodeSpec], steps: int) -> np.ndarray:
    """Returns bool [B]: whether the arm came closer to the named object than to the other one."""
    run_episodes(batch, source, specs, steps, privileged=True)
    return source.closest[:, 0] < source.closest[:, 1]


@click.command()
@click.argument("policies", nargs=-1, required=True, metavar="NAME=CHECKPOINT...")
@click.option("--world", default="pretrain", show_default=True)
@click.option("--scenes", default=96, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=24, show_default=True, type=click.IntRange(1))
def main(policies: tuple[str, ...], world: str, scenes: int, steps: int) -> None:
    """See the top of the file."""
    drawn = [draw_training(world, CHECK_SEED, index, TWO) for index in range(scenes)]
    specs = [twin for spec in drawn if spec.distractor_objects for twin in (spec, with_roles_swapped(spec))]
    found, batch = [], make_batch(world, TOGETHER)
    for policy in policies:
        name, checkpoint = policy.split("=", 1)
        source = Watched(ChunkRunner(OpenVLAPolicy(Path(checkpoint), temperature=0.0), name))
        parts = [specs[first : first + TOGETHER] for first in range(0, len(specs), TOGETHER)]
        named = np.concatenate([named_first(batch, source, part, steps) for part in parts])
        low, high = wilson(int(named.sum()), len(named))
        # A policy that listens turns to the other object when the sentence does.
        both, neither = (float((named.reshape(-1, 2) == value).all(1).mean()) for value in (True, False))
        found.append({"policy": name, "episodes": len(named), "named": named.mean(), "low": low, "high": high,
                      "scenes_both_named": both, "scenes_both_other": neither})  # fmt: skip
    batch.close()
    click.echo(pd.DataFrame(found).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
