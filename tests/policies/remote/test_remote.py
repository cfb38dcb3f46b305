"""Policies behind a server: the same log as in-process, every way a server can fail, and what is sent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from served import Counts, Echo, running, serving
from websockets.sync.server import serve as websocket_server

from vla_gen_bench.assets.world import get_world
from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.contract import PolicyError, example_observation
from vla_gen_bench.policies.registry import load_policy, resolve
from vla_gen_bench.policies.remote.links import ServerError, ServerGone, end_of_text
from vla_gen_bench.policies.remote.wire import dumps, loads, pack, unpack
from vla_gen_bench.policies.sensing import sensors_of
from vla_gen_bench.protocol import ActionSpec, Needs

ROOT = Path(__file__).resolve().parents[3]
PROTOCOLS = ["openpi", "vla-eval", "act"]
BOTH = Needs(state=True, cameras=("external", "wrist"), history=2)
FAST = {"start_s": 0.2, "timeout_s": 2, "first_timeout_s": 2}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def openpi_server(answer, greeting=None):
    """A server of another project: `answer(message)` gives the frame, or raises to hang up."""
    seen = []

    def talk(connection):
        connection.send(pack(greeting or {}, "openpi"))
        for data in connection:
            seen.append(unpack(data))
            frame = answer(seen[-1])
            if frame is None:
                connection.close(1011)
                return
            connection.send(frame)

    with websocket_server(talk, "127.0.0.1", 0, compression=None, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.socket.getsockname()[1], seen
        server.shutdown()


def chunk(length: int = 10, width: int = 7, value: float = 0.01):
    actions = np.full((length, width), value, np.float64)
    actions[:, -1] = 1
    return pack({"actions": actions}, "openpi")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_served_policy_acts_as_in_process(protocol):
    with serving(Echo, protocol) as (port, _):
        remote, local = load_policy(f"{protocol}://127.0.0.1:{port}", **FAST), Echo()
        assert remote.action_spec == ActionSpec(chunk=2, execute=1)
        for episodes in (3, 1):
            for policy in (remote, local):
                policy.reset([f"put {b}" for b in range(episodes)], [100 + b for b in range(episodes)])
            for step in range(3):
                seen = example_observation(episodes, step)
                seen = type(seen)(seen.image, tuple(f"put {b}" for b in range(episodes)), seen.step)
                assert np.array_equal(remote.act(seen), local.act(seen))
        remote.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_episodes_that_a_policy_keeps_inside_begin_anew(protocol):
    with serving(Counts, protocol) as (port, _):
        remote = load_policy(f"{protocol}://127.0.0.1:{port}", **FAST)
        for _ in range(2):  # the same instruction again is another episode all the same
            remote.reset(["put carrot on plate"], [5])
            for call in (1, 2):
                assert np.allclose(remote.act(example_observation(1))[0, 0, 1], call / 1000)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_empty_instruction_is_one_like_any_other(protocol):
    """The suites controls and robustness have rows without an instruction."""
    with serving(Counts, protocol) as (port, _):
        remote = load_policy(f"{protocol}://127.0.0.1:{port}", **FAST)
        for instruction in ("", "put carrot on plate", ""):
            remote.reset([instruction], [5])
            for call in (1, 2):
                seen = replace(example_observation(1), instruction=(instruction,))
                assert np.allclose(remote.act(seen)[0, 0, 1], call / 1000)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_sensor_travels_unchanged(protocol):
    seen = []

    class Looks(Echo):
        def act(self, observation):
            seen.append(observation)
            return super().act(observation)

    with serving(Looks, protocol, BOTH) as (port, _):
        url = f"{protocol}://127.0.0.1:{port}"
        needs = sensors_of(resolve(url), get_world("builtin"), options=FAST)
        assert needs == BOTH  # the server says what its policy looks at
        remote = load_policy(url, **FAST)
        sent = example_observation(1, step=6, needs=BOTH)
        remote.reset(list(sent.instruction), [7])
        remote.act(sent)
        [got] = seen
        assert np.array_equal(got.image, sent.image) and np.array_equal(got.state, sent.state)
        assert np.array_equal(got.images["wrist"], sent.images["wrist"]) and got.step[0] == 6
        assert all(np.array_equal(got.history[camera], sent.history[camera]) for camera in ("external", "wrist"))


def test_what_is_sent_is_recorded():
    with openpi_server(lambda message: chunk()) as (port, seen):
        remote = load_policy(f"openpi://127.0.0.1:{port}", **FAST)
        assert remote.action_spec == ActionSpec(chunk=10, execute=5)
        remote.reset(["put spoon on towel"], [0])
        actions = remote.act(example_observation(1))
        assert actions.shape == (1, 10, 7) and actions[0, 0, 6] == 1.0 and actions.dtype == np.float32
        assert seen[-1].keys() == {"observation/image", "prompt"}  # nothing of ours to a server of others
        assert seen[-1]["observation/image"].shape == (224, 224, 3) and seen[-1]["prompt"] == "put carrot on plate"
        connection = remote.connection
        assert connection["sent"] == {"observation/image": "uint8 [224, 224, 3]", "prompt": "str"}
        assert connection["codec"] == "raw" and connection["rotation"] == "euler_XYZ"
        assert connection["adapter"][0] == {"resize": {"height": 224, "width": 224, "method": "bilinear", "pad": True}}


def test_a_key_map_fills_other_names():
    keys = {
        "observation/exterior_image_1_left": "image", "observation/wrist_image_left": "image.wrist",
        "observation/state": "state.ee_position+ee_euler+gripper_opening", "images": {"cam_high": "image"},
        "prompt": "instruction", "rtc": {"value": False},
    }  # fmt: skip
    with openpi_server(lambda message: chunk(1)) as (port, seen):
        url = f"openpi://127.0.0.1:{port}"
        needs = sensors_of(resolve(url), get_world("builtin"), options={"keys": keys})
        assert needs == Needs(state=True, cameras=("external", "wrist"))
        remote = load_policy(url, keys=keys, adapter=[{"gripper": {}}], **FAST)
        remote.reset(["put"], [0])
        remote.act(example_observation(1, needs=needs))
        assert seen[-1]["observation/state"].shape == (7,) and seen[-1]["rtc"] is False
        assert seen[-1]["images"]["cam_high"].shape == (240, 320, 3)


def test_a_key_map_leaves_the_rest_to_the_server():
    """Image size and history are the server's own, whatever the keys are called."""
    served = Needs(image_size=(128, 128), history=3)
    keys = {"observation/image": "image", "observation/state": "state", "prompt": "instruction"}
    with serving(Echo, needs=served) as (port, _):
        url = f"openpi://127.0.0.1:{port}"
        needs = sensors_of(resolve(url), get_world("builtin"), options={"keys": keys, **FAST})
        assert needs == replace(served, state=True) == load_policy(url, keys=keys, **FAST).needs


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"observation/image": "imgae"}, "observation/image: no piece 'imgae' of an observation; did you mean 'image'"),
        ({"s": "state.ee_pos"}, "s: no piece 'state.ee_pos' of an observation"),
        ({"images": {"a": 3}}, "images.a: no piece '3'"),
        ({}, "expected a map"),
        ("image", "expected a map"),
    ],
)
def test_a_wrong_key_map_is_named(keys, message):
    with openpi_server(lambda _: chunk()) as (port, _), pytest.raises(UserError, match=message):
        load_policy(f"openpi://127.0.0.1:{port}", keys=keys, **FAST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_s": "abc"}, "options.start_s: input should be a valid number"),
        ({"timeout_s": -1}, "options.timeout_s: input should be greater than 0, got -1"),
        ({"limit_mib": 0}, "options.limit_mib: input should be greater than 0"),
        ({"execute": "x"}, "options.execute: input should be a valid integer"),
        ({"api_key": [1]}, "options.api_key: input should be a valid string"),
        ({"nothing": 1}, "options.nothing: unknown key 'nothing'"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_sent(options, message):
    with pytest.raises(UserError, match=message):
        sensors_of(resolve("openpi://127.0.0.1:1"), get_world("builtin"), options=options)


SPEC = {"chunk": 1, "execute": None, "low": [-1.0] * 7, "high": [1.0] * 7}


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        (3, "greeting.vgb: is int; expected a map"),
        ({"needs": {}}, "greeting.vgb: action_spec: field required|greeting.vgb.action_spec: field required"),
        ({"needs": 3, "action_spec": SPEC}, "greeting.vgb.needs: input should be a valid dictionary"),
        ({"needs": {"cameras": ["moon"]}, "action_spec": SPEC}, "needs.cameras: unknown camera 'moon'"),
        ({"needs": {"history": 10**9}, "action_spec": SPEC}, "needs.history: input should be less than or equal to 64"),
        ({"needs": {}, "action_spec": {**SPEC, "low": ["a"] * 7}}, "action_spec.low.0: input should be a valid number"),
    ],
)
def test_a_greeting_that_is_not_vgb_serves_is_named(greeting, message):
    served = openpi_server(lambda _: chunk(), greeting={"vgb": greeting})
    with served as (port, _), pytest.raises(UserError, match=message):
        sensors_of(resolve(f"openpi://127.0.0.1:{port}"), get_world("builtin"), options=FAST)


def test_a_greeting_that_json_cannot_hold_does_not_reach_the_log():
    greeting = {"model": "pi0", "loss": float("nan"), "stats": {"mean": np.zeros(7)}, "at": [b"bytes"], "n": [1, 2.5]}
    with openpi_server(lambda _: chunk(), greeting=greeting) as (port, _):
        server = load_policy(f"openpi://127.0.0.1:{port}", **FAST).connection["server"]
    assert server == {"model": "pi0", "n": [1, 2.5]}


def test_a_server_that_misses_a_key_is_shown_with_what_was_sent():
    def answer(message):
        return (
            message["observation/state"]
            if "observation/state" in message
            else "Traceback ...\nKeyError: 'observation/state'"
        )

    with openpi_server(answer) as (port, _), pytest.raises(ServerError) as error:
        load_policy(f"openpi://127.0.0.1:{port}", **FAST)
    assert "KeyError: 'observation/state'" in str(error.value) and "\n" not in str(error.value)
    assert "sent: observation/image (uint8 [224, 224, 3]), prompt (str)" in str(error.value)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("CUDA out of memory", "CUDA out of memory"),
        (pack({"action_chunk": [1]}, "openpi"), "an answer without 'actions'; its keys: action_chunk"),
        (pack({"actions": "up"}, "openpi"), r"actions are <U2 \[\]; expected numbers"),
        (pack({"actions": [[1, 2], [3]]}, "openpi"), "actions of differing lengths"),
        (b"\xc1\xc1", "not msgpack"),
        (None, "the connection ended"),
    ],
)
def test_a_bad_answer_is_named(frame, message):
    with openpi_server(lambda _: frame) as (port, _), pytest.raises(ServerError, match=message):
        load_policy(f"openpi://127.0.0.1:{port}", **FAST)


def acting(answers):
    """A remote policy at a server that gives these frames after the first, fine one."""
    frames = iter([chunk(2), *answers])
    return openpi_server(lambda _: next(frames))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (chunk(3), "expected a chunk of 2, as at first"),
        (chunk(2, width=8), r"act\(\) returned float32 \[1, 2, 8\]; expected float32 \[1, K, 7\]"),
        (chunk(2, value=np.nan), "expected finite values"),
        (chunk(2, value=9.0), r"expected a value in \[-1, 1\] m"),
    ],
)
def test_numbers_out_of_place_are_policy_errors(frame, message):
    from vla_gen_bench.policies.contract import check_actions

    with acting([frame]) as (port, _):
        remote = load_policy(f"openpi://127.0.0.1:{port}", **FAST)
        remote.reset(["put"], [0])
        with pytest.raises(PolicyError, match=message):
            check_actions("policy 'acme'", remote.act(example_observation(1)), 1, remote.action_spec)


def test_the_end_of_a_long_server_error_is_kept():
    traceback = (
        "Traceback (most recent call last):\n" + "  File 'model.py', line 1\n" * 500 + "KeyError: 'observation/state'"
    )
    assert len(end_of_text(traceback)) == len("... ") + 600
    assert end_of_text(traceback).endswith("KeyError: 'observation/state'")
    assert end_of_text("lost \x1b[31m\n my way") == "lost \\x1b[31m my way"
    with acting([traceback]) as (port, _):
        remote = load_policy(f"openpi://127.0.0.1:{port}", **FAST)
        remote.reset(["put"], [0])
        with pytest.raises(ServerError, match="KeyError: 'observation/state'; sent: observation/image"):
            remote.act(example_observation(1))


def test_after_an_error_the_next_episode_finds_a_new_connection():
    with acting(["lost my way", chunk(2)]) as (port, _):
        remote = load_policy(f"openpi://127.0.0.1:{port}", **FAST)
        remote.reset(["put"], [0])
        with pytest.raises(ServerError, match="lost my way"):
            remote.act(example_observation(1))
        remote.reset(["put"], [0])
        assert remote.act(example_observation(1)).shape == (1, 2, 7)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_absent_server_is_one_clear_line(protocol):
    port = free_port()
    with pytest.raises(ServerGone, match=f"^{protocol}://127.0.0.1:{port}: no server there after 0.2 s .*start_s=600"):
        load_policy(f"{protocol}://127.0.0.1:{port}", **FAST)


def test_a_server_that_starts_late_is_waited_for():
    port, stop = free_port(), threading.Event()

    def later():
        time.sleep(0.7)
        with websocket_server(
            lambda c: (c.send(pack({}, "openpi")), [c.send(chunk(1)) for _ in c]), "127.0.0.1", port
        ) as server:
            threading.Thread(target=lambda: (stop.wait(20), server.shutdown()), daemon=True).start()
            server.serve_forever()

    thread = threading.Thread(target=later, daemon=True)
    thread.start()
    assert load_policy(f"openpi://127.0.0.1:{port}", **{**FAST, "start_s": 10}).action_spec.chunk == 1
    stop.set()


def test_a_server_that_hangs_is_one_clear_line():
    with openpi_server(lambda _: time.sleep(3) or chunk()) as (port, _):
        with pytest.raises(ServerGone, match="no answer within 0.3 s; --policy-option timeout_s"):
            load_policy(f"openpi://127.0.0.1:{port}", **{**FAST, "first_timeout_s": 0.3})


def test_the_wrong_protocol_is_named():
    with serving(Echo, "vla-eval") as (port, _):
        with pytest.raises(UserError, match="is this a server of openpi|no answer within"):
            load_policy(f"openpi://127.0.0.1:{port}", **{**FAST, "first_timeout_s": 0.5})
    with serving(Echo, "openpi") as (port, _), pytest.raises(UserError, match="is this a server of vla-eval"):
        load_policy(f"vla-eval://127.0.0.1:{port}", **FAST)
    with serving(Echo, "openpi") as (port, _):
        with pytest.raises(PolicyError, match="HTTP 40[45]"):
            load_policy(f"act://127.0.0.1:{port}", keys={"image": "image"}, **FAST).act(example_observation(1))
    with serving(Echo, "act") as (port, _), pytest.raises(UserError, match="no websocket server of openpi"):
        load_policy(f"openpi://127.0.0.1:{port}", **FAST)


def test_an_oversized_answer_is_refused():
    with openpi_server(
        lambda _: pack({"actions": np.zeros((1, 7)), "extra": np.zeros(300_000, np.uint8)}, "openpi")
    ) as (port, _):
        with pytest.raises(ServerError, match="the connection ended"):
            load_policy(f"openpi://127.0.0.1:{port}", limit_mib=0.25, **FAST)


def rest(answer):
    """OpenVLA's server: `answer(request)` gives the response's JSON text."""
    seen = []

    async def act(request):
        seen.append(loads(await request.read()))
        return web.Response(text=answer(seen[-1]), content_type="application/json")

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/act", act)
    return running(app), seen


def test_openvlas_server_is_asked_as_its_own_client_asks():
    server, seen = rest(lambda request: dumps(np.array([0.01, 0, 0, 0, 0, 0.1, 0.996])))
    with server as port:
        remote = load_policy(f"act://127.0.0.1:{port}", **FAST)
        remote.reset(["put", "put"], [0, 1])
        actions = remote.act(example_observation(2))
        assert actions.shape == (2, 1, 7) and np.allclose(actions[0, 0], [0.01, 0, 0, 0, 0, 0.1, 1])
        assert seen[-1]["image"].shape == (256, 256, 3) and seen[-1]["unnorm_key"] == "bridge_orig"
        assert set(seen[-1]) == {"image", "instruction", "unnorm_key"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"error"', "the server says 'error'"),
        ("<html>", "not JSON"),
        ('{"detail": "missing"}', "an answer without 'actions'; its keys: detail"),
    ],
)
def test_openvlas_servers_failures_are_named(text, message):
    server, _ = rest(lambda request: text)
    with server as port, pytest.raises(ServerError, match=message):
        load_policy(f"act://127.0.0.1:{port}", **FAST)


def test_answers_encoded_twice_are_read():
    for wrap in (lambda text: json.dumps(text), lambda text: json.dumps({"encoded": text})):
        server, _ = rest(lambda request, wrap=wrap: wrap(dumps(np.zeros(7))))
        with server as port:
            assert load_policy(f"act://127.0.0.1:{port}", **FAST).action_spec.chunk == 1


def test_ofts_chunks_are_lists():
    server, _ = rest(lambda request: json.dumps([[0.0] * 7] * 8))
    with server as port:
        assert load_policy(f"act://127.0.0.1:{port}", **FAST).action_spec.chunk == 8


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("openpy://localhost:8000", "unknown protocol 'openpy'; did you mean 'openpi'"),
        ("openpi://localhost:99999", "expected openpi://HOST:PORT"),
        ("openpi://", "expected openpi://HOST:PORT"),
        ("http://localhost:8000", "unknown protocol 'http'"),
    ],
)
def test_a_bad_address_is_named(cli, url, message):
    done = cli("eval", "--policy", url)
    assert done.exit_code == 2 and message in done.stderr


@contextmanager
def served(*arguments):
    """`vgb serve` in a process of its own; yields the port and the process."""
    command = [sys.executable, "-u", "-m", "vla_gen_bench", "serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        lines = []
        while not lines or "serving" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield int(lines[-1].rsplit(":", 1)[1]), process
    finally:
        process.kill()
        process.wait()


RUN = ("--suite", "execution", "--scenario", "ind", "--seeds", 0, "--workers", 2)


def rows(folder):
    lines = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    changing = ("worker", "duration_s", "run")
    return [{name: value for name, value in row.items() if name not in changing} for row in lines]


@pytest.mark.parametrize("protocol", ["openpi", "act"])
def test_served_and_in_process_logs_are_equal_bit_for_bit(cli_process, tmp_path, protocol):
    policy = "openvla-ppo" if protocol == "openpi" else "random"
    with served("--policy", policy, "--protocol", protocol) as (port, _):
        remote = cli_process(
            "eval", "--policy", f"{protocol}://127.0.0.1:{port}", *RUN, "--episodes", 2, "--out", tmp_path / "remote"
        )
    assert remote.exit_code == 0, remote.stderr
    local = cli_process("eval", "--policy", policy, *RUN, "--episodes", 2, "--out", tmp_path / "local")
    assert local.exit_code == 0, local.stderr
    assert rows(tmp_path / "remote") == rows(tmp_path / "local")
    actions = [sorted((tmp_path / name / "actions.jsonl").read_text().splitlines()) for name in ("remote", "local")]
    assert actions[0] == actions[1] and len(actions[0]) == 2
    header = json.loads((tmp_path / "remote/run.json").read_text())
    assert header["connection"]["protocol"] == protocol and header["connection"]["server"]["policy"] == policy
    assert "uint8 [240, 320, 3]" in header["connection"]["sent"].values()


def test_a_server_that_dies_stops_the_run_and_nothing_is_lost(cli_process, tmp_path):
    out = tmp_path / "log"
    with served("--policy", "hold", "--protocol", "openpi") as (port, process):
        policy = ("--policy", f"openpi://127.0.0.1:{port}", "--policy-option", "start_s=0.5")
        command = ("eval", *policy, *RUN[:-1], 1, "--episodes", 40, "--out", out)
        killer = threading.Thread(target=lambda: kill_when(out / "episodes.jsonl", process), daemon=True)
        killer.start()
        done = cli_process(*command)
        killer.join(5)
    assert done.exit_code == 2, done.stderr
    assert f"openpi://127.0.0.1:{port}: no server there" in done.stderr and "Traceback" not in done.stderr
    kept = rows(out)
    assert 1 <= len(kept) < 40 and all(row["status"] == "ok" for row in kept)


def kill_when(file, process):
    while not (file.exists() and file.read_text().count("\n")):
        time.sleep(0.02)
    process.kill()


def test_a_log_is_not_continued_with_another_policy_at_the_same_address():
    from vla_gen_bench.eval.open_log import check_server

    def told(policy):
        return {"connection": {"url": "openpi://localhost:8000", "server": {"policy": policy}}}

    check_server({}, told("a"))
    check_server(told("a"), told("a"))
    with pytest.raises(UserError, match="with the server at openpi://localhost:8000, is of another server: its policy"):
        check_server(told("a"), told("b"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_log_is_not_continued_with_an_edited_policy_at_the_same_address(protocol):
    from vla_gen_bench.eval.open_log import check_server

    def info(digest):
        with serving(Echo, protocol, digest=digest) as (port, _):
            remote = load_policy(f"{protocol}://127.0.0.1:{port}", **FAST)
            remote.close()
        return {"connection": {**remote.connection, "url": f"{protocol}://localhost:8000"}}

    check_server(info("a"), info("a"))
    check_server(info(None), info("a"))  # the log began before servers reported a digest
    with pytest.raises(UserError, match="of another policy: its card, code, checkpoint .*digest a, now b.*--fresh"):
        check_server(info("a"), info("b"))
    with pytest.raises(UserError, match="of another server: its .*vgb differ"):
        check_server(info("a"), info(None))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_does_not_continue_with_a_policy_edited_during_it(protocol):
    with serving(Echo, protocol, digest="a") as (port, server):
        remote = load_policy(f"{protocol}://127.0.0.1:{port}", **FAST)
        remote.reset(["put"], [0])
        server.digest = "b"
        with pytest.raises(ServerGone, match="another policy, or the same one after an edit"):
            remote.reset(["put", "put"], [0, 1])  # the second episode opens another connection
        remote.close()


def test_the_digest_of_a_served_policy_covers_checkpoint_code_and_options(tmp_path, monkeypatch):
    from vla_gen_bench.cli.serve import served_digest

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "servable.py"
    code.write_text("class Mine:\n    def __init__(self, checkpoint, gain=1, api_key=None): pass\n")
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("1 2 3")
    card = resolve("servable:Mine")

    def digest(checkpoint="here/weights", **options):
        return served_digest(card, {"checkpoint": checkpoint, **options})

    before = digest(api_key="mine")
    assert before == digest("there/weights", api_key="another") != digest(gain=2)
    (tmp_path / "here/weights").write_text("1 2 4")
    assert before != digest(api_key="mine")
    (tmp_path / "here/weights").write_text("1 2 3")
    code.write_text(code.read_text() + "# edited\n")
    assert before != digest(api_key="mine")
