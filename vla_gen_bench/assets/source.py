"""The sources of a world's files as data (pinned commits, a SHA-256 manifest), and the audit of a folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from vla_gen_bench.episodes.spec import Frozen

Progress = Callable[[str, int, int], None]  # current activity, files done, total files

LFS_POINTER = b"version https://git-lfs"


class Upstream(Frozen):
    """A git repository that provides one folder of the pack.

    Attributes:
        folder: Folder in the pack.
        url: Anything `git fetch` accepts.
        commit: The pinned commit, 40 hex digits, or a prefix that only one commit has.
        path: Folder in the repository; "" for all of it.
    """

    folder: str
    url: str
    commit: str
    path: str

    @property
    def repository(self) -> str:
        """The folder name that a plain `git clone` of the url uses."""
        return self.url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")


class Entry(Frozen):
    """The known size and digest of a file.

    A null digest means that no copy was available: the file may be absent, and any content is accepted. With a null
    size, a wrong size is not reported separately from other damage.
    """

    size: int | None
    sha256: str | None


class Source(Frozen):
    """The origin of one pack; `files` are relative to the pack's root, each below the folder of one upstream."""

    world: str
    licence: str
    upstreams: tuple[Upstream, ...]
    files: dict[str, Entry]

    @property
    def known_bytes(self) -> int:
        return sum(entry.size or 0 for entry in self.files.values())


@dataclass(frozen=True)
class Audit:
    """The result of comparing a folder with its manifest.

    Attributes:
        good: Valid files, including the unverified ones.
        errors: File -> its problem.
        absent: Missing visuals without a known digest, which are rendered as their collision mesh.
        unverified: Existing files that are complete by their own header but have no digest to compare with.
    """

    good: tuple[str, ...]
    errors: dict[str, str]
    absent: tuple[str, ...]
    unverified: tuple[str, ...]

    @property
    def warnings(self) -> list[str]:
        """One line per file that is tolerated but not verified."""
        absent = [f"{name}: absent, drawn as its collision mesh" for name in self.absent]
        return absent + [f"{name}: not verified, its digest is not known" for name in self.unverified]


def worlds() -> list[str]:
    """Returns the names of all worlds with a catalogue."""
    folder = resources.files("vla_gen_bench.episodes") / "catalogs"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".json"))


def load_source(world: str) -> Source | None:
    """Returns the shipped source of `world`, or None for a world that is generated."""
    file = resources.files("vla_gen_bench.assets") / "sources" / f"{world}.json"
    return Source.model_validate(json.loads(file.read_text())) if file.is_file() else None


def audit(root: Path, files: Mapping[str, Entry], progress: Progress | None = None) -> Audit:
    """Reads every file of the manifest below `root` and compares size and SHA-256."""
    good, errors, absent, unverified = [], {}, [], []
    for done, (name, entry) in enumerate(sorted(files.items()), start=1):
        if entry.sha256 is None and not os.path.exists(root / name):
            absent.append(name)
        elif wrong := problem_of(root / name, entry):
            errors[name] = wrong
        else:
            good.append(name)
            unverified += [name] if entry.sha256 is None else []
        if progress:
            progress("verifying", done, len(files))
    return Audit(tuple(good), errors, tuple(absent), tuple(unverified))


def problem_of(path: Path, entry: Entry) -> str | None:
    """Returns the problem of the file at `path`, or None."""
    try:
        if not path.is_file():
            return "missing"
        content = path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if content.startswith(LFS_POINTER):
        return "a Git LFS pointer, not the file itself"
    if entry.sha256 is None:
        return None if path.suffix != ".glb" or is_whole_glb(content) else "damaged: not a whole GLB file"
    if entry.size is not None and len(content) != entry.size:
        return f"{len(content)} bytes, expected {entry.size}"
    return (
        None if hashlib.sha256(content).hexdigest() == entry.sha256 else "damaged: its SHA-256 is not the expected one"
    )


def is_whole_glb(content: bytes) -> bool:
    """Returns whether the length in the binary glTF 2.0 header equals the file's length."""
    return content[:4] == b"glTF" and int.from_bytes(content[8:12], "little") == len(content)
