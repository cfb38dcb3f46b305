"""PPO, GRPO and DPO each improve a tiny policy on a task that nothing but the image solves (`bandit`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rl_runs import ALGORITHMS, ITERATIONS, recipe_of, run

from vla_gen_bench.train.run import CHECKPOINT


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_learning_improves_the_policy(name: str, checkpoint: Path, tmp_path: Path) -> None:
    """Chance earns 1/3, as the first iterations do; the last three earned 0.82 to 0.98 with any of three seeds."""
    rows = run(recipe_of(name, checkpoint), tmp_path)
    returns = np.array([float(row["return"]) for row in rows])
    assert len(returns) == ITERATIONS
    assert returns[:3].mean() < 0.40
    assert returns[-3:].mean() > 0.70
    assert (tmp_path / CHECKPOINT / "config.json").is_file()
