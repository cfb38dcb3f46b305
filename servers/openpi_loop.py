"""The server half of openpi's websocket protocol, for the scripts beside this file: msgpack with arrays, no pickle.

A greeting with the key "vgb" tells `vgb eval` chunk, limits and sensors, and that actions follow the benchmark's
convention (docs: policies/README.md): then it converts nothing. Leave it out for another convention, and say on the
client's side how to convert: `adapter:` in a card.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve as websocket_server

LIMIT = 64 << 20  # bytes of a message
HIGHEST = [1.0, 1.0, 1.0, 1.5707963267948966, 1.5707963267948966, 1.5707963267948966, 1.0]


def pack(message: Any) -> bytes:
    """Returns msgpack, arrays as openpi writes them."""

    def encode(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        fields = {b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
        return {b"__ndarray__": True, **fields}

    return msgpack.packb(message, default=encode)


def unpack(data: bytes) -> Any:
    """Returns the message; arrays of numbers only."""

    def decode(fields: dict) -> Any:
        if b"__ndarray__" not in fields:
            return fields
        dtype = np.dtype(fields[b"dtype"])
        if dtype.kind not in "biuf":
            raise ValueError(f"an array of {dtype}")
        return np.frombuffer(fields[b"data"], dtype).reshape(fields[b"shape"]).copy()

    return msgpack.unpackb(data, object_hook=decode)


def greeting(policy: str, chunk: int, execute: int, needs: dict[str, Any]) -> dict[str, Any]:
    """Returns the server's first message to `vgb eval`; `needs` as in a card: state, cameras, image_size [H, W]."""
    spec = {"chunk": chunk, "execute": execute, "low": [-value for value in HIGHEST], "high": HIGHEST}
    return {
        "policy": policy,
        "vgb": {"version": "server script", "policy": policy, "action_spec": spec, "needs": needs},
    }


def serve(
    begin: Callable[[], Callable[[dict[str, Any]], np.ndarray]], hello: dict[str, Any], host: str, port: int
) -> None:
    """Answers until it is interrupted; one request at a time goes through the model.

    Args:
        begin: Called for each connection and, if the client reports them as `vgb eval` does, for each episode.
            Returns the function that maps an observation to actions [K, n]; state of an episode belongs in there.
        hello: The greeting.
    """
    turn = threading.Lock()

    def talk(socket: Any) -> None:
        with suppress(ConnectionClosed):  # a client that ends without saying goodbye is no error of the server
            answer(socket)

    def answer(socket: Any) -> None:
        socket.send(pack(hello))
        episode, act = None, None
        for data in socket:
            try:
                message = unpack(data)
                own = message.get("vgb", {}).get("episode")
                with turn:
                    if act is None or own != episode:
                        episode, act = own, begin()
                    actions = np.asarray(act(message), np.float32)
            except Exception as error:  # the client gets the reason, the terminal the traceback
                traceback.print_exc()
                socket.send(f"{type(error).__name__}: {error}")
                socket.close(1011)
                return
            socket.send(pack({"actions": actions}))

    with websocket_server(talk, host, port, compression=None, max_size=LIMIT) as server:
        print(f"serving {hello['policy']} at openpi://{host}:{server.socket.getsockname()[1]}", flush=True)
        server.serve_forever()
