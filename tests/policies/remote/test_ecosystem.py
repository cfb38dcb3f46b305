"""The real packages of other projects, each in an environment of its own: `make test-ecosystem` installs them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from golden_wire import OPENPI, VLA_EVAL
from served import Echo, serving

from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.registry import load_policy

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = Path(__file__).parent / "ecosystem"
FAST = {"start_s": 10, "timeout_s": 20}
OFFLINE = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def _tool():
    spec = importlib.util.spec_from_file_location("ecosystem", ROOT / "tools" / "ecosystem.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["ecosystem"] = module
    spec.loader.exec_module(module)
    return module


TOOL = _tool()


def python_of(name: str) -> Path:
    """Returns the interpreter that has the packages, or skips with what is missing."""
    python, wanted = TOOL.python_of(name), TOOL.ENVIRONMENTS[name]
    packages = ", ".join((*wanted.alone, *wanted.packages))
    if not python.exists() or subprocess.run([python, "-c", f"import {wanted.probe}"], capture_output=True).returncode:
        pytest.skip(f"needs {packages} in an environment of its own: make test-ecosystem")
    return python


def run(name: str, script: str, *arguments: object) -> dict:
    """Runs a script in an environment and returns the JSON it prints last."""
    command = [python_of(name), SCRIPTS / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=OFFLINE)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def serves(name: str, script: str, *arguments: object):
    """Runs a server in an environment; yields its port."""
    command = [python_of(name), "-u", SCRIPTS / script, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PATH": "/usr/bin:/bin"})
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def test_the_real_openpi_client_is_served():
    with serving(lambda: Echo(chunk=4, execute=2)) as (port, _):
        got = run("openpi", "openpi_calls.py", port)
    actions = np.array(got["actions"])
    assert actions.shape == (4, 7) and (actions[:, 6] == 0).all() and got["metadata"] == ["policy", "vgb"]
    # 240 x 320 in 224 x 224: 168 of 224 rows are 60, the others black: a mean of 45.
    assert np.allclose(actions[:, 2], 0.045, atol=1e-4) and got["padded"] == [0, 60]
    assert np.array(got["broken"]).shape == (3, 7)
    assert got["golden"] == OPENPI.hex()


def test_openpis_own_encoding_is_understood():
    with serves("openpi", "openpi_serves.py") as port:
        remote = load_policy(f"openpi://127.0.0.1:{port}", **FAST)
        assert (remote.action_spec.chunk, remote.action_spec.execute) == (10, 5)
        remote.reset(["put carrot on plate"], [0])
        actions = remote.act(example_observation(1))
        assert actions.shape == (1, 10, 7) and (actions[..., 6] == 1).all() and 0 < actions[0, 0, 0] < 0.02


def test_the_real_vla_eval_harness_is_served():
    with serving(lambda: Echo(chunk=4, execute=2), "vla-eval") as (port, _):
        got = run("vla_eval", "vla_eval_calls.py", port)
    actions = np.array(got["actions"])
    assert actions.shape == (3, 7) and got["server"] == "vgb:acme" and (actions[:, 6] == 0).all()
    assert np.allclose(actions[:, 2], 0.060) and np.allclose(actions[:, 1], [0, 0, 0.002])  # steps 0, 0, 2
    assert got["golden"] == VLA_EVAL.hex()


@pytest.mark.parametrize(("chunk_size", "chunk"), [(0, 4), (4, 1)])
def test_a_real_vla_eval_model_server_is_asked(chunk_size, chunk):
    with serves("vla_eval", "vla_eval_serves.py", chunk_size) as port:
        remote = load_policy(f"vla-eval://127.0.0.1:{port}", **FAST)
        assert remote.action_spec.chunk == chunk
        for _ in range(2):  # an episode that begins forgets what is left of a chunk
            remote.reset(["put carrot on plate", "put spoon on plate"], [0, 1])
            actions = remote.act(example_observation(2))
            assert actions.shape == (2, chunk, 7)
            assert actions[0, 0, 1] == 0 and actions[0, 0, 6] == 1
        if chunk == 1:
            assert np.allclose(remote.act(example_observation(2))[0, 0, 1], 0.01)


def test_inspect_robots_widowx_openvla_policy_is_served():
    with serving(lambda: Echo(chunk=1), "act") as (port, _):
        got = run("inspect", "inspect_calls.py", port)
    assert np.allclose(got["action"], [0.0, 0, 0.060, 0, 0, 0, 0], atol=2e-3) and len(got["low"]) == 7


def test_real_lerobot_reads_and_edits_what_is_collected(tmp_path):
    from dataclasses import replace

    from demos import ORIGIN, SIDE, demo

    from vla_gen_bench.train.demos.dataset import Writer, load

    python_of("lerobot")
    whole, edited = tmp_path / "whole", tmp_path / "edited"
    writer = Writer(whole, SIDE, ORIGIN, wrist=True)
    for index in range(3):
        item = demo(index)
        writer.add(replace(item, observed=np.ones((len(item), 17), np.float32), wrist=255 - item.images))
    writer.finish()
    got = run("lerobot", "lerobot_reads.py", whole, edited)
    assert sorted(got["cameras"]) == ["observation.images.external", "observation.images.wrist"]
    assert (got["frames"], got["state"], got["image"]) == (12, [17], [3, SIDE, SIDE])
    assert got["task"] == demo(1).spec.instruction and np.allclose(got["action"], demo(1).actions[1])
    read = load(edited, world="builtin")
    assert len(read) == 2 and (read.actions[:4] == demo(1).actions).all()
    # LeRobot encodes what is left again, and noise suffers: the frame is the right one, not an equal one.
    away = [np.abs(read.images[0].astype(int) - demo(index).images[0]).mean() for index in range(3)]
    assert away[1] < 0.75 * min(away[0], away[2])


def beside(name: str, script: str, source: str) -> dict:
    """Runs a script in this project's environment, with another one's packages after its own."""
    import os
    import sys

    [site] = python_of(name).parents[1].glob("lib/python*/site-packages")
    if f"python{sys.version_info.major}.{sys.version_info.minor}" not in str(site):
        pytest.skip(f"needs the environment '{name}' with the Python that runs the tests: make test-ecosystem")
    command = [sys.executable, SCRIPTS / script, ROOT / "integrations" / source, site]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def expected_instruction() -> str:
    from vla_gen_bench.episodes.suite import draw, load_suite

    return draw(load_suite("all").select(["ind"])[0], "builtin", 0, 3).instruction


def test_the_embodiment_passes_inspect_robots_own_checks():
    got = beside("inspect", "integration_inspect.py", "inspect_robots/src")
    assert got["same"] and got["errors"] == [] and got["image"] == [480, 640, 3]
    assert got["instruction"] == expected_instruction()
    assert got["grip"][0] > 0.95 and got["grip"][1] < 0.9  # 0 closes


def test_the_benchmark_fits_vla_evals_specs():
    got = beside("vla_eval", "integration_vla_eval.py", "vla_eval/src")
    assert got["tasks"] == ["ind", "object_reposition"] and got["warnings"] == []
    assert got["images"] == {"external": [240, 320, 3], "wrist": [240, 320, 3]} and got["state"] == [17]
    assert got["instruction"] == expected_instruction() and not got["done"] and got["result"]["success"] is False


def test_the_lerobot_environment_passes_gymnasiums_checker(monkeypatch):
    from gymnasium.utils.env_checker import check_env

    spec = importlib.util.spec_from_file_location("vgb_env_hub", ROOT / "integrations" / "lerobot" / "env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("VGB_SCENARIOS", "ind")
    made = module.make_env(n_envs=1)
    [env] = made["execution"][0].envs
    check_env(env, skip_render_check=True)
    env.reset(seed=3)
    assert env.task_description == expected_instruction()
    made["execution"][0].close()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """Returns a collected data set and the ACT that lerobot-train made of it in two steps, as docs/lerobot.md."""
    from dataclasses import replace

    from demos import ORIGIN, demo

    from vla_gen_bench.train.demos.dataset import Writer

    python, folder = python_of("lerobot"), tmp_path_factory.mktemp("lerobot")
    writer = Writer(folder / "demos", 64, {**ORIGIN, "side": 64}, wrist=True)
    for index in range(2):
        item, random = demo(index, side=64), np.random.default_rng(index)
        observed = random.normal(size=(len(item), 17)).astype(np.float32)
        images = np.repeat(random.integers(0, 255, (len(item), 8, 8, 3)).astype(np.uint8), 8, 1).repeat(8, 2)
        actions = random.normal(0, 0.02, (len(item), 7)).astype(np.float32)
        actions[:, 6] = item.actions[:, 6]
        seen = {"images": images, "wrist": images[:, ::-1], "observed": observed, "actions": actions}
        writer.add(replace(item, **seen))
    writer.finish()
    train = [
        python.parent / "lerobot-train", "--dataset.repo_id=local/demos", f"--dataset.root={folder / 'demos'}",
        "--policy.type=act", "--policy.push_to_hub=false", "--policy.device=cpu", "--policy.chunk_size=4",
        "--policy.n_action_steps=2", "--policy.dim_model=32", "--policy.n_heads=2", "--policy.dim_feedforward=32",
        "--policy.latent_dim=4", "--policy.pretrained_backbone_weights=null", "--steps=2", "--save_freq=2",
        "--batch_size=2", "--num_workers=0", "--wandb.enable=false", f"--output_dir={folder / 'run'}",
    ]  # fmt: skip
    done = subprocess.run(train, capture_output=True, text=True, timeout=500, env=OFFLINE | {"HOME": str(folder)})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "demos", folder / "run" / "checkpoints" / "last" / "pretrained_model"


@contextmanager
def lerobot_serves(checkpoint: Path):
    """Runs servers/serve_lerobot.py; yields its address."""
    serve = [python_of("lerobot"), "-u", ROOT / "servers" / "serve_lerobot.py", checkpoint, "--port", "0"]
    process = subprocess.Popen([*serve, "--device", "cpu"], stdout=subprocess.PIPE, text=True, env=OFFLINE)
    try:
        yield next(line for line in process.stdout if "serving" in line).split(" at ")[1].strip()
    finally:
        process.kill()
        process.wait()


def test_a_served_act_gives_the_actions_that_lerobot_computes(trained, tmp_path, cli):
    """The actions of frames from the training data, through `vgb policies check --replay`, equal lerobot's own."""
    from vla_gen_bench.assets.world import get_world
    from vla_gen_bench.policies.conventions import answers, take_frames
    from vla_gen_bench.policies.registry import resolve
    from vla_gen_bench.policies.sensing import sensors_of
    from vla_gen_bench.protocol import Needs
    from vla_gen_bench.train.demos.dataset import load

    demos, checkpoint = trained
    replay = [python_of("lerobot"), ROOT / "servers" / "replay_lerobot.py", checkpoint, demos, "--frames", "16"]
    saved = ["--device", "cpu", "--actions", tmp_path / "theirs.npy"]
    done = subprocess.run([*replay, *saved], capture_output=True, text=True, timeout=300, env=OFFLINE)
    assert done.returncode == 0, done.stderr[-3000:]
    with lerobot_serves(checkpoint) as address:
        needs = sensors_of(resolve(address), get_world("builtin"), options={"start_s": 5})
        assert needs == Needs(state=True, cameras=("external", "wrist"), image_size=(64, 64))
        policy = load_policy(address, **FAST)
        assert (policy.action_spec.chunk, policy.action_spec.execute) == (4, 2) and policy.default_adapter == ()
        ours = answers(policy, take_frames(load(demos, world="builtin", wrist=True), needs, 16, 4).observation)
        policy.close()
        checked = cli("policies", "check", address, "--replay", demos, "--frames", 16)
    theirs = np.load(tmp_path / "theirs.npy")
    assert ours.shape == theirs.shape == (8, 4, 7) and np.ptp(theirs[:, 0], axis=0).min() > 1e-5  # frames differ
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)  # batches of 1 and 16 round differently
    assert done.stdout.splitlines()[-1] in checked.stdout  # error: translation ... m, rotation ... rad, gripper ...


def test_temporal_ensembling_is_lerobots_own(trained, tmp_path):
    """Two episodes at once, each with an ensemble of its own, against lerobot's select_action."""
    import shutil

    demos, checkpoint = trained
    ensembled = tmp_path / "ensembled"
    shutil.copytree(checkpoint, ensembled)
    config = json.loads((ensembled / "config.json").read_text())
    config |= {"temporal_ensemble_coeff": 0.01, "n_action_steps": 1}
    (ensembled / "config.json").write_text(json.dumps(config))
    theirs = np.array(run("lerobot", "lerobot_acts.py", ensembled, demos))  # [2, 4, 7]
    with lerobot_serves(ensembled) as address:
        policy = load_policy(address, **FAST)
        assert policy.action_spec.chunk == 1
        ours = _acted(policy, demos)
        policy.close()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)
    assert np.abs(theirs[:, -1] - theirs[:, 0]).max() > 1e-4


def _acted(policy, demos: Path) -> np.ndarray:
    """Returns the actions [episodes, steps, 7] of the two episodes, in one batch."""
    from vla_gen_bench.policies.conventions import take_frames
    from vla_gen_bench.protocol import Needs
    from vla_gen_bench.train.demos.dataset import load

    needs = Needs(state=True, cameras=("external", "wrist"), image_size=(64, 64))
    seen = take_frames(load(demos, world="builtin", wrist=True), needs, 8, 1).observation
    policy.reset(list(seen.select([0, 4]).instruction), [0, 1])
    return np.stack([policy.act(seen.select([step, 4 + step]))[:, 0] for step in range(4)], axis=1)
