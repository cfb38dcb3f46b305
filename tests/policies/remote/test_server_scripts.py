"""The scripts of servers/, as far as they run without the models: bytes, episodes, and the calls they make.

The models of OpenVLA-OFT and GR00T are replaced by recorders, so these tests show what a model would be given, not
that it runs. LeRobot's script is tested with the real package in test_ecosystem.py.
"""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from golden_wire import OPENPI

from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.registry import load_policy

SERVERS = Path(__file__).resolve().parents[3] / "servers"
FAST = {"start_s": 10, "timeout_s": 20}


def script(name: str, monkeypatch) -> ModuleType:
    """Imports a script as the interpreter that runs it would: its folder is on the path."""
    monkeypatch.syspath_prepend(str(SERVERS))
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)
    return module


@contextmanager
def serving(loop: ModuleType, begin, hello: dict, monkeypatch):
    """Runs the loop in a thread; yields the address."""
    made, real = [], loop.websocket_server
    monkeypatch.setattr(loop, "websocket_server", lambda *given, **more: made.append(real(*given, **more)) or made[0])
    Thread(target=loop.serve, args=(begin, hello, "127.0.0.1", 0), daemon=True).start()
    while not made:
        time.sleep(0.01)
    try:
        yield f"openpi://127.0.0.1:{made[0].socket.getsockname()[1]}"
    finally:
        made[0].shutdown()


def test_the_loop_writes_and_reads_openpis_bytes(monkeypatch):
    loop = script("openpi_loop", monkeypatch)
    assert loop.pack({"observation/state": np.array([0, 1, 2], np.float32)}) == OPENPI
    state = loop.unpack(OPENPI)["observation/state"]
    assert state.dtype == np.float32 and state.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="an array of object"):
        loop.unpack(OPENPI.replace(b"<f4", b"|O8"))


def test_every_episode_has_a_state_of_its_own(monkeypatch):
    """Two episodes in turn: each counts its own observations in dx."""
    loop = script("openpi_loop", monkeypatch)

    def begin():
        seen = []

        def act(message):
            seen.append(message["prompt"])
            return np.array([[len(seen) / 100, 0, 0, 0, 0, 0, 1]])

        return act

    with serving(loop, begin, loop.greeting("counts", 1, 1, {}), monkeypatch) as url:
        remote = load_policy(url, **FAST)
        for _ in range(2):  # the second pair of episodes starts at 1 again
            remote.reset(["put carrot on plate", "put spoon on plate"], [0, 1])
            counts = [remote.act(example_observation(2, step=step))[:, 0, 0] for step in range(3)]
            assert np.allclose(counts, np.array([[1, 1], [2, 2], [3, 3]]) / 100)
        remote.close()


def test_a_client_that_vanishes_leaves_no_traceback(monkeypatch, capfd, caplog):
    loop = script("openpi_loop", monkeypatch)
    with serving(loop, lambda: lambda message: np.zeros((1, 7)), loop.greeting("zero", 1, 1, {}), monkeypatch) as url:
        remote = load_policy(url, **FAST)
        remote._links[0]._socket.socket.close()  # no closing handshake, as of a process that ends
        again = load_policy(url, **FAST)
        again.reset(["put"], [0])
        assert again.act(example_observation(1)).shape == (1, 1, 7)
        again.close()
    assert "Traceback" not in capfd.readouterr().err + caplog.text


def test_a_models_error_reaches_the_client(monkeypatch):
    from vla_gen_bench.policies.remote.links import ServerError

    loop = script("openpi_loop", monkeypatch)

    def act(message):
        raise KeyError("observation/wrist_image")

    with serving(loop, lambda: act, loop.greeting("broken", 1, 1, {}), monkeypatch) as url:
        remote = load_policy(url, **FAST)
        remote.reset(["put"], [0])
        with pytest.raises(ServerError, match="KeyError: 'observation/wrist_image'"):
            remote.act(example_observation(1))


def served_by(name: str, arguments: list[str], monkeypatch):
    """Runs a script's main with recorders for modules; returns what it serves, without a socket."""
    module, served = script(name, monkeypatch), []
    monkeypatch.setattr(module, "serve", lambda begin, hello, host, port: served.append((begin, hello)))
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    module.main()
    return served[0]


MESSAGE = {
    "observation/image": np.full((4, 5, 3), 7, np.uint8),
    "observation/wrist_image": np.full((4, 5, 3), 9, np.uint8),
    "observation/state": np.arange(8, dtype=np.float32),
    "prompt": "put carrot on plate",
}


def test_openvla_oft_is_called_with_its_own_names(monkeypatch):
    calls = []

    def get_vla_action(config, model, processor, observation, prompt, head, projector):
        calls.append((config, observation, prompt, head, projector))
        return [np.zeros(7)] * 8

    utils = SimpleNamespace(
        get_vla=lambda config: SimpleNamespace(llm_dim=4096), get_processor=lambda config: "processor",
        get_action_head=lambda config, llm_dim: ("head", llm_dim), get_vla_action=get_vla_action,
        get_proprio_projector=lambda config, llm_dim, proprio_dim: ("projector", llm_dim, proprio_dim),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "experiments", ModuleType("experiments"))
    monkeypatch.setitem(sys.modules, "experiments.robot", SimpleNamespace(openvla_utils=utils))
    begin, _ = served_by("serve_openvla_oft", ["folder", "--proprio", "8", "--images", "2"], monkeypatch)
    assert begin()(MESSAGE).shape == (8, 7)
    [(config, observation, prompt, head, projector)] = calls
    assert (config.unnorm_key, config.num_images_in_input, config.use_proprio) == ("bridge_orig", 2, True)
    assert {name: value.shape for name, value in observation.items()} == {
        "full_image": (4, 5, 3), "wrist_image": (4, 5, 3), "state": (8,),
    }  # fmt: skip
    assert (prompt, head, projector) == ("put carrot on plate", ("head", 4096), ("projector", 4096, 8))


def test_gr00t_is_called_with_batch_and_time_axes(monkeypatch):
    asked = []

    class Policy:
        language_key = "annotation.human.task"

        def __init__(self, **given):
            self.given, self.resets = given, 0

        def get_modality_config(self):
            names = {"video": ["image_0"], "state": ["x", "y", "z"], "action": ["x", "gripper"]}
            return {kind: SimpleNamespace(modality_keys=keys) for kind, keys in names.items()}

        def reset(self):
            asked.append("reset")

        def get_action(self, observation):
            asked.append(observation)
            return {"x": np.full((1, 16, 1), 0.5), "gripper": np.zeros((1, 16, 1))}, {}

    tags = SimpleNamespace(EmbodimentTag=SimpleNamespace(OXE_WIDOWX="oxe_widowx"))
    for name, module in {
        "gr00t": ModuleType("gr00t"), "gr00t.data": ModuleType("gr00t.data"), "gr00t.data.embodiment_tags": tags,
        "gr00t.policy": ModuleType("gr00t.policy"), "gr00t.policy.gr00t_policy": SimpleNamespace(Gr00tPolicy=Policy),
    }.items():  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    begin, _ = served_by("serve_gr00t", ["folder", "--embodiment-tag", "OXE_WIDOWX"], monkeypatch)
    actions = begin()(MESSAGE)
    assert actions.shape == (16, 2) and (actions[:, 0] == 0.5).all()
    assert asked[0] == "reset"
    assert asked[1]["video"]["image_0"].shape == (1, 1, 4, 5, 3)
    assert {name: value.tolist() for name, value in asked[1]["state"].items()} == {
        "x": [[[0.0]]], "y": [[[1.0]]], "z": [[[2.0]]],
    }  # fmt: skip
    assert asked[1]["language"] == {"annotation.human.task": [["put carrot on plate"]]}
