"""`vgb assets fetch`: installs a complete, verified pack or leaves the existing one unchanged.

Files are collected in a staging folder next to the pack's (valid existing files, then a local copy or upstream),
compared with the manifest, and only then moved into place. An interrupted fetch leaves the pack as it was.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vla_gen_bench.assets import folders
from vla_gen_bench.assets.generation import generate
from vla_gen_bench.assets.pack import forget_opened, pack_status
from vla_gen_bench.assets.partial_clone import check_out, require_git
from vla_gen_bench.assets.source import Audit, Progress, Source, Upstream, audit, load_source
from vla_gen_bench.episodes.catalog import load_catalog
from vla_gen_bench.errors import UserError

NAMED_AT_MOST = 5  # files in one error message


@dataclass(frozen=True)
class Fetched:
    """The pack's location, whether this call changed it, and warnings about tolerated files."""

    root: Path
    changed: bool
    warnings: list[str]


def quiet(what: str, done: int, total: int) -> None:
    """Reports no progress."""


def fetch(
    world: str,
    from_dir: Path | None = None,
    force: bool = False,
    progress: Progress = quiet,
    source: Source | None = None,
) -> Fetched:
    """Completes the pack of `world`: from upstream, from a local folder, or by generating it.

    Valid files of the existing pack are kept and not downloaded again.

    Args:
        from_dir: Folder with the pack's folders, or with upstream checkouts. Nothing is downloaded.
        force: Fetches every file again. Even then a complete pack is not replaced by one that lacks more files.
        source: None = the shipped one.

    Raises:
        UserError: A file is unavailable or does not match the manifest; the existing pack is unchanged.
    """
    load_catalog(world)
    source = source or load_source(world)
    root = folders.pack_root(world).resolve()
    if source is None:
        return _generate(world, root, from_dir, force)
    if from_dir is not None and not from_dir.is_dir():
        raise UserError(f"--from {from_dir}: no such folder")
    with _errors_named(root, source):
        _recover(world, root)
    before = audit(root, source.files, progress)
    if not force and _nothing_to_gain(before, source, from_dir):
        return Fetched(root, False, before.warnings)
    state = _named(before.errors) if before.errors else "usable as it is"
    folders.refuse_foreign(world, root, state, source.files)
    with _errors_named(root, source), _alone(_lock(world)):
        before = audit(root, source.files, progress)  # again, now that nobody else fetches
        after = _assemble(source, root, before, from_dir, force, progress)
    forget_opened()
    return Fetched(root, True, after.warnings)


def _nothing_to_gain(before: Audit, source: Source, from_dir: Path | None) -> bool:
    if before.errors:
        return False
    if from_dir is None:
        return not before.absent
    return not list(_found(source, from_dir, before.absent))


def _assemble(
    source: Source, root: Path, before: Audit, from_dir: Path | None, force: bool, progress: Progress
) -> Audit:
    stage = root.with_name(f".{root.name}.staging")
    shutil.rmtree(stage, ignore_errors=True)
    try:
        stage.mkdir(parents=True)
        kept = () if force else before.good
        _copy(((name, root / name) for name in kept), stage)
        wanted = sorted(source.files.keys() - set(kept))
        commits = {}
        if from_dir is None:
            commits = _download(source, wanted, stage, progress)
        else:
            _copy(_found(source, from_dir, wanted), stage)
        after = audit(stage, source.files, progress)
        _require_good(after, source, from_dir, root)
        _require_no_worse(before, after, root)
        _write_pack_file(stage, source, after, commits)
        _swap(stage, root)
        shutil.rmtree(_downloads(source.world), ignore_errors=True)
        return after
    finally:
        shutil.rmtree(stage, ignore_errors=True)


# ---- the two origins -----------------------------------------------------------------------------------------


def _downloads(world: str) -> Path:
    return folders.cache_dir() / "downloads" / world


def _download(source: Source, wanted: Iterable[str], stage: Path, progress: Progress) -> dict[str, str]:
    """Checks out the wanted files of each upstream into the stage; returns pack folder -> full commit id."""
    require_git()
    commits, scratch = {}, stage / ".checkout"
    for upstream in source.upstreams:
        origin = {_upstream_path(upstream, name): name for name in _below(upstream, wanted)}
        if not origin:
            continue
        clone, work = _downloads(source.world) / f"{upstream.folder}.git", scratch / upstream.folder
        commits[upstream.folder] = check_out(upstream, list(origin), clone, work, progress)
        for path, name in origin.items():
            if (work / path).is_file():
                (stage / name).parent.mkdir(parents=True, exist_ok=True)
                (work / path).rename(stage / name)
    shutil.rmtree(scratch, ignore_errors=True)
    return commits


def _found(source: Source, folder: Path, wanted: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Yields (file of the pack, where it is in `folder`), in the pack's own layout or in that of upstream clones."""
    for upstream in source.upstreams:
        for name in _below(upstream, wanted):
            places = (folder / name, folder / upstream.repository / _upstream_path(upstream, name))
            there = [place for place in places if place.is_file()]
            if there:
                yield name, there[0]


def _below(upstream: Upstream, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(f"{upstream.folder}/")]


def _upstream_path(upstream: Upstream, name: str) -> str:
    relative = name.removeprefix(f"{upstream.folder}/")
    return f"{upstream.path}/{relative}" if upstream.path else relative


def _copy(files: Iterable[tuple[str, Path]], stage: Path) -> None:
    for name, origin in files:
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, stage / name)  # without its mode, because the origin may be read-only


# ---- what may take the pack's place --------------------------------------------------------------------------


def _require_good(after: Audit, source: Source, from_dir: Path | None, root: Path) -> None:
    if not after.errors:
        return
    kept = "; the pack in place is as it was" if root.exists() else ""
    if from_dir is None:
        raise UserError(f"what {_urls(source)} gave does not match the manifest: {_named(after.errors)}{kept}")
    if not after.good:
        own = " and ".join(upstream.folder for upstream in source.upstreams)
        clones = " and ".join(f"{upstream.repository}/{upstream.path}".rstrip("/") for upstream in source.upstreams)
        raise UserError(
            f"--from {from_dir}: nothing of the pack is there; expected the folders {own}, or {clones}{kept}"
        )
    raise UserError(f"--from {from_dir}: {_named(after.errors)}{kept}")


def _require_no_worse(before: Audit, after: Audit, root: Path) -> None:
    lost = set(after.absent) - set(before.absent)
    if before.good and not before.errors and lost:
        raise UserError(f"{root}: kept, for it has what this source lacks: {', '.join(sorted(lost))}")


def _named(errors: dict[str, str]) -> str:
    shown = [f"{name}: {what}" for name, what in list(errors.items())[:NAMED_AT_MOST]]
    more = len(errors) - len(shown)
    return "; ".join(shown) + (f"; and {more} more files" if more else "")


def _urls(source: Source) -> str:
    return " and ".join(upstream.url for upstream in source.upstreams)


def _write_pack_file(stage: Path, source: Source, after: Audit, commits: dict[str, str]) -> None:
    origin = {
        "format": 1,
        "world": source.world,
        "pinned": {upstream.url: upstream.commit for upstream in source.upstreams},
        "checked_out": commits,
        "absent": after.absent,
        "unverified": after.unverified,
        "licence": source.licence,
    }
    (stage / folders.PACK_FILE).write_text(json.dumps(origin, indent=1) + "\n")


def _set_aside(root: Path) -> Path:
    return root.with_name(f".{root.name}.old")


def _swap(stage: Path, root: Path) -> None:
    """Replaces `root` by `stage`; restores `root` on failure."""
    old = _set_aside(root)
    shutil.rmtree(old, ignore_errors=True)
    if root.exists():
        root.rename(old)
    try:
        stage.rename(root)
    except OSError:
        if old.exists():
            old.rename(root)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _recover(world: str, root: Path) -> None:
    """Restores a pack that `_swap` had set aside when its process was killed."""
    if _set_aside(root).exists() and not root.exists():
        with _alone(_lock(world)):
            _set_aside(root).rename(root)


def _lock(world: str) -> Path:
    return folders.cache_dir() / "downloads" / f"{world}.lock"


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Holds the lock on a folder, or on a file that is made for it; it is released however the process ends.

    A git process that outlives a killed parent keeps writing, so it inherits the lock and holds it until it ends.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    how = os.O_RDONLY if place.is_dir() else os.O_RDWR | os.O_CREAT
    handle = os.open(place, how, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another `vgb assets fetch` is running, or git is after one was killed ({place}); wait for it"
            ) from error
        os.set_inheritable(handle, True)
        yield
    finally:
        os.close(handle)


@contextmanager
def _errors_named(root: Path, source: Source) -> Iterator[None]:
    """Converts file system errors to a `UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            need = f"about {2 * source.known_bytes / 1e6:.0f} MB are needed"
            raise UserError(
                f"{root.parent}: no space left ({need}); free some, or set VGB_CACHE to another disk"
            ) from error
        where = error.filename or root.parent
        raise UserError(f"{where}: {error.strerror}; set VGB_CACHE to a folder you can write to") from error


# ---- builtin -------------------------------------------------------------------------------------------------


def _generate(world: str, root: Path, from_dir: Path | None, force: bool) -> Fetched:
    if from_dir is not None:
        raise UserError(f"world '{world}' is generated, not copied: leave out --from")
    before = pack_status(world)
    if not force and before.state == "ready":
        return Fetched(root, False, [])
    with folders.readable(world, root):
        folders.refuse_foreign(world, root, before.detail)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _alone(root.parent):
            _regenerate(world, root)
    except OSError as error:
        where = f"{error.filename or root}: cannot be written ({error.strerror})"
        raise UserError(f"{where}; {folders.elsewhere(world)}") from error
    forget_opened()
    return Fetched(root, True, [])


def _regenerate(world: str, root: Path) -> None:
    made = root.with_name(f".{root.name}.staging")
    shutil.rmtree(made, ignore_errors=True)
    try:
        generate(world, made)
        _swap(made, root)
    finally:
        shutil.rmtree(made, ignore_errors=True)
