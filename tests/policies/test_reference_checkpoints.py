"""The committed checkpoints are what their cards say, and still act."""

from __future__ import annotations

import csv
import hashlib
from math import prod
from pathlib import Path

import pytest
from safetensors import safe_open

from vla_gen_bench.policies.card import Card
from vla_gen_bench.policies.registry import resolve
from vla_gen_bench.resources import data_dir
from vla_gen_bench.train.closed_loop import check_policy_in_training_pool

MOST_MB = 20
FOLDERS = sorted(path.parent.parent for path in (data_dir() / "policies").glob("*/checkpoint/model.safetensors"))
ACTING = {"openvla-sft": 3, "openvla-ppo": 3}  # of the first four check episodes; they placed all four


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def card(request: pytest.FixtureRequest) -> Card:
    return resolve(request.param.name)


def weights_of(card: Card) -> Path:
    return card.source.folder / "checkpoint" / "model.safetensors"


def test_the_readme_gives_the_digest(card: Card) -> None:
    assert hashlib.sha256(weights_of(card).read_bytes()).hexdigest() in (card.source.folder / "README.md").read_text()


def test_the_card_counts_the_parameters(card: Card) -> None:
    with safe_open(weights_of(card), "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    assert sum(size for name, size in sizes.items() if not name.startswith("value_head")) == card.params
    assert weights_of(card).stat().st_size <= MOST_MB * 1e6


def test_its_curve_was_kept(card: Card) -> None:
    with (card.source.folder / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 10 and float(rows[-1]["wall_s"]) > float(rows[0]["wall_s"])
    assert (card.source.folder / "recipe.yaml").is_file()


@pytest.mark.parametrize("name, least", ACTING.items())
def test_it_still_acts(name: str, least: int) -> None:
    card = resolve(name)
    shares = check_policy_in_training_pool(card.source.folder / "checkpoint", "builtin", 4, **card.kwargs)
    assert shares["success"] * shares["episodes"] >= least
