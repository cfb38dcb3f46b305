"""Servers in threads of the test process: this project's own, and others that misbehave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from aiohttp import web

from vla_gen_bench.policies.serving.engine import Engine
from vla_gen_bench.policies.serving.protocols import Server, application
from vla_gen_bench.protocol import ActionSpec, Needs


@contextmanager
def running(app: web.Application) -> Iterator[int]:
    """Runs a web application on a free port of this machine and yields the port."""
    loop, ready, ended, port = asyncio.new_event_loop(), threading.Event(), asyncio.Event(), []

    async def serve() -> None:
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.append(site._server.sockets[0].getsockname()[1])
        ready.set()
        await ended.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield port[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def serving(make, protocol: str = "openpi", needs: Needs = Needs(), **options) -> Iterator[tuple[int, Server]]:  # noqa: B008
    """Serves what `make()` builds; yields the port and the server."""
    limits = {name: options.pop(name) for name in ("limit", "connections", "digest") if name in options}
    server = Server(Engine(make, "policy 'acme'", needs, **options), "acme", **limits)
    with running(application(server, protocol)) as port:
        yield port, server


class Echo:
    """Answers with what it sees, so that a test can tell: dx, dy, dz = seed, step, mean of the image, all / 1000."""

    memoryless = True

    def __init__(self, chunk: int = 2, execute: int | None = 1) -> None:
        self.action_spec, self.batches = ActionSpec(chunk=chunk, execute=execute), []

    def reset(self, instructions, seeds):
        self.instructions, self.seeds = list(instructions), list(seeds)

    def act(self, observation):
        self.batches.append(len(observation))
        assert list(observation.instruction) == self.instructions
        actions = np.zeros((len(observation), self.action_spec.chunk, 7), np.float32)
        actions[:, :, 0] = np.array(self.seeds)[:, None] / 1000
        actions[:, :, 1] = observation.step[:, None] / 1000
        actions[:, :, 2] = observation.image.reshape(len(observation), -1).mean(1)[:, None] / 1000
        actions[:, :, 6] = -1
        return actions


class Counts(Echo):
    """Keeps its episodes inside: dy counts its own calls."""

    memoryless = False

    def reset(self, instructions, seeds):
        super().reset(instructions, seeds)
        self.calls = 0

    def act(self, observation):
        actions = super().act(observation)
        self.calls += 1
        actions[:, :, 1] = self.calls / 1000
        return actions
