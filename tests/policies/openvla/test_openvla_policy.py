"""`OpenVLAPolicy` under the benchmark's contract."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openvla_checkpoints import STATS, checkpoint

from vla_gen_bench import runtime
from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.contract import check_policy, example_observation
from vla_gen_bench.policies.openvla.checkpoint.config_file import with_stats
from vla_gen_bench.policies.openvla.checkpoint.dead import dead_shapes
from vla_gen_bench.policies.openvla.checkpoint.fresh import new_model, new_tokenizer, size
from vla_gen_bench.policies.openvla.checkpoint.loading import empty_model
from vla_gen_bench.policies.openvla.checkpoint.saving import save
from vla_gen_bench.policies.openvla.policy import OpenVLAPolicy, draws
from vla_gen_bench.policies.registry import load_policy, resolve
from vla_gen_bench.protocol import Observation

pytest.importorskip("safetensors", reason="needs the extra 'vla': safetensors")
pytest.importorskip("tokenizers", reason="needs the extra 'vla': tokenizers")

REFERENCE = "vla_gen_bench.policies.openvla.policy:OpenVLAPolicy"
OFT = {"decoding": "parallel", "attention": "bidirectional", "chunk": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("openvla"))


@pytest.fixture(scope="module")
def oft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("oft"), **OFT)


def play(policy: OpenVLAPolicy, observation: Observation, seeds: list[int]) -> np.ndarray:
    policy.reset(observation.instruction, seeds)
    return policy.act(observation)


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"batch_size": 2}, {"top_k": 50}, {"dtype": "bfloat16"}])
def test_the_projects_own_check_passes(folder: Path, options: dict[str, Any]) -> None:
    policy = load_policy(REFERENCE, checkpoint=folder, **options)
    results = {result.name: result for result in check_policy(policy, "openvla", batch=8)}
    assert [result for result in results.values() if result.status == "failed"] == []
    assert results["determinism"].status == results["observation"].status == "ok"
    if "dtype" not in options:
        assert results["batch independence"].status == "ok"


def test_loading_imports_no_compiler_and_no_statistics(folder: Path) -> None:
    """`torch._dynamo` costs a worker 0.7 s and 65 MB, `scipy.stats` 0.4 s; neither is needed to evaluate."""
    code = (
        "import sys\nfrom vla_gen_bench.log.counts import wilson\n"
        "from vla_gen_bench.policies.openvla.policy import OpenVLAPolicy\n"
        f"OpenVLAPolicy({str(folder)!r}); wilson(3, 4)\n"
        "print(sorted({'torch._dynamo', 'scipy.stats', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_small_model_asks_for_one_thread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert OpenVLAPolicy(folder).threads == 1
    monkeypatch.setattr("vla_gen_bench.policies.openvla.policy.SMALL_MODEL", 0)
    assert OpenVLAPolicy(folder).threads is None


def test_threads_are_lowered_and_never_raised() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        runtime.narrow_threads(4)
        assert torch.get_num_threads() == 2
        runtime.narrow_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_oft_variant_passes_the_check_with_chunks_of_four(oft: Path) -> None:
    policy = load_policy(REFERENCE, checkpoint=str(oft))
    assert policy.action_spec.chunk == 4
    results = {result.name: result.status for result in check_policy(policy, "openvla-oft", batch=8)}
    assert results["batch independence"] == results["determinism"] == "ok"


@pytest.mark.parametrize("kind", ["folder", "oft"])
def test_same_seed_and_observation_give_the_same_action_in_any_batch(kind: str, request: pytest.FixtureRequest) -> None:
    policy = OpenVLAPolicy(request.getfixturevalue(kind))
    observation, seeds = example_observation(8, step=3), [11, 12, 13, 14, 15, 16, 17, 18]
    together = play(policy, observation, seeds)
    for row in range(8):
        assert np.array_equal(play(policy, observation.select([row]), [seeds[row]])[0], together[row])
    turned = play(policy, observation.select([5, 2]), [seeds[5], seeds[2]])
    assert np.array_equal(turned, together[[5, 2]])


def test_what_was_asked_before_does_not_matter(folder: Path) -> None:
    policy, observation = OpenVLAPolicy(folder), example_observation(2, step=7)
    first = play(policy, observation, [1, 2])
    policy.act(replace(observation, step=observation.step + 1))
    assert np.array_equal(policy.act(observation), first)


def test_seed_step_picture_and_sentence_each_matter(folder: Path) -> None:
    policy, observation = OpenVLAPolicy(folder, temperature=1.0), example_observation(1)
    base = play(policy, observation, [1])
    black = replace(observation, image=np.zeros_like(observation.image))
    later = replace(observation, step=observation.step + 1)
    other = replace(observation, instruction=("move the spoon to the towel",))
    assert not np.array_equal(play(policy, observation, [2]), base)
    for changed in (black, later, other):
        assert not np.array_equal(play(policy, changed, [1]), base)


def test_temperature_zero_ignores_the_seed(folder: Path) -> None:
    policy, observation = OpenVLAPolicy(folder, temperature=0), example_observation(2)
    assert np.array_equal(play(policy, observation, [1, 2]), play(policy, observation, [3, 4]))


def test_actions_are_scaled_and_the_gripper_is_binary(folder: Path) -> None:
    actions = play(OpenVLAPolicy(folder), example_observation(8), list(range(8)))
    assert actions.dtype == np.float32 and actions.shape == (8, 1, 7)
    assert np.abs(actions[..., :6]).max() <= 0.03
    assert set(np.unique(actions[..., 6])) <= {-1.0, 1.0}


def test_draws_are_keyed_by_seed_and_step() -> None:
    assert torch.equal(draws([3, 9], [0, 5], 7)[1], draws([9], [5], 7)[0])
    assert not torch.equal(draws([9], [5], 7), draws([9], [6], 7))
    assert not torch.equal(draws([9], [5], 7), draws([8], [5], 7))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"temperature": -1}, "temperature: expected a number >= 0"),
        ({"top_k": 0}, "top_k: expected a whole number >= 1"),
        ({"dtype": "float64"}, "dtype: 'float64'"),
        ({"device": "tpu"}, "device: 'tpu' cannot be used"),
        ({"image_path": "tensors"}, "image_path: 'tensors'; did you mean 'tensor'"),
        ({"unnorm_key": "bridge"}, "no 'bridge' in norm_stats; known: toy"),
        ({"vision_heads": [1]}, "vision_heads: expected two whole numbers"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_options_are_named(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_policy(REFERENCE, checkpoint=folder, **options)


@pytest.mark.parametrize("name, key", [("warmup", "bridge_orig"), ("sft", "sft"), ("ppo", "bridge_orig")])
def test_the_cards_of_published_models(name: str, key: str, tmp_path: Path) -> None:
    """Everything but the weights: a pico checkpoint with their statistics stands in for the download."""
    card = resolve(f"openvla-7b-{name}")
    assert card.checkpoint is None and card.worlds == ("rl4vla",) and card.training.saw_unseen is False
    assert card.params == sum(parameter.numel() for parameter in empty_model(size("7b")).parameters()) + dead_numbers()
    config = with_stats(size("pico"), {key: STATS})
    save(tmp_path, new_model(config), new_tokenizer(config))
    policy = load_policy(card, checkpoint=tmp_path, device="cpu")
    assert policy.processor.image_path == "tensor-bf16" and policy.model.dtype == torch.bfloat16
    assert policy.decoding == {"temperature": 0.6, "top_k": 50, "device": "cpu", "dtype": "bfloat16"}
    assert play(policy, example_observation(1), [1]).shape == (1, 1, 7)
    with pytest.raises(UserError, match="gen-robot/openvla-7b-rlvla-.*no commit pinned"):
        load_policy(card, device="cpu")


def dead_numbers() -> int:
    return sum(math.prod(shape) for shape in dead_shapes(size("7b")).values())


def test_bad_observations_are_named(folder: Path) -> None:
    policy, observation = OpenVLAPolicy(folder), example_observation(2)
    with pytest.raises(UserError, match="instruction: expected a sentence"):
        policy.reset(["put carrot on plate", None], [1, 2])
    policy.reset(observation.instruction, [1, 2])
    with pytest.raises(UserError, match="got float64"):
        policy.act(replace(observation, image=observation.image / 255))
    with pytest.raises(UserError, match="act.. got 1 episodes, reset.. began 2"):
        policy.act(observation.select([0]))
