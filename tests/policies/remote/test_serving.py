"""`vgb serve`: the protocols as others' clients speak them, batching, sessions, limits, and what it never tells."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from served import Counts, Echo, serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.converters import Adapted, parse_adapter
from vla_gen_bench.policies.registry import load_policy
from vla_gen_bench.policies.remote.wire import dumps, loads, pack, unpack
from vla_gen_bench.policies.serving import engine
from vla_gen_bench.protocol import Needs

IMAGE = np.full((4, 6, 3), 50, np.uint8)


def dial(port: int):
    return connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, proxy=None)


def post(port: int, message, path: str = "/act"):
    body = message if isinstance(message, bytes) else dumps(message).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, loads(error.read())


def get(port: int, path: str) -> bytes:
    return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10).read()


def test_a_foreign_openpi_client_is_answered_in_bridges_convention():
    with serving(Echo) as (port, _), dial(port) as socket:
        assert unpack(socket.recv())["policy"] == "acme"  # the server speaks first
        for step in range(2):
            socket.send(pack({"observation/image": IMAGE, "prompt": "put"}, "openpi"))
            answer = unpack(socket.recv())
            assert answer["actions"].shape == (2, 7) and answer["actions"].dtype == np.float32
            assert np.allclose(answer["actions"][0], [0.001, step / 1000, 0.05, 0, 0, 0, 0])  # closed is 0, not -1
            assert answer["server_timing"]["infer_ms"] > 0


def test_another_instruction_is_another_episode():
    with serving(Counts) as (port, _), dial(port) as socket:
        socket.recv()
        counts = []
        for prompt in ("put a", "put a", "put b"):
            socket.send(pack({"image": IMAGE, "prompt": prompt}, "openpi"))
            counts.append(round(1000 * float(unpack(socket.recv())["actions"][0, 1])))
        assert counts == [1, 2, 1]


def message(kind, payload, seq):
    return pack({"type": kind, "payload": payload, "seq": seq, "timestamp": 0.0}, "vla-eval", "png")


def test_a_foreign_client_needs_an_instruction_which_may_be_empty():
    with serving(Counts) as (port, _), dial(port) as socket:
        socket.recv()
        counts = []
        for prompt in ({"prompt": ""}, {"prompt": ""}, {}, {"prompt": "put"}):
            socket.send(pack({"image": IMAGE, **prompt}, "openpi"))
            counts.append(round(1000 * float(unpack(socket.recv())["actions"][0, 1])))
        assert counts == [1, 2, 3, 1]
    with serving(Counts) as (port, _), dial(port) as socket:
        socket.recv()
        socket.send(pack({"image": IMAGE}, "openpi"))
        assert "no instruction" in socket.recv()
    with serving(lambda: Counts(chunk=1), "vla-eval") as (port, _), dial(port) as socket:
        counts = []
        for seq, (name, text) in enumerate(
            [({"name": "put"}, {"task_description": ""}), ({}, {"prompt": ""}), ({}, {})]
        ):
            socket.send(message("episode_start", {"task": name}, 10 * seq))
            for _ in range(2):
                socket.send(message("observation", {"images": {"primary": IMAGE}, **text}, 10 * seq + 1))
                payload = unpack(socket.recv())["payload"]
                counts.append(payload.get("error") or round(1000 * float(payload["actions"][1])))
        assert counts[:4] == [1, 2, 1, 2] and "no instruction" in counts[4] and counts[4] == counts[5]


def test_a_foreign_vla_eval_client_gets_one_action_per_observation():
    policy = Echo(chunk=3, execute=2)
    with serving(lambda: policy, "vla-eval") as (port, _), dial(port) as socket:
        socket.send(message("hello", {"harness_version": "0.8.0", "protocol_version": 1}, 1))
        hello = unpack(socket.recv())
        assert hello["type"] == "hello" and hello["seq"] == 1 and hello["payload"]["protocol_version"] == 1
        assert hello["payload"]["action_spec"]["gripper"]["format"] == "continuous_01"
        socket.send(message("episode_start", {"task": {"name": "put", "suite": "s"}}, 2))
        for seq in range(3, 7):
            observation = {"images": {"agentview": IMAGE}, "task_description": "put"}
            socket.send(message("observation", observation, seq))
            answer = unpack(socket.recv())
            assert (answer["type"], answer["seq"]) == ("action", seq)
            assert answer["payload"]["actions"].shape == (7,) and answer["payload"]["actions"][6] == 0
        assert policy.batches == [1, 1]  # two of three actions of each chunk are carried out
        socket.send(message("episode_end", {"metrics": {}}, 7))
        socket.send(message("observation", {"task_description": "put"}, 8))
        answer = unpack(socket.recv())
        assert answer["type"] == "error" and "no image 'observation/image'" in answer["payload"]["error"]
        socket.send(message("observation", {"images": {"primary": IMAGE}, "task_description": "put"}, 9))
        assert unpack(socket.recv())["type"] == "action"  # the conversation stays open


def test_rest_answers_openvlas_request_also_when_encoded_twice():
    with serving(lambda: Echo(chunk=1), "act") as (port, _):
        request = {"image": IMAGE, "instruction": "put", "unnorm_key": "bridge_orig"}
        status, answer = post(port, request)
        assert status == 200 and answer.shape == (7,) and np.allclose(answer[2], 0.05)
        status, answer = post(port, {"encoded": dumps(request)})
        assert status == 200 and loads(answer["encoded"]).shape == (7,)


def test_rest_answers_ofts_dictionary_with_a_chunk():
    with serving(Echo, "act") as (port, _):
        status, answer = post(port, {"full_image": IMAGE, "instruction": "put"})
        assert status == 200 and answer.shape == (2, 7)


def test_health_tells_while_the_policy_computes():
    class Slow(Echo):
        def act(self, observation):
            time.sleep(1.0)
            return super().act(observation)

    with serving(Slow, "act") as (port, _):
        thread = threading.Thread(target=post, args=(port, {"image": IMAGE, "instruction": "put"}))
        thread.start()
        begin = time.monotonic()
        health = json.loads(get(port, "/health"))
        assert health["status"] == "ok" and health["policy"] == "acme" and get(port, "/healthz") == b"OK\n"
        assert time.monotonic() - begin < 0.9 or thread.is_alive()
        thread.join()


def test_requests_of_several_connections_are_batched_and_answered_each_its_own():
    policy = Echo()
    with serving(lambda: policy, wait_s=0.3) as (port, _), ThreadPoolExecutor(4) as pool:

        def ask(number: int) -> float:
            with dial(port) as socket:
                socket.recv()
                image = np.full((4, 6, 3), 10 * number, np.uint8)
                socket.send(pack({"image": image, "prompt": f"put {number}"}, "openpi"))
                return float(unpack(socket.recv())["actions"][0, 2])

        assert np.allclose(list(pool.map(ask, range(4))), [0, 0.01, 0.02, 0.03])
    assert sum(policy.batches) == 4 and max(policy.batches) > 1


def test_images_of_different_sizes_do_not_share_a_batch():
    policy = Echo()
    with serving(lambda: policy, wait_s=0.3) as (port, _), ThreadPoolExecutor(2) as pool:

        def ask(size: int) -> tuple:
            with dial(port) as socket:
                socket.recv()
                socket.send(pack({"image": np.zeros((size, size, 3), np.uint8), "prompt": "put"}, "openpi"))
                return unpack(socket.recv())["actions"].shape

        assert list(pool.map(ask, [4, 8])) == [(2, 7)] * 2
    assert policy.batches == [1, 1]


def test_policies_that_keep_episodes_inside_get_an_instance_per_session():
    built = []

    def make():
        built.append(Counts())
        return built[-1]

    with serving(make, instances=2) as (port, _):
        sockets = [dial(port).__enter__() for _ in range(3)]
        for socket in sockets:
            socket.recv()
        for round_ in (1, 2):
            for socket in sockets[:2]:
                socket.send(pack({"image": IMAGE, "prompt": "put"}, "openpi"))
                assert np.allclose(unpack(socket.recv())["actions"][0, 1], round_ / 1000)
        sockets[2].send(pack({"image": IMAGE, "prompt": "put"}, "openpi"))
        refusal = sockets[2].recv()
        assert isinstance(refusal, str) and "all 2 instances are in use" in refusal and "--instances" in refusal
        sockets[0].close()  # its instance is free again
        time.sleep(0.2)
        with dial(port) as socket:
            socket.recv()
            socket.send(pack({"image": IMAGE, "prompt": "put"}, "openpi"))
            assert np.allclose(unpack(socket.recv())["actions"][0, 1], 1 / 1000)
    assert len(built) == 2


def test_converters_that_keep_state_get_an_instance_per_session():
    """A command of one conversation must not be held in another; see `Converter.stateful`."""

    class Closes(Echo):
        """Closes the gripper at odd seeds, opens it at even ones, and then leaves it as it is."""

        def act(self, observation):
            actions = super().act(observation)
            first = 1.0 - np.array(self.seeds) % 2
            actions[:, :, 6] = np.where(observation.step == 0, first, 0.5)[:, None]
            return actions

    def make():
        return Adapted(Closes(), parse_adapter([{"gripper": {"relative": True}}], "adapter"))

    with serving(make) as (port, _), dial(port) as one, dial(port) as two:
        commands = []
        for step in range(3):
            for seed, socket in enumerate((one, two)):
                if step == 0:
                    socket.recv()
                own = {"episode": 1, "seed": seed, "step": step}
                socket.send(pack({"image": IMAGE, "prompt": "put", "vgb": own}, "openpi"))
                commands.append(float(unpack(socket.recv())["actions"][0, 6]))
        assert commands == [1, -1] * 3


def own_request(episode: int, step: int, **more):
    return {"image": IMAGE, "instruction": "put", "vgb": {"episode": episode, "seed": 0, "step": step, **more}}


def test_rest_episodes_that_ended_leave_their_instance_to_others():
    with serving(Counts, "act", instances=2) as (port, server):
        remote = load_policy(f"act://127.0.0.1:{port}", start_s=5, timeout_s=10)
        for _ in range(5):  # one after another: each is announced as ended
            remote.reset(["put", "put"], [0, 1])
            for step in (0, 1):
                calls = remote.act(replace(example_observation(2), step=np.full(2, step), instruction=("put", "put")))
                assert np.allclose(calls[:, 0, 1], (step + 1) / 1000)
        remote.close()
        assert post(port, own_request(1, 0))[0] == 200  # the closed client's last episodes have ended too
        assert server.engine._made == 2 and len(server._loose) == 1


def test_rest_episodes_of_clients_that_are_gone_leave_their_instance_to_others(monkeypatch):
    with serving(Counts, "act", instances=2) as (port, _):
        for episode in (1, 2):
            assert post(port, own_request(episode, 0))[0] == 200
        status, answer = post(port, own_request(3, 0))
        assert status == 400 and "all 2 instances are in use" in answer["error"]  # they may only be slow
        monkeypatch.setattr(engine, "IDLE_S", 0.0)
        assert post(port, own_request(3, 0))[0] == 200
        monkeypatch.setattr(engine, "IDLE_S", 60.0)
        status, answer = post(port, own_request(1, 1))
        assert status == 400 and "went to another; start 'vgb serve' with more --instances" in answer["error"]
        status, answer = post(port, own_request(2, 1))
        assert status == 200 and np.allclose(answer[0, 1], 2 / 1000)  # the other one has lost nothing


def test_a_connection_never_loses_its_instance(monkeypatch):
    monkeypatch.setattr(engine, "IDLE_S", 0.0)
    with serving(Counts, instances=1) as (port, _), dial(port) as one, dial(port) as two:
        for socket in (one, two):
            socket.recv()
            socket.send(pack({"image": IMAGE, "prompt": "put"}, "openpi"))
        answers = [one.recv(), two.recv()]
        assert sum(isinstance(answer, str) and "all 1 instances are in use" in answer for answer in answers) == 1


def test_rest_never_drops_an_episode_silently(monkeypatch):
    with serving(Counts, "act", connections=2) as (port, _):
        for episode in (1, 2):
            assert post(port, own_request(episode, 0))[0] == 200
        status, answer = post(port, own_request(3, 0))
        assert status == 400 and "all 2 connections are in use" in answer["error"]
        monkeypatch.setattr(engine, "IDLE_S", 0.0)
        assert post(port, own_request(3, 0))[0] == 200
        status, answer = post(port, own_request(1, 1))
        assert status == 400 and "does not hold the episode any more" in answer["error"]
    with serving(Echo, "act", connections=2) as (port, _):  # nothing of a memoryless policy can be lost
        assert [post(port, own_request(episode, step))[0] for step in (0, 1) for episode in (1, 2, 3)] == [200] * 6


class Secret(Echo):
    def act(self, observation):
        raise RuntimeError("/home/me/secret.py said no")


class Wrong(Echo):
    def act(self, observation):
        return np.full((len(observation), 2, 7), np.nan, np.float32)


def test_a_failure_leaks_neither_traceback_nor_message(caplog):
    with serving(Secret) as (port, _), dial(port) as socket:
        socket.recv()
        socket.send(pack({"image": IMAGE, "prompt": "put"}, "openpi"))
        text = socket.recv()
        assert text == "the policy raised RuntimeError; the server's own output tells more"
        with pytest.raises(ConnectionClosed):
            socket.recv()
        assert socket.close_code == 1011
    assert "secret.py said no" in caplog.text and "Traceback" in caplog.text  # the server's own output has it
    with serving(Secret, "act") as (port, _):
        status, answer = post(port, {"image": IMAGE, "instruction": "put"})
        assert status == 500 and "secret" not in str(answer)


def test_a_request_that_a_policy_refuses_fails_alone_in_its_batch():
    """The others are computed again; the refused one gets the policy's own reason."""

    class Picky(Echo):
        def reset(self, instructions, seeds):
            super().reset(instructions, seeds)
            if "too long" in instructions:
                raise UserError("instruction: at most 3 words")

        def act(self, observation):
            self.batches.append(0)
            if "crash" in self.instructions:
                raise RuntimeError("/home/me")
            actions = super().act(observation)
            actions[[text == "bad numbers" for text in self.instructions]] = np.nan
            return actions

    policy = Picky()
    with serving(lambda: policy, wait_s=0.3) as (port, _), ThreadPoolExecutor(6) as pool:

        def ask(prompt: str, number: int):
            with dial(port) as socket:
                socket.recv()
                own = {"episode": 1, "seed": number, "step": 0}
                socket.send(pack({"image": IMAGE, "prompt": prompt, "vgb": own}, "openpi"))
                answer = socket.recv()
                return answer if isinstance(answer, str) else round(1000 * float(unpack(answer)["actions"][0, 0]))

        prompts = ["put", "too long", "put", "crash", "bad numbers", "lift"]
        answers = list(pool.map(ask, prompts, range(6)))
    assert [answers[place] for place in (0, 2, 5)] == [0, 2, 5]
    assert answers[1] == "instruction: at most 3 words"
    assert answers[3] == "the policy raised RuntimeError; the server's own output tells more"
    assert "expected finite values" in answers[4]


def test_a_policy_is_reset_after_an_error():
    """Its reset may have failed halfway, so the episodes of the last good call are gone from it too."""

    class Halfway(Echo):
        def reset(self, instructions, seeds):
            super().reset(instructions, seeds)
            if "bad" in instructions:
                raise UserError("no")

    with serving(Halfway, "act") as (port, _):
        request = {"image": IMAGE, "vgb": {"episode": 1, "seed": 7, "step": 0}}
        statuses = [post(port, {**request, "instruction": text})[0] for text in ("put", "bad", "put")]
        assert statuses == [200, 500, 200]


def test_a_policys_bad_actions_are_named_to_the_client():
    with serving(Wrong, "act") as (port, _):
        status, answer = post(port, {"image": IMAGE, "instruction": "put"})
        assert status == 500 and "expected finite values" in answer["error"]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            {"instruction": "put", "img": IMAGE},
            "no image 'observation/image', which this policy needs; keys sent: instr",
        ),
        ({"image": IMAGE}, "no instruction"),
        (
            {"image": IMAGE.astype(np.float32), "instruction": "put"},
            r"image: float32 [4, 6, 3]; expected uint8 [H, W, 3]",
        ),
        ({"image": IMAGE[0], "instruction": "put"}, "expected uint8 [H, W, 3]"),
        ({"image": IMAGE, "instruction": 7}, "instruction: expected text"),
        ({"image": IMAGE, "instruction": "put", "vgb": 3}, "vgb: is a int; expected a map"),
        ({"image": IMAGE, "instruction": "put", "vgb": {"seed": -1, "episode": 1}}, "seed: is -1"),
        (
            {"image": IMAGE, "instruction": "put", "vgb": {"step": 10**30}},
            "vgb.step: is 1000000000000000000000000000000",
        ),
        ({"image": IMAGE, "instruction": "put", "vgb": {"step": "x"}}, "vgb.step: is 'x'; expected an integer"),
        ({"image": IMAGE, "instruction": "put", "vgb": {"episode": [1]}}, "vgb.episode: is a list"),
        ([1, 2], "expected a map of keys"),
        (b"{", "not JSON"),
    ],
)
def test_a_bad_request_names_what_was_expected(message, text):
    with serving(Echo, "act") as (port, _):
        status, answer = post(port, message)
        assert status == 400 and text in answer["error"]


def test_a_history_of_another_size_than_the_image_is_refused_alone():
    """In a shared batch it would fail the requests of others."""
    with serving(Echo, "act", Needs(history=2)) as (port, _):
        request = {"image": IMAGE, "instruction": "put", "history/external": np.zeros((2, 9, 9, 3), np.uint8)}
        status, answer = post(port, request)
        assert (
            status == 400
            and "history/external: frames of shape [9, 9, 3]; expected that of the image" in answer["error"]
        )


def test_a_state_of_another_size_is_named():
    with serving(Echo, "act", Needs(state=True)) as (port, _):
        request = {"image": IMAGE, "instruction": "put"}
        assert "no 'observation/state'" in post(port, request)[1]["error"]
        assert (
            "state: float32 [7]; expected 17" in post(port, {**request, "state": np.zeros(7, np.float32)})[1]["error"]
        )


def test_an_oversized_message_ends_the_conversation_only():
    with serving(Echo, limit=10_000) as (port, _):
        with dial(port) as socket:
            socket.recv()
            socket.send(b"x" * 20_000)
            with pytest.raises(ConnectionClosed):
                socket.recv()
            assert socket.close_code == 1009
        with dial(port) as socket:
            assert unpack(socket.recv())["policy"] == "acme"
    with serving(Echo, "act", limit=10_000) as (port, _):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/act", b"x" * 20_000)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 413


def test_no_more_connections_than_allowed():
    from websockets.exceptions import InvalidStatus

    with serving(Echo, connections=1) as (port, _), dial(port) as socket:
        socket.recv()
        with pytest.raises(InvalidStatus, match="503"):
            dial(port)


def test_a_history_is_kept_for_clients_that_do_not_send_it():
    seen = []

    class Looks(Echo):
        def act(self, observation):
            seen.append(observation.history["external"][0, :, 0, 0, 0].tolist())
            return super().act(observation)

    with serving(Looks, needs=Needs(history=3)) as (port, _), dial(port) as socket:
        socket.recv()
        for value in (1, 2, 3):
            socket.send(pack({"image": np.full((4, 6, 3), value, np.uint8), "prompt": "put"}, "openpi"))
            socket.recv()
    assert seen == [[1, 1, 1], [1, 1, 2], [1, 2, 3]]


def test_serve_refuses_what_it_cannot_serve(cli):
    done = cli("serve", "--policy", "expert")
    assert done.exit_code == 2 and "reads the simulator's state" in done.stderr
    done = cli("serve", "--policy", "hold", "--host", "203.0.113.7")
    assert done.exit_code == 2 and "cannot listen there" in done.stderr
    assert "no password and no encryption" in done.stderr
