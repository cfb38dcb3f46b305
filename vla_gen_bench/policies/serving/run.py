"""Listens on a socket for a server's application."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from aiohttp import web

from vla_gen_bench.policies.serving.protocols import Server, application


async def listen(server: Server, protocol: str, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM; reports the address through `say` once the socket is open.

    Raises:
        OSError: The address is in use or does not belong to this machine.
    """
    runner = web.AppRunner(application(server, protocol), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound = site._server.sockets[0].getsockname()[1]
        say(f"serving {server.name} at {protocol}://{host}:{bound}")
        await _until_told()
    finally:
        await runner.cleanup()


async def _until_told() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop.set)
        except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or no such signals
            pass
    await stop.wait()
