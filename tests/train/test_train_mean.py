"""`vgb train mean`: the mean of checkpoints' weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from bandit import new_checkpoint
from safetensors import SafetensorError
from safetensors.torch import save_file

from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.openvla.checkpoint.action_head import ACTION_HEAD_FILE
from vla_gen_bench.policies.openvla.checkpoint.config_file import size
from vla_gen_bench.policies.openvla.checkpoint.fresh import acting_as, new_action_head, new_model
from vla_gen_bench.policies.openvla.checkpoint.loading import load
from vla_gen_bench.policies.openvla.checkpoint.saving import save
from vla_gen_bench.policies.openvla.checkpoint.tensors import INDEX_FILE, SINGLE_FILE, open_checkpoint, read_file
from vla_gen_bench.policies.openvla.policy import OpenVLAPolicy


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [new_checkpoint(tmp_path_factory.mktemp(f"seed{seed}"), seed) for seed in (0, 1)]


def test_every_weight_is_the_mean_and_the_rest_is_the_last_ones(cli, pair: list[Path], tmp_path: Path) -> None:
    """Of a, b and b: a third of the way back from b."""
    (pair[1] / "value_head.safetensors").write_bytes(b"its own")
    ran = cli("train", "mean", pair[0], pair[1], pair[1], "--out", tmp_path / "mean")
    (pair[1] / "value_head.safetensors").unlink()
    assert ran.exit_code == 0, ran.stderr
    a, b, found = (open_checkpoint(folder) for folder in (*pair, tmp_path / "mean"))
    assert found.shapes == a.shapes
    moved = [name for name in a.entries if not torch.equal(a.read(name), b.read(name))]
    assert len(moved) > 10
    for name in a.entries:
        torch.testing.assert_close(found.read(name), a.read(name) / 3 + 2 * b.read(name) / 3)
    assert (tmp_path / "mean" / "value_head.safetensors").read_bytes() == b"its own"
    (tmp_path / "mean" / "value_head.safetensors").unlink()
    policy, observation = OpenVLAPolicy(tmp_path / "mean"), example_observation(1)
    policy.reset(observation.instruction, [0])
    assert policy.act(observation).shape == (1, 1, 7)


def test_shards_stay_shards(cli, pair: list[Path], tmp_path: Path) -> None:
    model = load(pair[1]).model
    shutil.copytree(pair[1], tmp_path / "shards")
    save(tmp_path / "shards", model, shard_bytes=100_000)
    ran = cli("train", "mean", pair[0], tmp_path / "shards", "--out", tmp_path / "mean")
    assert ran.exit_code == 0, ran.stderr
    assert (tmp_path / "mean" / INDEX_FILE).exists() and not (tmp_path / "mean" / SINGLE_FILE).exists()
    a, b, found = (open_checkpoint(folder) for folder in (*pair, tmp_path / "mean"))
    assert len({entry.file for entry in found.entries.values()}) > 1
    for name in a.entries:
        torch.testing.assert_close(found.read(name), (a.read(name) + b.read(name)) / 2)


def l1_checkpoint(folder: Path, seed: int) -> Path:
    """An untrained pico policy with the regression head of OpenVLA-OFT."""
    config = acting_as(size("pico"), decoding="parallel", chunk=2, attention="bidirectional", head="l1")
    save(folder, new_model(config, seed), action_head=new_action_head(config, seed))
    return folder


def test_the_regression_head_is_averaged_like_the_model(cli, tmp_path: Path) -> None:
    """It was the last one's, in a model that is otherwise the mean."""
    heads = [l1_checkpoint(tmp_path / name, seed) / ACTION_HEAD_FILE for seed, name in enumerate("ab")]
    ran = cli("train", "mean", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "mean")
    assert ran.exit_code == 0, ran.stderr
    a, b, found = (read_file(file) for file in (*heads, tmp_path / "mean" / ACTION_HEAD_FILE))
    assert found.keys() == a.keys() and not torch.equal(a["fc1.weight"], b["fc1.weight"])
    for name in a:
        torch.testing.assert_close(found[name], (a[name] + b[name]) / 2)
    save_file({**a, "fc1.weight": a["fc1.weight"][:1].contiguous()}, heads[0])
    for message in (f"{heads[0]}: fc1.weight: has shape", f"{heads[0]}: not found; config.json promises"):
        ran = cli("train", "mean", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "other")
        assert ran.exit_code == 2 and message in ran.stderr and not (tmp_path / "other").exists()
        heads[0].unlink(missing_ok=True)


def test_what_has_no_mean_is_refused_and_nothing_written(cli, pair: list[Path], tmp_path: Path) -> None:
    damaged = shutil.copytree(pair[0], tmp_path / "damaged")
    (damaged / SINGLE_FILE).write_bytes((pair[0] / SINGLE_FILE).read_bytes()[:-8])
    other = shutil.copytree(pair[0], tmp_path / "other")
    save_file({"norm.weight": torch.ones(3)}, other / SINGLE_FILE)
    parallel = new_checkpoint(tmp_path / "parallel", 2, decoding="parallel")
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").touch()
    for arguments, message in (
        ([pair[0], "--out", tmp_path / "out"], "a mean takes two checkpoints or more"),
        ([pair[0], tmp_path / "none", "--out", tmp_path / "out"], "neither model.safetensors nor"),
        ([pair[0], damaged, "--out", tmp_path / "out"], str(damaged)),
        ([other, pair[0], "--out", tmp_path / "out"], f"{other}: "),
        ([parallel, pair[0], "--out", tmp_path / "out"], "its 'acting' differs"),
        ([*pair, "--out", full], "holds files already"),
        ([*pair, "--out", full / "notes.txt" / "out"], "cannot be written"),
    ):
        ran = cli("train", "mean", *arguments)
        assert ran.exit_code == 2 and message in ran.stderr and "Traceback" not in ran.stderr
    assert not (tmp_path / "out").exists() and [path.name for path in full.iterdir()] == ["notes.txt"]


def test_a_full_disk_leaves_nothing(cli, pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, file: Path, **more: object) -> None:
        Path(file).write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    ran = cli("train", "mean", *pair, "--out", tmp_path / "mean")
    assert ran.exit_code == 2 and "mean: cannot be written (I/O error: No space left" in ran.stderr
    assert list(tmp_path.iterdir()) == []
