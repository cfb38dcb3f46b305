"""Fetches selected files of a pinned commit with git, without the rest of the repository.

A bare clone without file contents (`--filter=blob:none`) has only commits and folders; a sparse checkout then fetches
the wanted contents, some files at a time. Fetched contents stay in the clone, so an interrupted download resumes where
it stopped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vla_gen_bench.assets.source import Progress, Upstream
from vla_gen_bench.errors import UserError

OLDEST_GIT = (2, 25)  # the first whose partial clones fetch all contents of a sparse checkout at once
FILES_PER_FETCH = 24
FULL_ID = 40  # hex digits of a commit; a shorter id must be found among all commits
# Variables set inside git hooks and aliases; they would redirect our commands to the user's repository.
REDIRECTING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
OPTIONS = {
    "core.autocrlf": "false",  # unchanged contents, to match the known digests
    "core.symlinks": "false",  # a link in a repository must not point outside the pack
    "core.hooksPath": "/dev/null",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "core.fsmonitor": "false",  # no background process: it would keep the lock that git inherits
    "advice.detachedHead": "false",
    "http.lowSpeedLimit": "1000",  # bytes/s; a stalled transfer ends
    "http.lowSpeedTime": "60",  # after so many seconds
}
UNREACHABLE = re.compile(
    r"could not resolve|unable to (access|connect)|could not read (from remote|username)|connection|timed out|early eof"
    r"|rpc failed|hung up|promisor remote|not appear to be a git repository|repository .*not found|\b(tls|ssl)\b",
    re.IGNORECASE,
)

QUOTED = re.compile(r"'[^']*'")  # paths and addresses, which may contain any word


class GitFailed(Exception):
    """git failed; the message is the most informative line of its output."""

    def __init__(self, stderr: str) -> None:
        lines = [line.strip() for line in stderr.splitlines() if line.strip()]
        telling = [line for line in lines if line.startswith(("fatal:", "error:"))]
        super().__init__((telling or lines or ["no message"])[0])
        faults = (line for line in lines if not line.startswith("warning:"))
        self.unreachable = any(UNREACHABLE.search(QUOTED.sub("''", line)) for line in faults)
        self.disk_full = "No space left" in stderr


def require_git() -> None:
    """Raises `UserError` if git is missing or too old for partial clones."""
    wanted = ".".join(map(str, OLDEST_GIT))
    elsewhere = "or clone on another machine and use --from"
    try:
        told = subprocess.run(["git", "--version"], capture_output=True, text=True).stdout.strip()
    except OSError as error:
        raise UserError(f"git cannot be run ({error.strerror}): install git {wanted} or newer, {elsewhere}") from error
    version = re.search(r"(\d+)\.(\d+)", told)
    if version is None or tuple(map(int, version.groups())) < OLDEST_GIT:
        raise UserError(f"'{told}' is too old: partial clones need git {wanted} or newer; update it, {elsewhere}")


def check_out(upstream: Upstream, paths: Sequence[str], clone: Path, work: Path, progress: Progress) -> str:
    """Writes `paths` of the pinned commit below `work`, which is emptied first.

    Args:
        paths: Relative to the repository's root. Paths missing from the commit are silently skipped.
        clone: Folder of the bare clone, created if missing or broken.

    Returns:
        The full id of the commit.

    Raises:
        UserError: The host is unreachable, the commit is missing or not unique, the disk is full.
    """
    resumed = clone.exists()
    try:
        return _attempt(upstream, paths, clone, work, progress)
    except GitFailed as error:
        if not resumed or error.unreachable or error.disk_full:
            raise _user_error(error, upstream, clone) from error
    progress(f"{upstream.repository}: the earlier download is broken, starting again", 0, len(paths))
    shutil.rmtree(clone)
    try:
        return _attempt(upstream, paths, clone, work, progress)
    except GitFailed as error:
        raise _user_error(error, upstream, clone) from error


def _attempt(upstream: Upstream, paths: Sequence[str], clone: Path, work: Path, progress: Progress) -> str:
    progress(f"{upstream.repository}: commits", 0, len(paths))
    commit = _synchronise(upstream, clone)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    environment = {"GIT_INDEX_FILE": str(work.with_name(f"{work.name}.index"))}
    Path(environment["GIT_INDEX_FILE"]).unlink(missing_ok=True)
    patterns = clone / "info" / "sparse-checkout"
    patterns.parent.mkdir(exist_ok=True)
    for start in range(0, len(paths), FILES_PER_FETCH):
        progress(f"{upstream.repository}: files", start, len(paths))
        patterns.write_text("".join(f"/{_literal(path)}\n" for path in paths[: start + FILES_PER_FETCH]))
        _git(clone, f"--work-tree={work}", "read-tree", "-m", "-u", commit, environment=environment)
    progress(f"{upstream.repository}: files", len(paths), len(paths))
    return commit


def _synchronise(upstream: Upstream, clone: Path) -> str:
    """Fetches commits and folders unless the clone already has the pinned commit; returns its full id."""
    if not clone.exists():
        clone.parent.mkdir(parents=True, exist_ok=True)
        _git(clone, "init", "--quiet", "--bare", str(clone))
    for stale in clone.rglob("*.lock"):  # left by a killed process; the caller ensures that none runs
        stale.unlink()
    settings = {
        "core.repositoryFormatVersion": "1",
        "core.sparseCheckout": "true",
        "extensions.partialClone": "origin",
        "remote.origin.url": upstream.url,
        "remote.origin.promisor": "true",
        "remote.origin.partialCloneFilter": "blob:none",
    }
    for key, value in settings.items():
        _git(clone, "config", key, value)
    if len(_candidates(upstream, clone)) != 1:
        pinned = [f"+{upstream.commit}:refs/vgb/pinned"]
        everything = ["+refs/heads/*:refs/remotes/*", "+refs/tags/*:refs/tags/*"]
        wanted = pinned if len(upstream.commit) == FULL_ID else everything
        _git(clone, "fetch", "--quiet", "--no-tags", "--filter=blob:none", "origin", *wanted)
    found = _candidates(upstream, clone)
    if len(found) != 1:
        ambiguous = f"{len(found)} commits begin with" if found else "no commit begins with"
        raise UserError(f"{upstream.url}: {ambiguous} '{upstream.commit}', expected exactly one; {_update(upstream)}")
    return found[0]


def _candidates(upstream: Upstream, clone: Path) -> list[str]:
    commits = _git(clone, "rev-list", "--all").split()
    return [commit for commit in commits if commit.startswith(upstream.commit)]


def _literal(path: str) -> str:
    """Escapes characters with a special meaning in sparse-checkout patterns."""
    return re.sub(r"([\\*?\[\] ])", r"\\\1", path)


def _git(clone: Path, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """Runs git on the clone; returns its standard output, raises `GitFailed`.

    git inherits the file descriptors marked inheritable: the download lock, which it keeps if this process is killed.
    """
    options = [part for key, value in OPTIONS.items() for part in ("-c", f"{key}={value}")]
    where = [] if arguments[0] == "init" else [f"--git-dir={clone}"]
    kept = {name: value for name, value in os.environ.items() if name not in REDIRECTING}
    kept |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **(environment or {})}
    command = ["git", *options, *where, *arguments]
    done = subprocess.run(
        command, env=kept, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, close_fds=False
    )
    if done.returncode:
        raise GitFailed(done.stderr or f"git {arguments[0]} ended with status {done.returncode}")
    return done.stdout


def _user_error(error: GitFailed, upstream: Upstream, clone: Path) -> UserError:
    if error.disk_full:
        return UserError(f"{clone.parent}: no space left; free some, or set VGB_CACHE to a folder on another disk")
    if re.search(r"not our ref|couldn't find remote ref", str(error)):
        return UserError(f"{upstream.url} does not have commit {upstream.commit}; {_update(upstream)}")
    if error.unreachable:
        return UserError(
            f"cannot download from {upstream.url} ({error}); check the network and run this again, it resumes from "
            f"where it was; or {_by_hand(upstream)}"
        )
    return UserError(f"git failed on {upstream.url} ({error}); {_by_hand(upstream)}")


def _update(upstream: Upstream) -> str:
    return f"its history may have changed: update vla-gen-bench, or {_by_hand(upstream)}"


def _by_hand(upstream: Upstream) -> str:
    return (
        f"on another machine `git clone {upstream.url}`, `git checkout {upstream.commit}`, and give the folder that "
        "holds the clones as --from"
    )
