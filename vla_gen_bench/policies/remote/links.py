"""Connections to a server, one per running episode. A link handles a protocol's messages, not policies."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from vla_gen_bench.errors import UserError, one_line, printable
from vla_gen_bench.policies.contract import PolicyError
from vla_gen_bench.policies.remote import wire

VGB = "vgb"  # key of the data that only this project's servers and clients exchange
DIGEST = "digest"  # key in there: identifies the served policy's card, code, checkpoint and options
LONGEST_END = 600  # characters of a server's own error text
END_TIMEOUT_S = 2.0  # how long `vgb serve` may take to note an episode's end
T = TypeVar("T")


class ServerError(PolicyError):
    """The server reported an error or sent an invalid answer. This errors the episode."""

    says_all = True


class ServerGone(UserError):
    """No server exists or answers. This stops the run; finished episodes are kept."""

    says_all = stops_run = True


@dataclass(frozen=True)
class Address:
    """Where a server is and how long to wait for it.

    Attributes:
        protocol: "openpi", "vla-eval" or "act".
        host, port: Of the server.
        start_s: How long to wait for a server that has not started yet.
        timeout_s: Longest time between a request and its answer.
        first_timeout_s: The same for the first request, during which models are often compiled.
        limit: Largest message in either direction, bytes.
        images: Encoding of vla-eval's images.
        api_key: openpi's optional key.
    """

    protocol: str
    host: str
    port: int
    start_s: float = 60.0
    timeout_s: float = 30.0
    first_timeout_s: float = 300.0
    limit: int = 64 * wire.MEBIBYTE
    images: wire.ImageCodec = "png"
    api_key: str | None = None

    @property
    def url(self) -> str:
        """As `--policy` takes it."""
        return f"{self.protocol}://{self.host}:{self.port}"


class Link(Protocol):
    """One conversation with a server.

    Attributes:
        greeting: The server's description of itself; has the key "vgb" if it is `vgb serve`.
    """

    greeting: dict[str, Any]

    def begin(self, instruction: str, seed: int) -> None:
        """Announces a new episode if the protocol supports it."""

    def send(self, message: dict[str, Any], step: int) -> None:
        """Sends an observation."""

    def receive(self, timeout_s: float) -> np.ndarray:
        """Returns the actions, [n] or [K, n]; raises `ServerError` or `ServerGone`."""

    def close(self) -> None: ...


def patiently(address: Address, call: Callable[[], T]) -> T:
    """Repeats `call` until a server answers, for at most `start_s`."""
    deadline = time.monotonic() + address.start_s
    while True:
        try:
            return call()
        except (OSError, TimeoutError) as error:
            if time.monotonic() > deadline:
                why = one_line(str(error)) or type(error).__name__
                raise ServerGone(
                    f"{address.url}: no server there after {address.start_s:g} s ({why}); start it, or wait with "
                    "--policy-option start_s=600"
                ) from None
        time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))


def connect(address: Address) -> Link:
    """Opens a link; raises `ServerGone`, or `UserError` for a server of another protocol."""
    wire.need_packages()
    return {"openpi": OpenpiLink, "vla-eval": VlaEvalLink, "act": ActLink}[address.protocol](address)


class _WebSocketLink:
    """The common part of openpi and vla-eval: one websocket, msgpack, no compression."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._episode: dict[str, Any] = {}
        self._socket: Any = None
        self.greeting: dict[str, Any] = {}

    def _open(self) -> None:
        from websockets.exceptions import InvalidHandshake, InvalidURI
        from websockets.sync.client import connect as dial

        headers = {"Authorization": f"Api-Key {self.address.api_key}"} if self.address.api_key else None
        url = f"ws://{self.address.host}:{self.address.port}"

        def call() -> Any:
            opening = dial(
                url, compression=None, max_size=self.address.limit, additional_headers=headers, open_timeout=10,
                ping_interval=None, proxy=None,
            )  # fmt: skip
            return opening.__enter__()  # works in every version: 17 deprecates direct use of the result of `connect`

        try:
            self._socket = patiently(self.address, call)
        except (InvalidHandshake, InvalidURI) as error:
            raise UserError(
                f"{self.address.url}: no websocket server of {self.address.protocol} there ({one_line(str(error))})"
            ) from None

    def _transmit(self, message: Any, images: wire.ImageCodec = "raw") -> None:
        data = wire.pack(message, self.address.protocol, images)
        if len(data) > self.address.limit:
            raise ServerError(f"{self.address.url}: a message of {len(data) / wire.MEBIBYTE:.1f} MiB is over the limit")
        self._guarded(lambda: self._socket.send(data))

    def _take(self, timeout_s: float) -> Any:
        """Returns the next message; a text frame is the server's error."""
        frame = self._guarded(lambda: self._socket.recv(timeout_s), timeout_s)
        if isinstance(frame, str):
            raise ServerError(f"{self.address.url}: {end_of_text(frame)}")
        try:
            return wire.unpack(frame, self.address.limit)
        except wire.WireError as error:
            raise ServerError(f"{self.address.url}: {error}; is this a server of {self.address.protocol}?") from None

    def _guarded(self, call: Callable[[], T], timeout_s: float = 0.0) -> T:
        from websockets.exceptions import ConnectionClosed

        try:
            return call()
        except TimeoutError:
            self.close()
            raise _no_answer(self.address.url, timeout_s) from None
        except ConnectionClosed as error:
            self.close()
            raise _Closed(f"{self.address.url}: the connection ended ({one_line(str(error))})") from None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _no_answer(url: str, timeout_s: float) -> ServerGone:
    how = "--policy-option timeout_s=... waits longer (first_timeout_s=... for the first answer)"
    return ServerGone(f"{url}: no answer within {timeout_s:g} s; {how}")


class _Closed(ServerError):
    """The server closed the connection; only reconnecting shows whether it is gone."""


class OpenpiLink(_WebSocketLink):
    """openpi's websocket protocol: a greeting, then one answer per observation. It has no notion of episodes."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._open()
        self.greeting = self._greeting()

    def _greeting(self) -> dict[str, Any]:
        try:
            greeting = self._take(self.address.first_timeout_s)
        except _Closed as error:
            raise UserError(f"{error}; is this a server of openpi?") from None
        if not isinstance(greeting, dict):
            raise UserError(f"{self.address.url}: greeted with {type(greeting).__name__}; is this a server of openpi?")
        return greeting

    def begin(self, instruction: str, seed: int) -> None:
        self._episode = {"episode": uuid.uuid4().hex, "seed": seed}

    def send(self, message: dict[str, Any], step: int) -> None:
        own = {VGB: {**self._episode, "step": step}} if VGB in self.greeting else {}
        self._transmit({**message, **own})

    def receive(self, timeout_s: float) -> np.ndarray:
        answer = self._take(timeout_s)
        return actions_of(answer, self.address.url)


class VlaEvalLink(_WebSocketLink):
    """vla-eval's protocol, version 1: hello, then episodes of observations and actions with sequence numbers."""

    VERSION = 1

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._open()
        self._sequence, self._running = 0, False
        self._say(
            "hello", {"harness_version": _own_version(), "protocol_version": self.VERSION, "benchmark": "vla-gen-bench"}
        )
        try:
            kind, payload, _ = self._hear(address.first_timeout_s)
        except (_Closed, ServerGone) as error:
            raise UserError(f"{error}; is this a server of vla-eval?") from None
        if kind != "hello":
            raise UserError(f"{address.url}: answered hello with {kind}; is this a server of vla-eval?")
        version = payload.get("protocol_version", self.VERSION)
        if version != self.VERSION:
            raise UserError(f"{address.url}: speaks vla-eval's protocol {version}; expected {self.VERSION}")
        able = payload.get("capabilities")
        self.greeting = {**payload, **(able if isinstance(able, dict) else {})}

    def begin(self, instruction: str, seed: int) -> None:
        if self._running:
            self._say("episode_end", {"metrics": {}, "steps": 0, "elapsed_sec": 0.0})
        task = {"name": instruction, "suite": "vla-gen-bench", "seed": seed}
        self._say("episode_start", {"task": task})
        self._running = True

    def send(self, message: dict[str, Any], step: int) -> None:
        own = {VGB: {"step": step}} if VGB in self.greeting else {}
        self._say("observation", {**message, **own})

    def receive(self, timeout_s: float) -> np.ndarray:
        deadline = time.monotonic() + timeout_s
        while True:
            kind, payload, sequence = self._hear(max(0.001, deadline - time.monotonic()))
            if kind == "error":
                raise ServerError(f"{self.address.url}: {end_of_text(str(payload.get('error', payload)))}")
            if kind == "action" and sequence == self._sequence:
                return actions_of(payload, self.address.url)
            # anything else answers an observation that is no longer awaited

    def _say(self, kind: str, payload: dict[str, Any]) -> None:
        self._sequence += 1
        message = {"type": kind, "payload": payload, "seq": self._sequence, "timestamp": time.time()}
        self._transmit(message, self.address.images)

    def _hear(self, timeout_s: float) -> tuple[str, dict[str, Any], int]:
        message = self._take(timeout_s)
        if not isinstance(message, dict) or not isinstance(message.get("payload"), dict) or "type" not in message:
            raise ServerError(f"{self.address.url}: a message without type and payload; is this a server of vla-eval?")
        return str(message["type"]), message["payload"], message.get("seq", 0)


class ActLink:
    """OpenVLA's REST: `POST /act` with JSON, arrays as json-numpy. It has neither episodes nor connections.

    The link reports the end of each episode to `vgb serve`, which can then give its instance of the policy to another.
    """

    def __init__(self, address: Address) -> None:
        import urllib3

        self.address = address
        self._pool = urllib3.HTTPConnectionPool(address.host, address.port, maxsize=1, retries=False)
        self._episode: dict[str, Any] = {}
        self._pending: dict[str, Any] | None = None
        self._running = False  # the server knows the episode
        self.greeting = self._health()

    def _health(self) -> dict[str, Any]:
        """Waits until a server answers; only `vgb serve` and a few others implement this path."""
        import urllib3

        def call() -> Any:
            try:
                return self._pool.request(
                    "GET", "/health", timeout=urllib3.Timeout(connect=5, read=self.address.timeout_s)
                )
            except urllib3.exceptions.ProtocolError as error:
                raise UserError(f"{self.address.url}: no HTTP server there ({one_line(str(error))})") from None
            except urllib3.exceptions.HTTPError as error:
                raise OSError(str(error)) from None

        answer = patiently(self.address, call)
        try:
            health = wire.loads(answer.data, self.address.limit)
        except wire.WireError:
            return {}
        return health if answer.status == 200 and isinstance(health, dict) else {}

    def begin(self, instruction: str, seed: int) -> None:
        self._end()
        self._episode = {"episode": uuid.uuid4().hex, "seed": seed}

    def _end(self) -> None:
        """Tells `vgb serve` that the episode has ended; the server notices later by itself if this is lost."""
        import urllib3

        if self._running:
            self._running = False
            body = wire.dumps({VGB: {**self._episode, "ended": True}})
            with suppress(urllib3.exceptions.HTTPError):
                answer = self._post(body, END_TIMEOUT_S)
                answer.read()
                answer.release_conn()

    def _post(self, body: str, timeout_s: float) -> Any:
        import urllib3

        return self._pool.request(
            "POST", "/act", body=body, headers={"Content-Type": "application/json"},
            timeout=urllib3.Timeout(connect=min(10, timeout_s), read=timeout_s), preload_content=False,
        )  # fmt: skip

    def send(self, message: dict[str, Any], step: int) -> None:
        own = {VGB: {**self._episode, "step": step}} if VGB in self.greeting else {}
        self._pending = {**message, **own}

    def receive(self, timeout_s: float) -> np.ndarray:
        import urllib3

        self._running = False  # the end of an episode is not reported to a server that does not answer
        url, body = self.address.url, wire.dumps(self._pending)
        try:
            answer = self._post(body, timeout_s)
            data = answer.read(self.address.limit + 1)
            answer.release_conn()
        except urllib3.exceptions.ReadTimeoutError:
            raise _no_answer(url, timeout_s) from None
        except urllib3.exceptions.HTTPError as error:
            raise _Closed(f"{url}: {one_line(str(error))}") from None
        self._running = VGB in self.greeting
        if answer.status != 200:
            raise ServerError(f"{url}/act: HTTP {answer.status}: {end_of_text(data.decode('utf-8', 'replace'))}")
        return actions_of(self._parsed(data), url)

    def _parsed(self, data: bytes) -> Any:
        """Returns the parsed answer; OpenVLA's server may encode it twice, and returns "error" on failure."""
        try:
            answer = wire.loads(data, self.address.limit)
            if isinstance(answer, str) and answer != "error":
                answer = wire.loads(answer, self.address.limit)
            elif isinstance(answer, dict) and isinstance(answer.get("encoded"), str):
                answer = wire.loads(answer["encoded"], self.address.limit)
        except wire.WireError as error:
            raise ServerError(f"{self.address.url}: {error}") from None
        if isinstance(answer, str):
            raise ServerError(f"{self.address.url}: the server says '{end_of_text(answer)}'; its own output tells why")
        return answer

    def close(self) -> None:
        self._end()
        self._pool.close()


def actions_of(answer: Any, url: str) -> np.ndarray:
    """Returns the actions of an answer; if there are none, raises `ServerError` naming the answer's content."""
    if isinstance(answer, dict):
        if "actions" not in answer and "action" not in answer:
            raise ServerError(f"{url}: an answer without 'actions'; its keys: {', '.join(map(str, answer)) or 'none'}")
        answer = answer["actions"] if "actions" in answer else answer["action"]
    try:
        actions = np.asarray(answer)
    except ValueError:
        raise ServerError(f"{url}: actions of differing lengths") from None
    if actions.dtype.kind not in wire.KINDS or actions.ndim not in (1, 2, 3) or not actions.size:
        raise ServerError(f"{url}: actions are {actions.dtype} {list(actions.shape)}; expected numbers [n] or [K, n]")
    return actions[0] if actions.ndim == 3 and len(actions) == 1 else actions


def end_of_text(text: str) -> str:
    """Returns a server's text on one line; if long, only its end, where a traceback has the reason."""
    line = printable(" ".join(text[-4 * LONGEST_END :].split()))
    return line if len(line) <= LONGEST_END else f"... {line[-LONGEST_END:]}"


def _own_version() -> str:
    from vla_gen_bench import __version__

    return __version__
