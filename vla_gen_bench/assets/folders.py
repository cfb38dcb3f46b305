"""Where packs are: the cache of this package, and the folders that environment variables name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vla_gen_bench.assets.generated import KNOWN
from vla_gen_bench.data import read_json
from vla_gen_bench.episodes.catalog import load_catalog
from vla_gen_bench.errors import UserError

PACK_FILE = "pack.json"


def cache_dir() -> Path:
    """Returns `$VGB_CACHE`, else `$XDG_CACHE_HOME/vla-gen-bench`, else `~/.cache/vla-gen-bench`."""
    if os.environ.get("VGB_CACHE"):
        return _named_by("VGB_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():  # its specification says to ignore any other value
        return base / "vla-gen-bench"
    try:
        return Path.home() / ".cache" / "vla-gen-bench"
    except RuntimeError:
        raise UserError("this user has no home folder; set VGB_CACHE to a folder you can write to") from None


def _named_by(variable: str) -> Path:
    try:
        return Path(os.environ[variable]).expanduser()
    except RuntimeError:
        raise UserError(f"{variable}={os.environ[variable]}: there is no such user's home folder") from None


def packs_dir() -> Path:
    """Returns the folder of the packs that this package puts into the cache."""
    return cache_dir() / "packs"


def variable_of(world: str) -> str:
    """Returns the environment variable that names another folder for the pack of `world`."""
    return f"VGB_{world.upper()}_DIR"


def pack_root(world: str) -> Path:
    """Returns the expected folder of the pack of `world`, whether or not it exists."""
    own, variable = own_root(world), variable_of(world)
    return _named_by(variable) if os.environ.get(variable) else own


def own_root(world: str) -> Path:
    """Returns the folder of the pack of `world` in the cache; versions that generate other contents have others."""
    content = f"-{KNOWN[world].content[:8]}" if world in KNOWN else ""
    return packs_dir() / f"{world}-{load_catalog(world).version}{content}"


def elsewhere(world: str) -> str:
    """Returns how to have the pack of `world` in another folder, for messages."""
    variable = variable_of(world)
    return f"unset {variable}" if os.environ.get(variable) else "set VGB_CACHE to another folder"


def in_cache(world: str, root: Path) -> bool:
    """Returns whether `root` is the folder of the pack of `world` in the cache, which belongs to this package."""
    return root.resolve() == own_root(world).resolve()


def made_here(world: str, root: Path) -> bool:
    """Returns whether `root` holds a pack of `world` written, and thus replaceable, by this package."""
    try:
        return read_json(root / PACK_FILE, dict[str, Any]).get("world") == world
    except UserError:
        return False


def refuse_foreign(world: str, root: Path, state: str, files: Iterable[str] | None = None) -> None:
    """Raises `UserError` if the pack's folder has files that this package did not put there.

    Args:
        state: What is wrong with the pack, for the message.
        files: Those that it puts there; None = those of the pack's manifest.
    """
    if in_cache(world, root) or not root.exists():
        return
    unset = f"to have the assets in the cache, unset {variable_of(world)}"
    if made_here(world, root):
        written = read_json(root / PACK_FILE, dict[str, Any]).get("files", ()) if files is None else files
        known = {PACK_FILE, *written}
        there = (str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
        strays = sorted(name for name in there if name not in known)
        if strays:
            raise UserError(f"{root}: not replaced, for {strays[0]} in it is not of the pack; move it away, or {unset}")
    elif not root.is_dir() or any(root.iterdir()):
        raise UserError(f"{root}: not made by this package, so it is left alone ({state}); {unset}")


@contextmanager
def readable(world: str, root: Path) -> Iterator[None]:
    """Converts file system errors to a `UserError`."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename or root}: cannot be read ({error.strerror})"
        raise UserError(f"{where}; change its permissions, or {elsewhere(world)}") from error
