"""Where the physics runs: chosen by what the machine offers; a GPU is asked for in vain here or pretended."""

from __future__ import annotations

import pytest

from vla_gen_bench.doctor import checks as doctor
from vla_gen_bench.doctor import probe
from vla_gen_bench.doctor.backend import choose_backend
from vla_gen_bench.errors import UserError
from vla_gen_bench.eval.evaluate import Request, make_plan


def machine(monkeypatch, devices: int, answer: dict | None = None) -> None:
    monkeypatch.setattr(probe, "cuda_devices", lambda: devices)
    monkeypatch.setattr(doctor, "run_probe", lambda what: answer)


def test_auto_is_the_cpu_without_a_device_and_starts_no_probe(monkeypatch, capsys):
    machine(monkeypatch, 0)
    assert choose_backend("auto") == "cpu" and capsys.readouterr().err == ""
    with pytest.raises(UserError, match="--backend gpu: there is no CUDA device; use --backend cpu"):
        choose_backend("gpu")


def test_auto_is_the_gpu_where_it_works(monkeypatch):
    machine(monkeypatch, 1, {"devices": 1, "name": "H100"})
    assert [choose_backend(wanted) for wanted in ("auto", "gpu", "cpu")] == ["gpu", "gpu", "cpu"]


def test_a_gpu_that_fails_is_said_why(monkeypatch, capsys):
    machine(monkeypatch, 1, {"devices": 1, "error": "torch cannot use it"})
    assert choose_backend("auto") == "cpu" and "torch cannot use it" in capsys.readouterr().err
    with pytest.raises(UserError, match="torch cannot use it"):
        choose_backend("gpu")


def test_a_misspelt_backend_is_refused():
    with pytest.raises(UserError, match="backend 'gqu'; did you mean 'gpu'"):
        choose_backend("gqu")


def test_a_log_of_the_other_backend_is_another_run(monkeypatch):
    plans = []
    for devices in (0, 1):
        machine(monkeypatch, devices, {"devices": devices})
        plans.append(make_plan(Request("hold", ["execution"], episodes=1)))
    assert [plan.backend for plan in plans] == ["cpu", "gpu"]
    assert [plan.identity["backend"]["simulation"] for plan in plans] == ["physx_cpu", "physx_cuda"]


def test_several_workers_cannot_share_a_gpu(monkeypatch):
    machine(monkeypatch, 1, {"devices": 1})
    with pytest.raises(UserError, match="--workers 2: a GPU simulates all episodes in one process"):
        make_plan(Request("hold", ["execution"], episodes=1, workers=2))
