"""Server addresses in the form of `--policy`, and the card of a policy given only by its address."""

from __future__ import annotations

import re

from vla_gen_bench.errors import UserError, suggest
from vla_gen_bench.policies.card import Card, Source

PROTOCOLS = ("openpi", "vla-eval", "act")
FACTORY = "vla_gen_bench.policies.remote.policy:RemotePolicy"
PORT = 8000


def is_url(ref: str) -> bool:
    """Returns whether `ref` is an address, not a name, a folder or `module:attr`."""
    return "://" in ref


def parse_url(url: str) -> tuple[str, str, int]:
    """Returns ("openpi", "localhost", 8000) for "openpi://localhost:8000"; raises `UserError`."""
    found = re.fullmatch(r"([\w+-]+)://(\[[0-9a-fA-F:]+\]|[^/:@\s?#]+)(?::([0-9]{1,5}))?/?", url)
    if not found or not 0 < int(found[3] or PORT) < 65536:
        raise UserError(f"policy '{url}': expected openpi://HOST:PORT, vla-eval://HOST:PORT or act://HOST:PORT")
    if found[1] not in PROTOCOLS:
        raise UserError(f"policy '{url}': unknown protocol '{found[1]}'{suggest(found[1], PROTOCOLS)}")
    return found[1], found[2], int(found[3] or PORT)


def card_of(url: str) -> Card:
    """Returns the card of the policy at `url` without connecting to it."""
    protocol, host, port = parse_url(url)
    name = f"{protocol}:{host.strip('[]').replace(':', '-')}:{port}"
    summary = f"Whatever is served at {url}"
    card = Card(name=name, title=name, summary=summary, factory=FACTORY, kwargs={"url": url})
    return card.with_source(Source("built-in"))
