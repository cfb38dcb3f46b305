"""OpenVLA-OFT: chunks decoded in parallel, as tokens or by the regression head; how both are trained, saved and run."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.chunking import ChunkRunner
from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.openvla import oft
from vla_gen_bench.policies.openvla.checkpoint.action_head import ACTION_HEAD_FILE, l1_head_from
from vla_gen_bench.policies.openvla.checkpoint.config_file import size, with_stats
from vla_gen_bench.policies.openvla.checkpoint.fresh import acting_as, new_action_head, new_model, new_tokenizer
from vla_gen_bench.policies.openvla.checkpoint.loading import load
from vla_gen_bench.policies.openvla.checkpoint.saving import save
from vla_gen_bench.policies.openvla.checkpoint.tensors import read_file
from vla_gen_bench.policies.openvla.config import CheckpointError
from vla_gen_bench.policies.openvla.model.l1_head import L1Head
from vla_gen_bench.policies.openvla.model.vla import Inputs
from vla_gen_bench.policies.openvla.processor import Processor
from vla_gen_bench.policies.registry import load_policy

safetensors = pytest.importorskip("safetensors.torch", reason="needs the extra 'vla': safetensors")
pytest.importorskip("tokenizers", reason="needs the extra 'vla': tokenizers")

STATS = {"action": {"q01": [-0.03] * 7, "q99": [0.03] * 7, "mask": [True] * 6 + [False]}}
OFT = {"decoding": "parallel", "attention": "bidirectional", "chunk": 4}
WIDTH = 32  # of pico's language model


def config(head: str = "tokens"):
    return with_stats(acting_as(size("pico"), **OFT, head=head), {"toy": STATS})


def new_head() -> L1Head:
    return new_action_head(size("pico"), seed=1)


def a_batch(rows: int = 3) -> Inputs:
    pixels = torch.randn(rows, 6, 32, 32, generator=torch.Generator().manual_seed(2))
    return Inputs(torch.arange(1, 7).expand(rows, 6), torch.ones(rows, 6), pixels)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("l1")
    save(folder, new_model(config("l1")), new_tokenizer(config()), action_head=new_head())
    return folder


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


@pytest.mark.parametrize("chunk", [1, 4, 8])
def test_the_head_gives_seven_numbers_for_each_action(chunk: int) -> None:
    out = new_head()(torch.randn(3, 7 * chunk, WIDTH))
    assert out.shape == (3, chunk, 7) and out.dtype == torch.float32


def test_an_action_depends_on_its_own_seven_states_only() -> None:
    head, states = new_head(), torch.randn(1, 28, WIDTH)
    changed = states.clone()
    changed[:, 14:21] += 1  # those of action 2
    same = (head(states) == head(changed)).all(2)[0]
    assert same.tolist() == [True, True, False, True]


def test_a_head_of_zeros_gives_its_last_bias() -> None:
    head = new_head()
    with torch.no_grad():
        head.fc2.weight.zero_()
        head.fc2.bias.copy_(torch.arange(7))
    assert torch.equal(head(torch.randn(2, 14, WIDTH)), torch.arange(7.0).expand(2, 2, 7))


def test_teacher_gives_the_logits_and_the_gradients_of_every_slot() -> None:
    model, inputs = new_model(config()), a_batch()
    logits = oft.teacher(model, inputs)
    tokens = torch.full((3, 28), model.config.action_range[0])
    assert logits.shape == (3, 28, 256)
    assert torch.equal(logits, oft.parallel_forward(model, inputs, tokens, "bidirectional").logits)
    logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_loss_of_tokens_by_hand() -> None:
    """All logits equal: -ln(1/256) for every token, whatever was demonstrated."""
    model = new_model(config())
    with torch.no_grad():
        model.language_model.lm_head.weight.zero_()
    loss = oft.chunk_loss(model, a_batch(), torch.rand(3, 4, 7) * 2 - 1)
    assert loss.item() == pytest.approx(math.log(256), rel=1e-6)


def test_the_loss_of_tokens_knows_the_bins() -> None:
    """-1 is the last of the 256 ids, +1 the first: with all weight on the last, -1 costs nothing."""
    model, inputs = new_model(config()), a_batch()
    with torch.no_grad():
        direction = oft.slot_states(model, inputs, 4, "bidirectional").mean((0, 1))
        model.language_model.lm_head.weight.zero_()
        model.language_model.lm_head.weight[model.config.action_range[1] - 1] = 100 * direction
    assert oft.chunk_loss(model, inputs, torch.full((3, 4, 7), -1.0)) < 1e-3
    assert oft.chunk_loss(model, inputs, torch.full((3, 4, 7), 1.0)) > 1


def test_the_loss_of_the_head_by_hand() -> None:
    """It says 0 throughout: the mean of |-1|, |0.5| and five zeros is 1.5 / 7."""
    model, head = new_model(config("l1")), new_head()
    with torch.no_grad():
        head.fc2.weight.zero_()
    target = torch.tensor([-1, 0.5, 0, 0, 0, 0, 0], dtype=torch.float64).expand(3, 4, 7)
    loss = oft.chunk_loss(model, a_batch(), target, head)
    assert loss.item() == pytest.approx(1.5 / 7, rel=1e-6)


@pytest.mark.parametrize("kind", ["tokens", "l1"])
def test_a_chunk_learned_by_heart_is_carried_out_step_by_step(kind: str, tmp_path: Path) -> None:
    """From demonstrated actions through training, a saved checkpoint and the policy to the actions of each step."""
    model, tokenizer = new_model(config(kind)), new_tokenizer(config())
    head = new_head() if kind == "l1" else None
    rng = np.random.default_rng(5)
    observation = replace(example_observation(2), image=rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
    wanted = rng.uniform(-0.9, 0.9, (2, 4, 7))
    wanted[..., 6] = [[1, 1, -1, -1], [1, -1, -1, 1]]
    inputs = Processor(model.config, tokenizer)(observation.image, observation.instruction)
    optimiser = torch.optim.AdamW([*model.parameters(), *(head.parameters() if head else ())], 4e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, total_iters=300)
    for _ in range(300):
        optimiser.zero_grad()
        oft.chunk_loss(model, inputs, torch.from_numpy(wanted), head).backward()
        optimiser.step()
        schedule.step()
    save(tmp_path, model, tokenizer, action_head=head)

    runner = ChunkRunner(load_policy("openvla-oft", checkpoint=tmp_path, temperature=0), "policy 'openvla-oft'")
    runner.reset(observation.instruction, [1, 2])
    queries, done = [], []
    for step in range(4):
        queries.append(runner.needs_observation)
        done.append(runner.next_actions(replace(observation, step=np.full(2, step)) if queries[-1] else None))
    assert queries == [True, False, False, False] and runner.needs_observation
    found = np.stack(done, 1)  # [2, 4, 7]
    error = np.abs(found[..., :6] / 0.03 - wanted[..., :6]).max()
    assert error < (0.1 if kind == "l1" else 1 / 250)  # bins are 2 / 255 wide
    assert np.array_equal(found[..., 6], wanted[..., 6])


def test_the_head_is_saved_and_loaded_with_the_checkpoint(checkpoint: Path) -> None:
    loaded, head = load(checkpoint), new_head()
    assert loaded.config.acting.head == "l1"
    assert loaded.action_head is not None and not loaded.action_head.training
    found = loaded.action_head.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in head.state_dict().items())
    assert load(checkpoint, dtype=torch.bfloat16).action_head.fc1.weight.dtype == torch.bfloat16


def test_a_checkpoint_of_tokens_takes_the_place_of_one_with_a_head(copy: Path) -> None:
    save(copy, new_model(config()))
    assert not (copy / ACTION_HEAD_FILE).exists()
    assert load(copy).action_head is None


def test_the_names_of_openvla_oft_are_understood() -> None:
    head = new_head()
    theirs = {f"module.model.{name}": tensor for name, tensor in head.state_dict().items()}
    assert "module.model.mlp_resnet_blocks.1.ffn.1.weight" in theirs
    states = torch.randn(1, 7, WIDTH)
    assert torch.equal(l1_head_from(theirs, WIDTH)(states), head(states))


def test_a_damaged_head_is_named(copy: Path) -> None:
    file = copy / ACTION_HEAD_FILE
    good = read_file(file)
    for change, message in [
        ({"fc2.bias": None}, "1 missing tensors: fc2.bias"),
        ({"extra": torch.zeros(1)}, "1 unexpected tensors: extra"),
        ({"fc2.bias": torch.zeros(8)}, r"fc2.bias: has shape \[8\]; expected \[7\]"),
        ({"fc1.weight": torch.zeros(WIDTH, 7)}, r"fc1.weight: has shape \[32, 7\]; expected \[32, 224\]"),
        ({"fc1.weight": None}, "no matrix fc1.weight"),
        ({"fc2.bias": torch.full((7,), torch.nan)}, "fc2.bias: 7 NaN and 0 infinite of 7 values"),
    ]:
        tensors = {name: tensor for name, tensor in {**good, **change}.items() if tensor is not None}
        safetensors.save_file(tensors, file)
        with pytest.raises(CheckpointError, match=f"{ACTION_HEAD_FILE}: .*{message}"):
            load(copy)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=f"{ACTION_HEAD_FILE}: truncated"):
        load(copy)


def test_a_head_and_a_config_that_contradict_each_other_are_refused(copy: Path) -> None:
    with pytest.raises(CheckpointError, match="says head: tokens, and one is given"):
        save(copy, new_model(config()), action_head=new_head())
    with pytest.raises(CheckpointError, match="says head: l1, and none is given"):
        save(copy, new_model(config("l1")))
    fields = json.loads((copy / "config.json").read_text())
    fields["vla_gen_bench"]["head"] = "tokens"
    (copy / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=f"{ACTION_HEAD_FILE}: config.json says head: tokens"):
        load(copy)
    fields["vla_gen_bench"]["head"] = "l1"
    (copy / "config.json").write_text(json.dumps(fields))
    (copy / ACTION_HEAD_FILE).unlink()
    with pytest.raises(CheckpointError, match=f"no {ACTION_HEAD_FILE}, which config.json promises"):
        load(copy)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"head": "l2"}, "head: 'l2'; known: l1, tokens"),
        ({"decoding": "paralel"}, "decoding: 'paralel'; did you mean 'parallel'"),
        ({"attention": "both"}, "attention: 'both'; known: bidirectional, causal"),
        ({"decoding": "parallel", "chunk": 0}, "chunk: expected a whole number from 1 to 1024, got 0"),
        ({"decoding": "parallel", "chunk": "4"}, "chunk: expected a whole number from 1 to 1024, got '4'"),
        ({"head": "l1"}, "head: l1 needs decoding: parallel"),
    ],
)
def test_mistakes_in_how_a_checkpoint_acts_are_named(changes: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        acting_as(size("pico"), **changes)


def test_the_head_draws_nothing_and_stays_within_the_statistics(copy: Path) -> None:
    loaded = load(copy)
    with torch.no_grad():
        loaded.action_head.fc2.bias.fill_(50)
    save(copy, loaded.model, action_head=loaded.action_head)
    policy, observation = load_policy("openvla-oft", checkpoint=copy), example_observation(2)
    assert policy.decoding == {"head": "l1", "device": "cpu", "dtype": "float32"}
    first, second = (
        policy.reset(observation.instruction, seeds) or policy.act(observation) for seeds in ([1, 2], [3, 4])
    )
    assert np.array_equal(first, second)
    assert first.shape == (2, 4, 7) and np.allclose(first[..., :6], 0.03)


def test_sampling_options_of_a_head_that_draws_nothing_are_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="top_k: .* has a regression head, which draws no tokens; leave top_k out"):
        load_policy("openvla-oft", checkpoint=checkpoint, top_k=50)


def test_the_card_refuses_a_checkpoint_that_decodes_one_token_after_the_other(tmp_path: Path) -> None:
    save(tmp_path, new_model("pico"), new_tokenizer(size("pico")))
    with pytest.raises(UserError, match="decodes autoregressive, and parallel is asked for; --policy openvla runs any"):
        load_policy("openvla-oft", checkpoint=tmp_path)
    with pytest.raises(UserError, match="decoding: 'serial'; known: autoregressive, parallel"):
        load_policy("openvla-oft", checkpoint=tmp_path, decoding="serial")


def test_evaluating_by_name(cli, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--suite", "vision", "--scenario", "ind", "--episodes", 1, "--seeds", "0", "--workers", 1)
    ran = cli("eval", "--policy", "openvla-oft", "--checkpoint", checkpoint, *flags, "--out", "log", "--json")
    assert ran.exit_code == 0, ran.stderr
    header = json.loads(Path("log/run.json").read_text())
    assert header["action_spec"]["chunk"] == 4 and header["decoding"]["head"] == "l1"
    row = json.loads(Path("log/episodes.jsonl").read_text())
    assert row["status"] == "ok" and row["steps"] == 80
