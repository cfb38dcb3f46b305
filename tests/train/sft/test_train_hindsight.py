"""The head of the hindsight loss: what it reads, and what counts; how the patches reach it."""

import weakref

import pytest
import torch

from vla_gen_bench.policies.openvla.checkpoint.config_file import size
from vla_gen_bench.train.demos.frames import AUXILIARY
from vla_gen_bench.train.sft.hindsight import Hindsight
from vla_gen_bench.train.student import Watched

CONFIG = size("pico")
ROWS = 3


def inputs(slots: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(ROWS, CONFIG.patches, CONFIG.text.width), torch.randn(ROWS, slots, CONFIG.text.width)


@pytest.mark.parametrize("reads, listens", [("patches", False), ("patches and states", True)])
def test_only_the_states_of_the_first_action_are_read(reads: str, listens: bool) -> None:
    patches, states = inputs()
    states.requires_grad_()
    wanted, known = torch.zeros(ROWS, len(AUXILIARY)), torch.ones(ROWS, len(AUXILIARY), dtype=torch.bool)
    loss = Hindsight(CONFIG, reads).loss(patches.requires_grad_(), states, wanted, known)  # type: ignore[arg-type]
    from_patches, from_states = torch.autograd.grad(loss, (patches, states), allow_unused=True)
    assert from_patches.abs().sum() > 0
    if listens:
        assert from_states[:, :7].abs().sum() > 0 and not from_states[:, 7:].any()
    else:
        assert from_states is None


def test_unknown_targets_do_not_count() -> None:
    """Two rows know nothing, the third one only its first target: smooth L1 of 1 is one half."""
    head = Hindsight(CONFIG, "patches")
    for parameter in head.parameters():
        parameter.data.zero_()
    wanted, known = torch.full((ROWS, len(AUXILIARY)), 9.0), torch.zeros(ROWS, len(AUXILIARY), dtype=torch.bool)
    wanted[2, 0], known[2, 0] = 1.0, True
    assert head.loss(inputs()[0], None, wanted, known).item() == pytest.approx(0.5)
    assert head.loss(inputs()[0], None, wanted, torch.zeros_like(known)).item() == 0


def test_patches_of_earlier_steps_are_freed() -> None:
    """A run of looking only once kept those of all its steps: gigabytes."""
    layer = torch.nn.Linear(2, 2)
    watched = Watched(layer)
    earlier = weakref.ref(layer(torch.ones(1, 2)))
    assert watched.output is earlier()
    newest = layer(torch.ones(1, 2))
    assert earlier() is None and watched.output is newest
