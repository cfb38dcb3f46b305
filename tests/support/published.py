"""What is published: measured results, and the recipes of RL."""

from __future__ import annotations

from pathlib import Path

from vla_gen_bench.resources import data_dir

ROOT = Path(__file__).resolve().parents[2]
RESULTS, EXPERIMENTS = ROOT / "benchmarks" / "results", ROOT / "docs" / "experiments"
_RECIPES = (data_dir() / "policies" / "openvla-ppo" / "recipes").glob("*.yaml")
PRESETS = sorted(path.stem for path in _RECIPES if path.stem != "common")
