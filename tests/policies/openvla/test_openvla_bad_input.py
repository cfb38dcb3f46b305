"""What a user can get wrong about an OpenVLA checkpoint, at the command: exit status 2, one line, the file named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.openvla.checkpoint.config_file import size, with_stats
from vla_gen_bench.policies.openvla.checkpoint.fresh import new_model, new_tokenizer
from vla_gen_bench.policies.openvla.checkpoint.saving import save
from vla_gen_bench.policies.openvla.checkpoint.tokenizer import train_tokenizer
from vla_gen_bench.policies.openvla.policy import OpenVLAPolicy

safetensors = pytest.importorskip("safetensors.torch", reason="needs the extra 'vla': safetensors")
pytest.importorskip("tokenizers", reason="needs the extra 'vla': tokenizers")

STATS = {"action": {"q01": [-0.03] * 7, "q99": [0.03] * 7, "mask": [True] * 6 + [False]}}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pico checkpoint in shards, with the statistics of two data sets."""
    folder = tmp_path_factory.mktemp("sound")
    config = with_stats(size("pico"), {"bridge_orig": STATS, "sft": STATS})
    save(folder, new_model(config), new_tokenizer(config), shard_bytes=200_000)
    return folder


@pytest.fixture
def checkpoint(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "checkpoint"))


def first_shard(folder: Path) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[0]


def truncate_a_shard(folder: Path) -> None:
    file = first_shard(folder)
    file.write_bytes(file.read_bytes()[:-1])


def remove_a_shard(folder: Path) -> None:
    first_shard(folder).unlink()


def put_in_a_nan(folder: Path) -> None:
    tensors = safetensors.load_file(first_shard(folder))
    tensors["projector.fc2.weight"][5, 5] = torch.nan
    safetensors.save_file(tensors, first_shard(folder))


def swap_the_tokenizer(folder: Path) -> None:
    train_tokenizer(["put a on b"], 1024).save(str(folder / "tokenizer.json"))


def misspell_a_field(folder: Path) -> None:
    file = folder / "config.json"
    fields = json.loads(file.read_text())
    fields["vla_gen_bench"]["chunks"] = 4
    file.write_text(json.dumps(fields))


DAMAGES = [
    (truncate_a_shard, r"model-00001-of-\d+.safetensors: truncated: \d+ bytes, its header says \d+; download it again"),
    (remove_a_shard, r"model-00001-of-\d+.safetensors: no such file; the checkpoint is incomplete"),
    (put_in_a_nan, r"projector.fc2.weight: 1 NaN and 0 infinite of \d+ values; the checkpoint is damaged"),
    (swap_the_tokenizer, r"tokenizer.json: has 1024 tokens; the model was made for 640"),
    (misspell_a_field, r"config.json: vla_gen_bench: unknown field 'chunks'; did you mean 'chunk'"),
]


@pytest.mark.parametrize("damage, message", DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_damaged_checkpoint(cli, checkpoint: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(checkpoint)
    flags = ("--policy-option", f"checkpoint={checkpoint}", "--policy-option", "unnorm_key=sft")
    done = cli("policies", "check", "openvla", *flags)
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: {checkpoint}/")
    with pytest.raises(UserError, match=message):
        raise UserError(line)


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "unnorm_key: none given; this checkpoint has bridge_orig, sft"),
        (["unnorm_key=toto"], "unnorm_key: no 'toto' in norm_stats; known: bridge_orig, sft"),
        (
            ["unnorm_key=bridge"],
            "no 'bridge' in norm_stats; did you mean 'bridge_orig'? This checkpoint has bridge_orig, sft",
        ),
        (["unnorm_key=[sft]"], "unnorm_key: expected text, got ['sft']; quote it"),
    ],
)
def test_statistics_that_are_not_there(cli, checkpoint: Path, options: list[str], message: str) -> None:
    flags = [part for option in [f"checkpoint={checkpoint}", *options] for part in ("--policy-option", option)]
    done = cli("policies", "check", "openvla", *flags)
    assert done.exit_code == 2 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "option, message",
    [
        ("revision=7", "revision: expected text, got 7; quote it: revision='\"...\"'"),
        ("base=[a]", "base: expected text, got ['a']"),
        ("dtype=[float32]", "dtype: '['float32']'; did you mean 'float32'"),
        ("dtype=null", "dtype: 'None'; known: bfloat16, float16, float32"),
        ("device=null", "device: expected text, got None"),
        ("temperature=true", "temperature: expected a number >= 0, got True"),
        ("temperature=.nan", "temperature=.nan: line 1: expected a finite number"),
        ("top_k=true", "top_k: expected a whole number >= 1, got True"),
        ("batch_size=2.5", "batch_size: expected a whole number >= 1, got 2.5"),
        ("vision_heads=4", "vision_heads: expected two whole numbers >= 1, got 4"),
        ("vision_heads=[4, 0]", "vision_heads: expected two whole numbers >= 1, got [4, 0]"),
        ("decoding=serial", "decoding: 'serial'; known: autoregressive, parallel"),
        ("device=gpu", "device: 'gpu' cannot be used"),
    ],
)
def test_options_of_the_wrong_kind(cli, checkpoint: Path, option: str, message: str) -> None:
    flags = ("--policy-option", f"checkpoint={checkpoint}", "--policy-option", option)
    done = cli("policies", "check", "openvla", *flags)
    assert done.exit_code == 2 and message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("checkpoint_", ["5", "nowhere", "[a]"])
def test_a_checkpoint_that_is_no_folder(cli, checkpoint_: str) -> None:
    done = cli("policies", "check", "openvla", "--policy-option", f"checkpoint={checkpoint_}")
    assert done.exit_code == 2 and "no such folder, and not an id on the hub (owner/name)" in done.stderr


def test_an_evaluation_stops_before_its_first_episode(cli, checkpoint: Path, tmp_path: Path) -> None:
    truncate_a_shard(checkpoint)
    flags = ("--suite", "vision", "--scenario", "ind", "--episodes", 1, "--seeds", "0", "--out", tmp_path / "log")
    done = cli("eval", "--policy", "openvla", "--checkpoint", checkpoint, *flags)
    assert done.exit_code == 2 and "truncated" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def policy(checkpoint: Path) -> OpenVLAPolicy:
    return OpenVLAPolicy(checkpoint, unnorm_key="sft")


@pytest.mark.parametrize(
    "instruction, message",
    [
        (None, "instruction: expected a sentence, got None"),
        ("  ", "instruction: expected a sentence"),
        ("put the carrot on the plate " * 50, "makes a prompt of .* tokens; this model takes at most 104"),
    ],
)
def test_instructions(policy: OpenVLAPolicy, instruction: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        policy.reset(["put carrot on plate", instruction], [1, 2])


@pytest.mark.parametrize(
    "image, message",
    [
        (
            np.zeros((2, 48, 64, 3), np.float32),
            r"image: got float32 \[2, 48, 64, 3\]; expected .* uint8 \[B, H, W, 3\]",
        ),
        (np.zeros((2, 3, 48, 64), np.uint8), r"image: got uint8 \[2, 3, 48, 64\]; expected"),
        (np.zeros((48, 64, 3), np.uint8), r"image: got uint8 \[2, 64, 3\]; expected"),
        (np.zeros((2, 0, 64, 3), np.uint8), r"image: got uint8 \[2, 0, 64, 3\]; expected"),
        (np.zeros((1, 48, 64, 3), np.uint8), "image: a batch of 1 for 2 instructions"),
    ],
    ids=["float", "channels first", "no batch", "no rows", "too few"],
)
def test_images(policy: OpenVLAPolicy, image: np.ndarray, message: str) -> None:
    observation = example_observation(2)
    policy.reset(observation.instruction, [1, 2])
    with pytest.raises(UserError, match=message):
        policy.act(replace(observation, image=image))
