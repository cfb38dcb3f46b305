"""`vgb bench --openvla`: that everything is measured, and on the right thing. No test looks at the numbers."""

from __future__ import annotations

import json
import math

import pytest
import torch

from vla_gen_bench import runtime
from vla_gen_bench.bench import openvla as bench
from vla_gen_bench.policies.openvla.checkpoint.config_file import size
from vla_gen_bench.policies.openvla.checkpoint.fresh import new_model
from vla_gen_bench.policies.openvla.model import lora


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "LEAST_REPEATS", 1)


def test_the_command_writes_one_line_for_each_size_type_and_batch(cli, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(bench, "SIZES", ("pico",))
    monkeypatch.setattr(bench, "TRAIN_BATCH", 2)
    monkeypatch.setattr(runtime, "usable_cores", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()
    done = cli("bench", "--openvla", "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    lines = {line["name"]: line for line in json.loads((tmp_path / "bench-openvla.json").read_text())["lines"]}
    assert len(lines) == 2 * 2 * (1 + 3)  # thread counts, types; training and three batches
    assert lines["OpenVLA pico, bf16, 2 threads: decoding, batch 32"]["unit"] == "ms"
    assert lines["OpenVLA pico, fp32, 1 thread: training, batch 2"]["unit"] == "samples/s"
    assert all(line["value"] > 0 for line in lines.values())
    assert torch.get_num_threads() == threads
    assert not (tmp_path / "bench.json").exists()


def test_two_threads_are_left_out_on_one_core(monkeypatch) -> None:
    monkeypatch.setattr(bench, "SIZES", ("pico",))
    monkeypatch.setattr(runtime, "usable_cores", lambda: 1)
    assert not [line.name for line in bench.cpu() if "2 threads" in line.name]


def test_quick_and_openvla_exclude_each_other(cli) -> None:
    done = cli("bench", "--quick", "--openvla")
    assert done.exit_code == 2 and "give one of them" in done.stderr


def test_the_measurements_of_a_gpu_run_on_a_cpu_with_a_small_model() -> None:
    lines = list(bench.gpu("pico", "cpu"))
    names = [line.name.removeprefix("OpenVLA pico, bf16, CPU: ") for line in lines]
    acting = [f"acting, batch {batch}{what}" for batch in (1, 8, 64) for what in ("", ", peak memory")]
    updates = [f"PPO update, batch 8, {kind} critic, peak memory" for kind in ("shared", "separate")]
    assert names == acting + updates
    assert all(math.isfinite(line.value) and line.value > 0 for line in lines)


def test_too_little_memory_is_a_line_and_no_crash(monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise torch.cuda.OutOfMemoryError("no memory")

    monkeypatch.setattr(bench, "SeparateCritic", refuse)
    *others, last = bench.gpu("pico", "cpu")
    assert last.name.endswith("separate critic, peak memory: more than the memory there is") and last.value > 0
    assert len(others) == 7


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_training_step_trains_every_parameter(dtype: str) -> None:
    model, fresh = new_model("pico"), new_model("pico")
    bench.training_step(model, 2, bench.DTYPES[dtype])()
    pairs = zip(model.named_parameters(), fresh.parameters(), strict=True)
    assert [name for (name, parameter), old in pairs if torch.equal(parameter, old)] == []
    assert model.dtype == torch.float32


@pytest.mark.parametrize("separate", [False, True])
def test_the_ppo_step_trains_adapters_and_head_alone(separate: bool, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda parameters, most: seen.extend(parameters))
    bench.ppo_step(size("pico"), "cpu", separate)()
    adapted = len(lora.adapted(lora.add_lora(new_model("pico"), lora.LoraConfig(), torch.Generator())))
    assert len(seen) == 2 * adapted * (1 + separate) + 5  # A and B of each layer; five tensors of the value head
    idle = [parameter for parameter in seen if parameter.grad is None]
    assert len(idle) == 2 * separate  # a critic asks for no tokens: the adapter of its lm_head is never used
    assert all(parameter.dtype == torch.bfloat16 for parameter in seen)


def test_a_random_model_of_7b_has_its_size_without_memory() -> None:
    model = bench.random_model(size("7b"), "meta")
    assert {(p.device.type, p.dtype, p.requires_grad) for p in model.parameters()} == {("meta", torch.bfloat16, False)}


def test_a_random_model_is_finite_where_it_acts() -> None:
    model = bench.random_model(size("pico"), "cpu")
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert model.language_model.model.norm.weight.eq(1).all() and model.projector.fc1.bias.eq(0).all()
    assert bench.decoding(model, 3)().shape == (3, 7)
