"""`RemotePolicy`: implements the policy protocol with a server, one connection per running episode."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from vla_gen_bench.data import plain_or_text
from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.contract import example_observation
from vla_gen_bench.policies.converters.base import Converter
from vla_gen_bench.policies.remote import keys as key_maps
from vla_gen_bench.policies.remote.address import parse_url
from vla_gen_bench.policies.remote.links import VGB, Address, Link, ServerError, ServerGone, connect
from vla_gen_bench.policies.remote.settings import own_of, settings_of
from vla_gen_bench.policies.remote.wire import MEBIBYTE, ImageCodec
from vla_gen_bench.protocol import EXTERNAL, WRIST, ActionSpec, Needs, Observation

BINARY_GRIPPER = {"gripper": {"closed": 0, "open": 1, "binarise": True}}
# Adapters for a server that does not state its convention: Bridge's. The image sizes are those that
# inspect-robots-widowx sends to openpi and OpenVLA.
BRIDGE_ADAPTERS: dict[str, list[dict[str, Any]]] = {
    "openpi": [{"resize": {"height": 224, "width": 224, "pad": True}}, BINARY_GRIPPER],
    "vla-eval": [BINARY_GRIPPER],
    "act": [
        {"resize": {"height": 256, "width": 256, "method": "lanczos"}}, {"jpeg": {"quality": 75}}, BINARY_GRIPPER,
    ],
}  # fmt: skip
REPLAN_EVERY = 5  # control steps executed of openpi's longer chunks, as in inspect-robots-widowx
COUNTERS = ("status", "connections", "served")  # greeting keys that describe a server's load, not its identity
PROBE = "put carrot on plate"


def own_keys(protocol: str, needs: Needs) -> dict[str, Any]:
    """Returns the key map for `vgb serve` and a policy with `needs`: all inputs under the protocol's names."""
    named = {EXTERNAL: "image", WRIST: "image.wrist"}
    cameras = {camera: named[camera] for camera in needs.cameras}
    history = {f"history/{camera}": f"history.{camera}" for camera in needs.cameras if needs.history > 1}
    if protocol == "vla-eval":
        state = {"states": "state"} if needs.state else {}
        return {"images": cameras, "task_description": "instruction", **history, **state}
    prefix, prompt = ("observation/", "prompt") if protocol == "openpi" else ("", "instruction")
    names = {EXTERNAL: "image", WRIST: "wrist_image"}
    keys = {f"{prefix}{names[camera]}": source for camera, source in cameras.items()}
    keys |= {f"{prefix}{name}": source for name, source in history.items()}
    return {**keys, **({f"{prefix}state": "state"} if needs.state else {}), prompt: "instruction"}


class RemotePolicy:
    """A policy that runs in another process, on this machine or another.

    Args:
        url: openpi://host:port, vla-eval://host:port or act://host:port.
        keys: Key map, see `keys`; None = the server's own if it is `vgb serve`, else Bridge's.
        execute: Actions of a chunk executed before the next request; None = the value reported by `vgb serve`, else
            the full chunk, for openpi at most 5.
        start_s: How long to wait for a server that is still starting.
        timeout_s, first_timeout_s: Longest time for an answer; the first one may take longer.
        limit_mib: Largest message.
        images: Encoding of vla-eval's images: png, jpeg or raw; None = png, but raw for `vgb serve`.
        api_key: openpi's optional key; None = the environment variable VGB_API_KEY. Logs never hold it.

    Attributes:
        default_adapter: The converters used if neither card nor user names any.
        connection: Message contents and server identity, for the log.

    Raises:
        ServerGone: No server answers.
        UserError: A bad address or key map, or a server of another protocol.
    """

    def __init__(
        self,
        url: str,
        keys: Mapping[str, Any] | None = None,
        execute: int | None = None,
        start_s: float = 60.0,
        timeout_s: float = 30.0,
        first_timeout_s: float = 300.0,
        limit_mib: float = 64.0,
        images: ImageCodec | None = None,
        api_key: str | None = None,
    ) -> None:
        protocol, host, port = parse_url(url)
        waits = {"start_s": start_s, "timeout_s": timeout_s, "first_timeout_s": first_timeout_s, "limit_mib": limit_mib}
        api_key = api_key or os.environ.get("VGB_API_KEY")
        settings_of({"url": url, "execute": execute, "api_key": api_key, **waits})
        if keys is not None:
            keys = key_maps.check_keys(keys, f"{url}: keys")
        if images not in (None, "png", "jpeg", "raw"):
            raise UserError(f"{url}: images: is '{images}'; expected png, jpeg or raw")
        settings = (start_s, timeout_s, first_timeout_s, int(limit_mib * MEBIBYTE), images or "png", api_key)
        self._address = Address(protocol, host, port, *settings)
        self._links: list[Link | None] = [connect(self._address)]
        self._greeting = self._links[0].greeting
        self.own = own_of(self._greeting, url)
        if self.own and images is None:
            self._links[0].close()
            self._address = Address(**{**asdict(self._address), "images": "raw"})
            self._links = [connect(self._address)]
        self.needs = self.own.needs if self.own else Needs()
        fallback = own_keys(protocol, self.needs) if self.own else key_maps.BRIDGE[protocol]
        self._keys = keys if keys is not None else fallback
        self.needs = key_maps.needs_of(self._keys, self.needs)
        self.default_adapter = () if self.own else BRIDGE_ADAPTERS[protocol]
        self._execute, self._answered = execute, False
        self.action_spec = self._own_spec() if self.own else ActionSpec()
        self.connection: dict[str, Any] = {}

    def _own_spec(self) -> ActionSpec:
        spec = self.own.spec
        return replace(spec, execute=self._execute or spec.execute)

    def prepare(self, converters: Sequence[Converter]) -> None:
        """Queries a server once on an example image if it does not report its chunk length."""
        if self.own is None:
            seen = example_observation(1, needs=self.needs)
            for converter in converters:
                converter.reset(1, 1)
                seen = converter.observe(seen)
            self.reset([PROBE], [0])
            chunk = len(self._ask(seen)[0])
            whole = min(chunk, REPLAN_EVERY) if self._address.protocol == "openpi" else chunk
            execute = self._execute or whole
            self.action_spec = ActionSpec(chunk=chunk, execute=None if execute == chunk else execute)
        self.connection = self._describe(converters)

    def _describe(self, converters: Sequence[Converter]) -> dict[str, Any]:
        from vla_gen_bench.policies.converters.compose import describe_adapter

        rotation = next((item.given for item in converters if hasattr(item, "given")), "euler_XYZ")
        return {
            "protocol": self._address.protocol, "url": self._address.url, "server": _described(self._greeting),
            "keys": self._keys, "codec": self._codec(), "rotation": rotation,
            "adapter": describe_adapter(converters), "sent": {},
        }  # fmt: skip

    def _codec(self) -> str:
        return {"openpi": "raw", "act": "json-numpy"}.get(self._address.protocol, self._address.images)

    def reset(self, instructions: Sequence[str], seeds: Sequence[int]) -> None:
        while len(self._links) < len(instructions):
            self._links.append(None)
        for row, (instruction, seed) in enumerate(zip(instructions, seeds, strict=True)):
            self._begin(row, instruction, int(seed))

    def _begin(self, row: int, instruction: str, seed: int) -> None:
        """Starts an episode; reopens a connection that an earlier episode lost."""
        for _ in range(2):
            try:
                self._links[row] = self._links[row] or self._connect()
                self._links[row].begin(instruction, seed)
                return
            except ServerError:
                self._drop(row)
        self._links[row] = self._connect()
        self._links[row].begin(instruction, seed)

    def _connect(self) -> Link:
        """Opens another connection; raises `ServerGone` if another policy answers than at first.

        Only servers that greet as `vgb serve` does are compared: others may greet differently each time.
        """
        link = connect(self._address)
        if VGB in self._greeting and _described(link.greeting) != _described(self._greeting):
            link.close()
            raise ServerGone(
                f"{self._address.url}: another policy, or the same one after an edit, is served there now than at the "
                "start; serve the former one again to continue this log, or give another folder with --out"
            )
        return link

    def _drop(self, row: int) -> None:
        if self._links[row] is not None:
            self._links[row].close()
        self._links[row] = None

    def act(self, observation: Observation) -> np.ndarray:
        chunks = self._ask(observation)
        for row, chunk in enumerate(chunks):
            if len(chunk) != self.action_spec.chunk or chunk.shape != chunks[0].shape:
                raise ServerError(
                    f"{self._address.url}: returned actions {list(chunk.shape)} for episode {row} of the batch; "
                    f"expected a chunk of {self.action_spec.chunk}, as at first"
                )
        return np.stack(chunks).astype(np.float32)

    def _ask(self, observation: Observation) -> list[np.ndarray]:
        """Returns one chunk [K, n] per episode; sends all requests before it waits for answers."""
        timeout_s = self._address.timeout_s if self._answered else self._address.first_timeout_s
        messages = [key_maps.fill(self._keys, observation, row) for row in range(len(observation))]
        if self.connection:
            self.connection["sent"] = key_maps.describe(messages[0])
        try:
            for row, message in enumerate(messages):
                self._link(row).send(message, int(observation.step[row]))
            chunks = self._receive(len(messages), timeout_s)
        except ServerError as error:
            for row in range(len(messages)):
                self._drop(row)
            raise ServerError(f"{error}; sent: {_listed(key_maps.describe(messages[0]))}") from None
        self._answered = True
        return [chunk if chunk.ndim == 2 else chunk[None] for chunk in chunks]

    def _receive(self, count: int, timeout_s: float) -> list[np.ndarray]:
        if self._address.protocol != "act" or count == 1:
            return [self._link(row).receive(timeout_s) for row in range(count)]
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda row: self._link(row).receive(timeout_s), range(count)))

    def _link(self, row: int) -> Link:
        link = self._links[row] if row < len(self._links) else None
        if link is None:
            raise ServerError(f"{self._address.url}: no connection for episode {row} of the batch")
        return link

    def close(self) -> None:
        for row in range(len(self._links)):
            self._drop(row)


def remote_needs(options: Mapping[str, Any]) -> Needs:
    """Returns a server's inputs for planning, as reported by the server and as needed by the key map if given."""
    given = {name: value for name, value in options.items() if name != "adapter"}
    settings_of(given)
    policy = RemotePolicy(**given)
    policy.close()
    return policy.needs


def _listed(described: Mapping[str, Any], prefix: str = "") -> str:
    parts = [
        _listed(value, f"{prefix}{name}.") if isinstance(value, Mapping) else f"{prefix}{name} ({value})"
        for name, value in described.items()
    ]
    return ", ".join(parts)


def _described(greeting: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a server's greeting that identifies it, as the log records it."""
    return {name: value for name, value in greeting.items() if name not in COUNTERS and _is_small(value)}


def _is_small(value: Any) -> bool:
    """Whether a part of the server's greeting may go into the log: plain data of a few hundred characters."""
    return not isinstance(value, np.ndarray) and plain_or_text(value) == value and len(repr(value)) < 2000
