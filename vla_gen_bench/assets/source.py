"""Where a world's files come from, and whether a folder holds them: pinned commits and a SHA-256 manifest, as data."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from vla_gen_bench.episodes.spec import Frozen

Progress = Callable[[str, int, int], None]  # What is being done, files done, files in all.

LFS_POINTER = b"version https://git-lfs"


class Upstream(Frozen):
    """A git repository of which one folder goes into the pack.

    Attributes:
        folder: Folder in the pack.
        url: Anything `git fetch` takes.
        commit: The pinned commit, 40 hex digits, or a prefix that only one commit has.
        path: Folder in the repository; "" for all of it.
    """

    folder: str
    url: str
    commit: str
    path: str

    @property
    def repository(self) -> str:
        """What a plain `git clone` of the url calls its folder."""
        return self.url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")


class Entry(Frozen):
    """What is known of a file. A null digest: no copy was at hand; the file may be absent, and is
    taken as it comes. A null size: not told apart from other damage."""

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
    """What a folder holds of what it should.

    Attributes:
        good: Files that are as they should be, the unverified ones included.
        errors: File -> what is wrong with it.
        absent: Visuals without a known digest that are not there: drawn as their collision mesh.
        unverified: Files that are there, whole by their own header, but without a digest to compare with.
    """

    good: tuple[str, ...]
    errors: dict[str, str]
    absent: tuple[str, ...]
    unverified: tuple[str, ...]

    @property
    def warnings(self) -> list[str]:
        """One line for each file that is tolerated rather than right."""
        absent = [f"{name}: absent, drawn as its collision mesh" for name in self.absent]
        return absent + [f"{name}: not verified, its digest is not known" for name in self.unverified]


def worlds() -> list[str]:
    """Returns the names of all worlds there is a catalogue of."""
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
    """Returns what is wrong with the file at `path`, or None."""
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
    """Tells whether the header of a binary glTF 2.0 names the length the file has."""
    return content[:4] == b"glTF" and int.from_bytes(content[8:12], "little") == len(content)
