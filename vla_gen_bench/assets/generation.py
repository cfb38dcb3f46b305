"""Packs that this package generates: when, what their manifest states, and whether they are still as written."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator
from typing_extensions import NotRequired, TypedDict  # pydantic requires these before Python 3.12

from vla_gen_bench.assets.content import combined, content_digest, files_of, sha256
from vla_gen_bench.assets.derived import draft_folder, put_in_place
from vla_gen_bench.assets.folders import PACK_FILE, elsewhere, in_cache, made_here, refuse_foreign, variable_of
from vla_gen_bench.assets.generated import KNOWN, write_pack
from vla_gen_bench.data import read_json
from vla_gen_bench.episodes.catalog import Catalog, load_catalog
from vla_gen_bench.errors import UserError, shown


def _inside(name: str) -> str:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not name:
        raise ValueError("expected a path below the pack")
    return name


class Manifest(TypedDict):
    """The manifest of a generated pack.

    `catalog`: digest of its catalogue; `files`: file -> SHA-256; `content`: digest of the files' contents, for `files`
    whose digest is `content_of`.
    """

    format: int
    world: str
    catalog: str
    files: dict[Annotated[str, AfterValidator(_inside)], str]
    content: NotRequired[str]
    content_of: NotRequired[str]


FORMAT = 2  # of the manifest: 1 knew no contents and no SRDF


@dataclass(frozen=True)
class GeneratedPack:
    """The pack of a generated world in `root`, whether or not it is there."""

    catalog: Catalog
    root: Path

    def manifest(self) -> Manifest:
        """Returns its manifest; raises `UserError` if that cannot be read."""
        try:
            return read_json(self.root / PACK_FILE, Manifest)
        except UserError as error:
            raise UserError(f"asset pack {self.root}: {error}; {self._remedy()}") from None

    def absent(self) -> bool:
        """Whether nothing is there, so that it may be generated."""
        return not self.root.exists() or self.root.is_dir() and not any(self.root.iterdir())

    def ensure(self) -> None:
        """Generates it if nothing is there; raises `UserError` if that is impossible or other files are there."""
        if self.absent():
            generate(self.catalog.world, self.root)
        elif not (self.root / PACK_FILE).is_file():
            refuse_foreign(self.catalog.world, self.root, "no asset pack")

    def verify(self) -> str:
        """Returns its digest, as logs state it; raises `UserError` naming a file that is not as it was written."""
        manifest = self.manifest()
        if manifest["catalog"] != self.catalog.digest():
            made_for = f"catalogue {shown(manifest['catalog'])}, expected {self.catalog.digest()}"
            raise UserError(f"{self.root}: made by another version of this package ({made_for}); {self._remedy()}")
        if manifest["format"] != FORMAT:
            raise UserError(f"{self.root}: made by an earlier version of this package; {self._remedy()}")
        unlisted = [name for name in _files(self.catalog, self.root) if name not in manifest["files"]]
        if unlisted:
            raise UserError(f"asset pack {self.root}: {unlisted[0]} is not in {PACK_FILE}; {self._remedy()}")
        for name, expected in manifest["files"].items():
            path = self.root / name
            if not path.is_file() or sha256(path) != expected:
                what = "damaged" if path.is_file() else "missing"
                raise UserError(f"asset pack {self.root}: {name} is {what}; {self._remedy()}")
        content, known = manifest.get("content"), KNOWN[self.catalog.world]
        if content is None or manifest.get("content_of") != combined(manifest["files"]):
            content = combined({name: content_digest(self.root / name) for name in manifest["files"]})
        return known.stated if content == known.content else content

    def _remedy(self) -> str:
        """Returns what to do if it cannot be used; deleting is left to commands that look at what they delete."""
        world, variable = self.catalog.world, variable_of(self.catalog.world)
        again = f"run `vgb assets fetch {world}` to generate it again"
        if in_cache(world, self.root):
            return again
        if made_here(world, self.root):
            return f"{again}, or unset {variable}"
        return f"unset {variable}, or set it to a folder that holds the pack"


def generate(world: str, root: Path) -> None:
    """Writes the pack of a generated world to `root`, atomically: a half-written pack is never seen.

    Raises:
        UserError: The folder cannot be written, or the generated pack differs from the shipped catalogue.
    """
    catalog = load_catalog(world)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        work = draft_folder(root)
    except OSError as error:
        raise _unwritable(root, world, error) from error
    try:
        _check_same(write_pack(world, work), catalog)
        names = _files(catalog, work)
        files = {name: sha256(work / name) for name in names}
        manifest: Manifest = {
            "format": FORMAT, "world": world, "catalog": catalog.digest(), "files": files,
            "content": combined({name: content_digest(work / name) for name in names}), "content_of": combined(files),
        }  # fmt: skip
        (work / PACK_FILE).write_text(json.dumps(manifest, indent=1, sort_keys=True))
        put_in_place(work, root, (root / PACK_FILE).is_file)
    except OSError as error:
        raise _unwritable(root, world, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _files(catalog: Catalog, root: Path) -> list[str]:
    """Returns all files of a generated pack: also the robot's SRDF, which disables collisions within the arm."""
    return sorted([*files_of(catalog, root), str(PurePosixPath(catalog.robot_urdf).with_suffix(".srdf"))])


def _unwritable(root: Path, world: str, error: OSError) -> UserError:
    return UserError(
        f"{root.parent}: cannot write the assets of world '{world}' ({error.strerror}); {elsewhere(world)}"
    )


def _check_same(made: Catalog, shipped: Catalog, tolerance: float = 1e-4) -> None:
    """Raises `UserError` unless both name the same assets with sizes equal within `tolerance` metres."""
    for kind in ("objects", "receptacles", "tables", "textures"):
        if made.ids(kind) != shipped.ids(kind):
            raise UserError(
                f"the generated {shipped.world} {kind} are not those of the shipped catalogue; reinstall the package"
            )
    for kind in ("objects", "receptacles"):
        for new, old in zip(getattr(made, kind), getattr(shipped, kind), strict=True):
            sizes = zip((*new.bbox_min, *new.bbox_max), (*old.bbox_min, *old.bbox_max), strict=True)
            if any(abs(a - b) > tolerance for a, b in sizes):
                raise UserError(
                    f"generated {shipped.world} asset '{new.id}' has another size than the shipped catalogue says"
                )
