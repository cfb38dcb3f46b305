"""Closed-loop checks during training, on a few training-pool episodes that neither data nor evaluation uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vla_gen_bench.episodes.draw import draw_training

ROLLOUT_SEED = 1_200_000  # plus the run's seed: RL episodes; demonstrations use lower training seeds
CHECK_SEED = 1_900_000  # above both
HORIZON = 80
TOGETHER = 4  # parallel episodes


def check_policy_in_training_pool(checkpoint: Path, world: str, episodes: int, **options: object) -> dict[str, float]:
    """Runs greedy episodes; returns their number and the shares `success` (at the end), `success_once`, `grasped`."""
    from vla_gen_bench.envs.vector import make_batch
    from vla_gen_bench.eval.rollout import run_episodes
    from vla_gen_bench.policies.chunking import ChunkRunner
    from vla_gen_bench.policies.openvla.policy import OpenVLAPolicy

    source = ChunkRunner(OpenVLAPolicy(checkpoint, **{"temperature": 0.0, **options}), "the model in training")
    batch = make_batch(world, min(TOGETHER, episodes))
    rows = []
    for first in range(0, episodes, TOGETHER):
        specs = [draw_training(world, CHECK_SEED, index) for index in range(first, min(first + TOGETHER, episodes))]
        rows += [episode.row for episode in run_episodes(batch, source, specs, HORIZON)]
    batch.close()
    columns = {"success": "success_at_end", "success_once": "success_once", "grasped": "held_ever"}
    shares = {name: float(np.mean([row[column] for row in rows])) for name, column in columns.items()}
    return {**shares, "episodes": len(rows)}
