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
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"PATH": "/usr/bin:/bin"})
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
