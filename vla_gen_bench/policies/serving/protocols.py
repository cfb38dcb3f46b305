"""The three protocols as aiohttp handlers; `policies.remote.links` is the other end of each."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web

from vla_gen_bench import __version__
from vla_gen_bench.policies.remote import wire
from vla_gen_bench.policies.remote.links import DIGEST, VGB
from vla_gen_bench.policies.serving.engine import Engine, Session, failure_text
from vla_gen_bench.policies.serving.requests import (
    LARGEST_NUMBER,
    BadRequest,
    Request,
    bridge_convention,
    parse_request,
)

log = logging.getLogger("vgb serve")
PROTOCOL_VERSION = 1
INTERNAL_ERROR = 1011
NO_INSTRUCTION = "no instruction (prompt, instruction, task_description)"
EXPECTED = (BadRequest, wire.WireError)


class Server:
    """Answers one protocol's requests with an engine.

    Args:
        name: Name of the policy, reported to clients.
        limit: Largest message, bytes.
        connections: Largest number of simultaneous conversations.
        digest: Identifies card, code, checkpoint and options of the policy; reported to this project's clients, whose
            logs record it.
    """

    def __init__(
        self,
        engine: Engine,
        name: str,
        limit: int = 16 * wire.MEBIBYTE,
        connections: int = 256,
        digest: str | None = None,
    ) -> None:
        self.engine, self.name, self.limit, self.connections = engine, name, limit, connections
        self.digest = digest
        self._open = 0
        self._loose: dict[str, Session] = {}  # REST: episode -> session, the oldest first

    @property
    def own(self) -> dict[str, Any]:
        """The data sent to this project's clients."""
        spec, needs = self.engine.spec.to_json(), self.engine.needs.to_json()
        digest = {} if self.digest is None else {DIGEST: self.digest}
        return {"version": __version__, "policy": self.name, "action_spec": spec, "needs": needs, **digest}

    async def health(self, request: web.Request) -> web.Response:
        """`GET /health` and `/healthz`: answers even while the policy computes."""
        state = {"status": "ok", "policy": self.name, "connections": self._open, "served": self.engine.served}
        return web.json_response({**state, VGB: self.own})

    async def healthz(self, request: web.Request) -> web.Response:
        """The same under openpi's path."""
        return web.Response(text="OK\n")

    # ---- websockets ------------------------------------------------------------------------------------------

    async def openpi(self, request: web.Request) -> web.StreamResponse:
        """Greets with metadata, then sends one answer per observation; an error is a text frame that ends it."""

        async def talk(socket: web.WebSocketResponse, session: Session) -> None:
            await socket.send_bytes(wire.pack({"policy": self.name, VGB: self.own}, "openpi"))
            async for data in _messages(socket, self.limit):
                begin = time.perf_counter()
                try:
                    message = wire.unpack(data, self.limit)
                    actions = await self._answer(session, message)
                except Exception as error:
                    self._tell(error)
                    await socket.send_str(failure_text(error))
                    await socket.close(code=INTERNAL_ERROR, message=b"error in inference")
                    return
                timing = {"infer_ms": 1000 * (time.perf_counter() - begin)}
                await socket.send_bytes(wire.pack({"actions": actions, "server_timing": timing}, "openpi"))

        return await self._converse(request, talk)

    async def vla_eval(self, request: web.Request) -> web.StreamResponse:
        """Hello, then episodes; an error is sent as a message and the conversation stays open."""
        return await self._converse(request, _VlaEval(self).talk)

    async def _converse(
        self, request: web.Request, talk: Callable[[web.WebSocketResponse, Session], Awaitable[None]]
    ) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=self.limit, compress=False, heartbeat=None)
        if not socket.can_prepare(request).ok:
            return web.Response(status=426, text="this is a websocket server\n")
        if self._open >= self.connections:
            return web.Response(status=503, text=f"all {self.connections} connections are in use\n")
        self._open += 1
        session = self.engine.open()
        try:
            await socket.prepare(request)
            await talk(socket, session)
        except ConnectionError:
            pass  # the client is gone
        finally:
            self._open -= 1
            self.engine.close(session)
        return socket

    async def _answer(self, session: Session, message: Any) -> np.ndarray:
        """Returns the actions for a client's message, in the client's convention: [K, 7]."""
        request = parse_request(message, self.engine.needs)
        self._follow(session, request)
        actions = await self.engine.act(session, request)
        return actions if request.own is not None else bridge_convention(actions)

    def _follow(self, session: Session, request: Request) -> None:
        """Starts an episode if the client reports one, or if the instruction changes."""
        own = request.own or {}
        instruction = request.instruction if request.instruction is not None else session.instruction
        if instruction is None:
            raise BadRequest(NO_INSTRUCTION)
        if own.get("episode", session.episode) != session.episode or instruction != session.instruction:
            self.engine.begin(session, instruction, _seed(own.get("seed", session.number)), own.get("episode"))
        if "step" in own:
            session.step = int(own["step"])

    def _tell(self, error: Exception) -> None:
        """Writes the full unexpected error to the server's output, never to a client."""
        log.error("%s", failure_text(error), exc_info=None if isinstance(error, EXPECTED) else error)

    # ---- REST ------------------------------------------------------------------------------------------------

    async def act(self, request: web.Request) -> web.Response:
        """`POST /act`: OpenVLA's request or OFT's dictionary; an array [7] for chunks of one, else [K, 7]."""
        try:
            message = wire.loads(await request.read(), self.limit)
            twice = isinstance(message, dict) and isinstance(message.get("encoded"), str)
            message = wire.loads(message["encoded"], self.limit) if twice else message
            if self._ended(message):
                return web.json_response({})
            actions = await self._answer(self._loose_session(message, request), message)
        except Exception as error:
            if isinstance(error, web.HTTPException):
                raise
            self._tell(error)
            return web.json_response({"error": failure_text(error)}, status=400 if isinstance(error, EXPECTED) else 500)
        text = wire.dumps(actions[0] if len(actions) == 1 else actions)
        return web.Response(text=wire.dumps({"encoded": text}) if twice else text, content_type="application/json")

    def _loose_session(self, message: Any, request: web.Request) -> Session:
        """Returns a session per episode of our clients, or per address of others, since REST has no conversations.

        Raises:
            BadRequest: There are too many, or the policy keeps its episodes inside and this one is not held any more.
        """
        own = _own(message)
        key = f"from {request.remote}" if own is None else _key(own)
        session = self._loose.pop(key, None)
        if session is None:
            if not self.engine.memoryless and own is not None and _under_way(own):
                raise BadRequest("this server does not hold the episode any more; it was idle for too long")
            self._make_room()
            session = self.engine.open(loose=True)
        self._loose[key] = session
        return session

    def _make_room(self) -> None:
        """Drops sessions until there is room for another, the oldest first; raises `BadRequest` if all are in use."""
        while len(self._loose) >= self.connections:
            key = next((key for key, session in self._loose.items() if session.abandoned or session.idle), None)
            if key is None:
                raise BadRequest(f"all {self.connections} connections are in use")
            self.engine.close(self._loose.pop(key))

    def _ended(self, message: Any) -> bool:
        """Whether one of our clients announces the end of its episode, which is then released."""
        own = _own(message)
        if own is None or own.get("ended") is not True:
            return False
        session = self._loose.pop(_key(own), None)
        if session is not None:
            self.engine.close(session)
        return True


class _VlaEval:
    """One conversation in vla-eval's protocol.

    Other clients get one action per observation: the server steps through the chunk, as vla-eval's servers do.
    """

    def __init__(self, server: Server) -> None:
        self._server, self._engine = server, server.engine
        self._chunk: list[np.ndarray] = []

    async def talk(self, socket: web.WebSocketResponse, session: Session) -> None:
        async for data in _messages(socket, self._server.limit):
            sequence = 0
            try:
                message = wire.unpack(data, self._server.limit)
                sequence = message.get("seq", 0) if isinstance(message, dict) else 0
                answer = await self._answer(session, message)
            except Exception as error:
                self._server._tell(error)
                answer = "error", {"error": f"observation_failed: {failure_text(error)}"}
            if answer is not None:
                kind, payload = answer
                envelope = {"type": kind, "payload": payload, "seq": sequence, "timestamp": time.time()}
                await socket.send_bytes(wire.pack(envelope, "vla-eval"))

    async def _answer(self, session: Session, message: Any) -> tuple[str, dict[str, Any]] | None:
        missing = [name for name in ("type", "payload", "seq") if not isinstance(message, dict) or name not in message]
        if missing or not isinstance(message["payload"], dict):
            raise BadRequest(f"a message without {', '.join(missing) or 'a map as payload'}")
        kind, payload = message["type"], message["payload"]
        if kind == "hello":
            return "hello", self._hello()
        if kind == "episode_start":
            task = payload.get("task") if isinstance(payload.get("task"), dict) else {}
            self._chunk = []
            name = None if task.get("name") is None else str(task["name"])
            self._engine.begin(session, name, _seed(task.get("seed", session.number)), message["seq"])
        elif kind == "observation":
            return "action", {"actions": await self._act(session, payload)}
        elif kind not in ("episode_end", "error"):
            raise BadRequest(f"unknown message type '{kind}'")
        return None

    async def _act(self, session: Session, payload: dict[str, Any]) -> np.ndarray:
        if VGB in payload:
            payload = {**payload, VGB: {**payload[VGB], "episode": session.episode, "seed": session.seed}}
            return await self._server._answer(session, payload)
        if not self._chunk:
            request = parse_request(payload, self._engine.needs)
            named = session.instruction  # by the task; an empty text in an observation does not take it away
            instruction = request.instruction if named is None else request.instruction or named
            if instruction is None:
                raise BadRequest(NO_INSTRUCTION)
            if instruction != named:
                self._engine.begin(session, instruction, session.seed, session.episode)
            actions = bridge_convention(await self._engine.act(session, request))
            self._chunk = list(actions[: self._engine.spec.execution_horizon])
        return self._chunk.pop(0).astype(np.float32)

    def _hello(self) -> dict[str, Any]:
        spec = {
            "position": {"name": "position", "dims": 3, "format": "delta_xyz"},
            "rotation": {"name": "rotation", "dims": 3, "format": "euler_xyz"},
            "gripper": {"name": "gripper", "dims": 1, "format": "continuous_01", "range": [0, 1]},
        }
        needs = self._engine.needs
        wanted = {"send_wrist_image": "wrist" in needs.cameras, "send_state": needs.state}
        return {
            "harness_version": __version__,
            "protocol_version": PROTOCOL_VERSION,
            "model_server": f"vgb:{self._server.name}",
            "capabilities": {VGB: self._server.own},
            "action_spec": spec,
            "observation_params": {name: True for name, value in wanted.items() if value},
        }


def _own(message: Any) -> dict[str, Any] | None:
    """Returns the data that only this project's clients send; None for others."""
    own = message.get(VGB) if isinstance(message, dict) else None
    return own if isinstance(own, dict) else None


def _key(own: dict[str, Any]) -> str:
    return str(own.get("episode"))


def _under_way(own: dict[str, Any]) -> bool:
    """Whether the request is not an episode's first."""
    return type(own.get("step")) is int and own["step"] > 0


async def _messages(socket: web.WebSocketResponse, limit: int):
    """Yields the binary messages of a client until it leaves; an oversized one ends the conversation (code 1009)."""
    async for message in socket:
        if message.type == WSMsgType.BINARY:
            yield message.data
        elif message.type == WSMsgType.TEXT:
            yield message.data.encode()
        elif message.type == WSMsgType.ERROR:
            return


def _seed(value: Any) -> int:
    if type(value) is not int or not 0 <= value < LARGEST_NUMBER:
        raise BadRequest(f"seed: is {value!r}; expected an integer >= 0")
    return value


def application(server: Server, protocol: str) -> web.Application:
    """Returns the web application of one protocol, with its health endpoints."""
    app = web.Application(client_max_size=server.limit)
    app.router.add_get("/health", server.health)
    app.router.add_get("/healthz", server.healthz)
    if protocol == "act":
        app.router.add_post("/act", server.act)
    else:
        app.router.add_get("/", server.openpi if protocol == "openpi" else server.vla_eval)

    async def engine(app: web.Application):
        import asyncio

        task = asyncio.create_task(server.engine.run())
        yield
        task.cancel()

    app.cleanup_ctx.append(engine)
    return app
