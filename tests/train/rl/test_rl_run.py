"""Runs of PPO: kills, full disks, checks, other critics, two processes; and one with the real simulator."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from bandit import new_checkpoint
from living import alive, waited
from rl_runs import recipe_of, run
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vla_gen_bench.errors import UserError
from vla_gen_bench.log.guard import sole_writer
from vla_gen_bench.train.closed_loop import CHECK_SEED, ROLLOUT_SEED
from vla_gen_bench.train.processes import join
from vla_gen_bench.train.rl import loop
from vla_gen_bench.train.rl.actor_critic import Sampling
from vla_gen_bench.train.rl.learner import Learner, RlRecipe, choose_simulation, resumed_simulation
from vla_gen_bench.train.rl.rollout import Collector

TIMED = {"wall_s", "steps_per_s", "sim_share", "policy_share", "update_share"}
PATH = {"PYTHONPATH": os.pathsep.join(sys.path)}  # for processes that import this module
SMALL = {"episodes": 6, "together": 4, "env_steps": 6 * 2 * 3, "batch": 6}
WHOLE = SMALL | {"batch": 12, "epochs": 1}
KILLED = {
    "ppo": SMALL | {"ema": 0.5},
    "dpo": {"episodes": 16, "together": 16, "env_steps": 96, "batch": 2, "renew_every": 0},
}


def timeless(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


VARIANTS = {
    "hn": {"value": {"source": "hn"}},
    "concat": {"value": {"source": "concat"}},
    "separate": {"value": {"source": "separate"}},
    "state": {"value": {"source": "state", "epochs": 3}},
    "bootstrap, in parts": {"time_limit": "bootstrap", "accumulate": 3},
    "adapter": {"adapter": {"rank": 4}},
    "bfloat16": {"precision": "bfloat16"},
}


@pytest.mark.parametrize(
    ("wanted", "chosen", "began", "expected"),
    [
        ("auto", "gpu", None, "gpu"),
        ("auto", "gpu", {"iteration": 1}, "gpu"),  # a state of a version that did not save it
        ("auto", "gpu", {"simulation": "gpu"}, "gpu"),
        ("auto", "gpu", {"simulation": "cpu"}, "cpu"),
        ("auto", "cpu", {"simulation": "gpu"}, "learned with its physics on the GPU, here it would be on the CPU"),
        ("gpu", "gpu", {"simulation": "cpu"}, "learned with its physics on the CPU, here it would be on the GPU"),
    ],
)
def test_a_run_resumes_in_the_simulation_that_it_began_in(
    wanted: str, chosen: str, began: dict[str, Any] | None, expected: str, checkpoint: Path
) -> None:
    """ "auto" used to choose again at every resume."""
    recipe = recipe_of("ppo", checkpoint, **SMALL, simulation=wanted)
    if len(expected) == 3:
        assert resumed_simulation(recipe, chosen, began) == expected
        return
    with pytest.raises(UserError, match=expected):
        resumed_simulation(recipe, chosen, began)


def test_the_state_of_a_run_says_where_its_physics_ran(checkpoint: Path, tmp_path: Path) -> None:
    recipe = recipe_of("ppo", checkpoint, **SMALL)
    run(recipe.model_copy(update={"env_steps": 12}), tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["simulation"] == "cpu"
    torch.save({**state, "simulation": "gpu"}, tmp_path / "state.pt")
    with pytest.raises(UserError, match="resume where a GPU can simulate"):
        run(recipe.model_copy(update={"env_steps": 12}), tmp_path)


def test_chunks_train_too(tmp_path: Path) -> None:
    """6 episodes of two decisions, two steps each."""
    oft = {"decoding": "parallel", "chunk": 2}
    start = new_checkpoint(tmp_path / "oft", **oft)
    changes = SMALL | {"env_steps": 24, "horizon": 4, "model": {"checkpoint": str(start), **oft}}
    rows = run(recipe_of("ppo", start, **changes), tmp_path / "run")
    assert [row["env_steps"] for row in rows] == ["24"] and float(rows[0]["grad_norm"]) > 0


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_variant_trains_all_that_it_should(name: str, checkpoint: Path, tmp_path: Path) -> None:
    recipe = recipe_of("ppo", checkpoint, **SMALL | {"env_steps": 12} | VARIANTS[name])
    subject = Learner(recipe, join("cpu"))
    before = {key: value.detach().clone() for key, value in subject.weights().items()}
    rows = run(recipe, tmp_path)
    assert len(rows) == 1 and float(rows[0]["value_loss"]) > 0
    state = torch.load(tmp_path / "state.pt", weights_only=True)["weights"]
    still = [key for key, value in before.items() if torch.equal(value, state[key])]
    assert still == []
    assert all("lora" in key or key.startswith("critic.") for key in before) == (name == "adapter")


def test_the_policy_stands_still_while_the_critic_warms_up(checkpoint: Path, tmp_path: Path) -> None:
    recipe = recipe_of("ppo", checkpoint, **SMALL, value={"warmup": 2})
    subject = Learner(recipe, join("cpu"))
    fresh = {key: value.detach().clone() for key, value in subject.weights().items()}
    states = []
    for iterations in (2, 3):
        run(recipe.model_copy(update={"env_steps": 12 * iterations}), tmp_path / str(iterations))
        states.append(torch.load(tmp_path / str(iterations) / "state.pt", weights_only=True)["weights"])
    for key, value in fresh.items():
        assert torch.equal(value, states[0][key]) == key.startswith("policy."), key
        assert not torch.equal(value, states[1][key]), key


def test_a_kl_limit_ends_an_iteration_early(checkpoint: Path, tmp_path: Path) -> None:
    """12 decisions in 2 batches, 4 epochs: 8 steps; the second one already sees another policy."""
    changes = SMALL | {"env_steps": 12, "epochs": 4}
    free = run(recipe_of("ppo", checkpoint, **changes), tmp_path / "free")
    held = run(recipe_of("ppo", checkpoint, **changes, target_kl=1e-4), tmp_path / "held")
    assert float(held[0]["kl"]) < float(free[0]["kl"])


def test_checks_are_episodes_of_their_own_at_a_temperature_of_their_own_with_videos(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect, asked = Collector.collect, []

    def noted(self: Collector, chosen: Any, sampling: Sampling, foresee: bool = False) -> Any:
        asked.append(([(start.spec.seed, start.spec.index) for start in chosen], sampling.temperature))
        return collect(self, chosen, sampling, foresee)

    monkeypatch.setattr(Collector, "collect", noted)
    changes = SMALL | {"check_every": 2, "check_episodes": 3, "check_temperature": 0.25, "videos": 2, "keep_every": 3}
    rows = run(recipe_of("ppo", checkpoint, **changes), tmp_path)
    assert [row["check_success"] != "" for row in rows] == [False, True, False]
    assert [temperature for _, temperature in asked] == [1, 1, 0.25, 1]
    assert asked[2][0] == [(CHECK_SEED, index) for index in range(3)]
    assert {seed for episodes, _ in (asked[0], asked[1], asked[3]) for seed, _ in episodes} == {ROLLOUT_SEED}
    assert len(list((tmp_path / "videos").glob("0002-*.mp4"))) == 2
    assert (tmp_path / "checkpoints" / "0003" / "config.json").is_file()


def test_the_averaged_policy_becomes_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    """After one iteration the average holds 1/10 of the old weights: (1 + 0) / (10 + 0)."""
    changes = SMALL | {"env_steps": 12, "ema": 0.9}
    fresh = Learner(recipe_of("ppo", checkpoint, **changes), join("cpu")).weights()
    run(recipe_of("ppo", checkpoint, **changes), tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)["weights"]
    written = load_file(tmp_path / "checkpoint" / "model.safetensors")
    name = "language_model.lm_head.weight"
    expected = 0.1 * fresh[f"policy.{name}"].detach() + 0.9 * state[f"policy.{name}"]
    assert torch.allclose(written[name].float(), expected, atol=1e-7)
    assert not torch.equal(written[name].float(), state[f"policy.{name}"])


def test_a_full_disk_ends_the_run_and_keeps_the_earlier_state(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("ppo", checkpoint, **SMALL)
    whole = run(recipe, tmp_path / "whole")
    write, calls = torch.save, []

    def fails_at_the_second(state: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write(state, path)

    monkeypatch.setattr(torch, "save", fails_at_the_second)
    with pytest.raises(UserError, match="No space left on device.*the earlier state is kept"):
        run(recipe, tmp_path / "run")
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["iteration"] == 1
    monkeypatch.setattr(torch, "save", write)
    assert timeless(run(recipe, tmp_path / "run")) == timeless(whole)


def test_a_run_whose_folder_is_replaced_leaves_the_new_one_alone(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody removes the folder and starts another run in its name while the first one still trains."""
    out, end = tmp_path / "run", Learner.end_iteration

    def replaced(learner: Learner) -> None:
        end(learner)
        shutil.rmtree(out)
        out.mkdir()

    monkeypatch.setattr(Learner, "end_iteration", replaced)
    with pytest.raises(UserError, match="was removed while this command wrote there"), sole_writer(out):
        run(recipe_of("ppo", checkpoint, **SMALL, keep_every=1), out)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["ppo", "dpo"])
def test_a_run_killed_in_the_middle_of_an_iteration_goes_on_as_if_nothing_had_happened(
    name: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL after the first iteration, while the second one's episodes or steps run; DPO has a reference to keep."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums of another number of threads differ in the last digits
    recipe = recipe_of(name, checkpoint, **KILLED[name])
    whole = run(recipe, tmp_path / "whole")
    out = tmp_path / "killed"
    code = "import sys; import test_rl_run as t; t.train_slowly(*sys.argv[1:])"
    command = [sys.executable, "-c", code, name, str(checkpoint), str(out)]
    process = subprocess.Popen(command, cwd=Path(__file__).parent, env=os.environ | PATH)
    while not (out / "slow").is_file() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with (out / "curve.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1
    assert timeless(run(recipe, out)) == timeless(whole)
    weights = [torch.load(folder / "state.pt", weights_only=True)["weights"] for folder in (out, tmp_path / "whole")]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


TERMINATED = """
import sys
from vla_gen_bench import runtime
import test_rl_run
runtime.catch_signals()
try:
    test_rl_run.train_slowly(*sys.argv[1:], workers=1)
except runtime.Terminated:
    sys.exit(143)
"""


def test_sigterm_ends_a_run_and_its_workers_and_frees_their_memory(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "ended"
    command = [sys.executable, "-c", TERMINATED, "ppo", str(checkpoint), str(out)]
    process = subprocess.Popen(
        command, cwd=Path(__file__).parent, env=os.environ | PATH, stderr=subprocess.PIPE, text=True
    )
    while not (out / "slow").is_file() and process.poll() is None:
        time.sleep(0.02)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and errors == ""  # no word of leaked shared memory
    assert len(workers) == 2  # the simulator's, and Python's resource tracker
    assert waited(lambda: not any(map(alive, workers)), 10)


def train_slowly(name: str, checkpoint: str, out: str, workers: int = 0) -> None:
    """In a process of its own: the second iteration's first optimiser step leaves a file and then takes for ever."""
    step, done = Learner.step, Path(out) / "slow"

    def slow(self: Learner, *arguments: Any) -> float:
        norm = step(self, *arguments)
        if self.iteration == 1:
            done.touch()
            time.sleep(600)
        return norm

    Learner.step = slow
    run(recipe_of(name, Path(checkpoint), **KILLED[name]), Path(out), workers=workers)


def test_a_gpu_that_is_not_there_is_named_before_anything_starts(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loads(*arguments: Any) -> None:
        raise AssertionError("a model was loaded first")

    monkeypatch.setattr("vla_gen_bench.doctor.backend.gpu_problem", lambda: "there is no CUDA device")
    monkeypatch.setattr(loop, "Learner", loads)
    recipe = recipe_of("ppo", checkpoint, **SMALL, simulation="gpu")
    with pytest.raises(UserError, match="simulation: gpu: there is no CUDA device; give --set simulation=cpu"):
        run(recipe, tmp_path, build=None)


@pytest.mark.parametrize(("problem", "chosen"), [("", "gpu"), ("there is no CUDA device", "cpu")])
def test_a_gpu_simulates_where_one_can(
    problem: str, chosen: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vla_gen_bench.doctor.backend.gpu_problem", lambda: problem)
    recipe = recipe_of("ppo", checkpoint)
    assert choose_simulation(recipe) == chosen
    assert choose_simulation(recipe.model_copy(update={"simulation": "cpu"})) == "cpu"


@pytest.mark.parametrize("start", ["checkpoint", "checkpoints/0002"])
def test_fresh_does_not_remove_what_the_run_is_to_begin_with(
    start: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    run(recipe_of("ppo", checkpoint, **SMALL, keep_every=2), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    refused = {f"{out}/{start}": "--fresh would remove the checkpoint", "opnvla-broad": "no such folder"}
    for name, message in refused.items():
        with pytest.raises(UserError, match=message):
            run(recipe_of("ppo", Path(name), **SMALL), out, fresh=True)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    elsewhere = run(recipe_of("ppo", out / start, **SMALL), tmp_path / "other", fresh=True)
    assert len(elsewhere) == 3


def test_tensorboard_has_the_numbers_of_the_curve(checkpoint: Path, tmp_path: Path) -> None:
    rows = run(recipe_of("ppo", checkpoint, **SMALL), tmp_path)
    logged = EventAccumulator(str(tmp_path / "tensorboard"))
    logged.Reload()
    assert set(logged.Tags()["scalars"]) == {name for name, value in rows[0].items() if value}
    for name in ("return", "kl", "wall_s"):
        told = [(event.step, event.value) for event in logged.Scalars(name)]
        assert told == [(int(row["iteration"]), pytest.approx(float(row[name]), rel=1e-5)) for row in rows]


def test_two_processes_learn_as_one_does(checkpoint: Path, tmp_path: Path) -> None:
    """Each iteration is one step on all decisions, so that shares, advantages and averaged gradients have to agree."""
    alone = run(recipe_of("ppo", checkpoint, **WHOLE), tmp_path / "alone")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    code = "import sys; import test_rl_run as t; t.train_together(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(checkpoint), str(tmp_path / "both")]
    running = [
        subprocess.Popen(command, cwd=Path(__file__).parent, env=os.environ | PATH | common | {"RANK": rank})
        for rank in ("0", "1")
    ]
    assert [process.wait(300) for process in running] == [0, 0]
    with (tmp_path / "both" / "curve.csv").open() as file:
        both = list(csv.DictReader(file))
    assert [row["env_steps"] for row in both] == [row["env_steps"] for row in alone] == ["12", "24", "36"]
    for name in ("return", "success", "success_once"):
        assert [float(row[name]) for row in both] == pytest.approx([float(row[name]) for row in alone], abs=1e-5)
    norms = [[float(row["grad_norm"]) for row in rows] for rows in (both, alone)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def train_together(checkpoint: str, out: str) -> None:
    """One of two processes."""
    run(recipe_of("ppo", Path(checkpoint), **WHOLE), Path(out))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"episodes": 6, "group": 4}, "episodes: 6 cannot be divided into groups of 4"),
        ({"together": 5}, "together: 5 cannot be divided into 2 lanes"),
        ({"sampling": {"temperature": 0}}, "sampling.temperature: a greedy policy explores nothing"),
        ({"seed": 100_000}, "seed: 100000; rollouts have the seeds up to 99999"),
    ],
)
def test_recipes_that_do_not_add_up_are_refused(changes: dict, message: str, checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_of("ppo", checkpoint, **changes)


def test_a_gradient_that_is_no_number_ends_the_run(checkpoint: Path, tmp_path: Path) -> None:
    recipe = recipe_of("ppo", checkpoint, **SMALL)
    subject = Learner(recipe, join("cpu"))
    weight = next(iter(subject.weights().values()))
    with pytest.raises(UserError, match="iteration 1: a gradient is not a number"):
        subject.step([weight.sum() * float("nan")])


def test_the_recipe_class_counts_whole_iterations(checkpoint: Path) -> None:
    recipe: RlRecipe = recipe_of("ppo", checkpoint, env_steps=1000, episodes=6, horizon=80)
    assert (recipe.steps_per_iteration, recipe.iterations) == (480, 3)


def test_two_episodes_with_the_real_simulator(cli, checkpoint: Path, tmp_path: Path) -> None:
    """Two workers, one scene each; then the curve, and the same command resumes from where it stopped."""
    from vla_gen_bench.train.rl.watch import NUMBERS

    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        f"name: tiny\ntrainer: ppo\nmodel: {{checkpoint: {checkpoint}}}\noptimiser: {{lr: 1.0e-4}}\n"
        "env_steps: 6\nepisodes: 2\nhorizon: 3\ntogether: 2\nlanes: 1\nbatch: 3\n"
    )
    ran = cli("train", "ppo", "--recipe", recipe, "--out", tmp_path / "run", "--workers", 2, "--device", "cpu")
    assert ran.exit_code == 0, ran.stderr
    assert "iteration 1/1  return 0.000" in ran.stderr and "checkpoint:" in ran.stdout
    assert f"{tmp_path / 'run' / 'checkpoint'} --policy-option temperature=0 --suite" in ran.stdout  # as its checks
    with (tmp_path / "run" / "curve.csv").open() as file:
        [row] = csv.DictReader(file)
    assert tuple(row) == NUMBERS and row["env_steps"] == "6"
    again = cli("train", "ppo", "--recipe", recipe, "--out", tmp_path / "run", "--device", "cpu")
    assert again.exit_code == 0 and "iteration" not in again.stderr
