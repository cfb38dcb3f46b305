"""`vgb serve`."""

from __future__ import annotations

import ipaddress
import logging
import sys

import click

from vla_gen_bench.cli.numbers import Real, Whole
from vla_gen_bench.errors import UserError


@click.command()
@click.option("--policy", required=True, help="Name (vgb policies list), module:attr, or a folder with a card.yaml.")
@click.option("--checkpoint", metavar="PATH|HUB_ID", help="Weights, for policies that take them.")
@click.option("--policy-option", "options", multiple=True, metavar="KEY=VALUE", help="Argument of the policy; repeat.")
@click.option("--protocol", type=click.Choice(["openpi", "vla-eval", "act"]), default="openpi", show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=Whole(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--batch", type=Whole(1, 1024), default=16, show_default=True, help="Maximum number of requests in a batch."
)
@click.option(
    "--wait-ms",
    type=Real(0, 1000),
    default=0.0,
    show_default=True,
    help="Milliseconds to wait for more requests to batch.",
)
@click.option(
    "--instances", type=Whole(1, 1024), default=16, show_default=True,
    help="Maximum number of copies of a policy that keeps state.",
)  # fmt: skip
@click.option(
    "--connections",
    type=Whole(1, 65536),
    default=256,
    show_default=True,
    help="Maximum number of simultaneous connections.",
)
@click.option("--max-message-mib", type=Real(0.1, 1024), default=16.0, show_default=True, help="Largest message.")
def serve(policy, checkpoint, options, protocol, host, port, batch, wait_ms, instances, connections, max_message_mib):
    """Serve a policy to other harnesses, and to `vgb eval --policy PROTOCOL://HOST:PORT`.

    Listens on this machine only, unless --host is given: there is neither a password nor encryption.
    Health: GET /health. Ctrl-C stops it.
    """
    from vla_gen_bench import runtime
    from vla_gen_bench.policies.registry import load_policy, parse_options, resolve
    from vla_gen_bench.policies.remote.wire import MEBIBYTE, need_packages
    from vla_gen_bench.policies.sensing import serving_needs

    need_packages()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    arguments = {**parse_options(options), **({"checkpoint": checkpoint} if checkpoint else {})}
    card = resolve(policy)
    if card.privileged:
        raise UserError(f"{card.label} reads the simulator's state; only policies that look at images can be served")
    from vla_gen_bench.policies.serving.engine import Engine
    from vla_gen_bench.policies.serving.protocols import Server

    digest = served_digest(card, arguments)  # before the weights are read, so that no later change is missed
    engine = Engine(
        lambda: load_policy(card, **arguments), card.label, serving_needs(card, arguments),
        batch=batch, wait_s=wait_ms / 1000, instances=instances,
    )  # fmt: skip
    threads = getattr(engine.policy, "threads", None)
    (runtime.narrow_threads if threads else runtime.limit_threads)(threads or runtime.usable_cores())
    server = Server(engine, card.name, int(max_message_mib * MEBIBYTE), connections, digest)
    _listen(server, protocol, host, port)


def served_digest(card, arguments: dict) -> str:
    """Returns a digest of all that decides how the policy acts; a local checkpoint counts wherever it lies."""
    from vla_gen_bench.episodes.spec import digest_of
    from vla_gen_bench.log.provenance import without_secrets
    from vla_gen_bench.policies.identity import policy_digests

    found = policy_digests(card, arguments)
    options = {name: value for name, value in arguments.items() if name != "checkpoint" or found["checkpoint"] is None}
    return digest_of({**found, "options": without_secrets(options)})


def _listen(server, protocol: str, host: str, port: int) -> None:
    import asyncio

    from vla_gen_bench.policies.serving.run import listen

    if not _is_loopback(host):
        click.echo(
            f"warning: {host} can be reached from other machines; there is no password and no encryption", err=True
        )
    try:
        asyncio.run(listen(server, protocol, host, port, lambda line: click.echo(line, err=True)))
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there ({error.strerror or error})") from None
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
