"""Asset packs on disk: locates a world's files, verifies them, and generates them if possible.

A pack is a folder with the files that a catalogue names. `builtin` and `pretrain` are generated into the cache on first
use. `rl4vla` is a copy of the paper's assets in `$VGB_RL4VLA_DIR`, else in the cache, where `vgb assets fetch rl4vla`
puts it (`fetch.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

from vla_gen_bench.assets.derived import draft_folder, put_in_place
from vla_gen_bench.assets.generated import GENERATED, write_pack
from vla_gen_bench.data import read_json
from vla_gen_bench.episodes.catalog import Body, Catalog, load_catalog
from vla_gen_bench.errors import UserError, shown

PACK_FILE = "pack.json"
ROBOT_MESH_SUFFIXES = (".obj", ".stl", ".glb", ".mtl", ".png")


def _inside(name: str) -> str:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not name:
        raise ValueError("expected a path below the pack")
    return name


class Manifest(TypedDict):
    """The manifest of a generated pack: digest of its catalogue, file -> SHA-256."""

    format: int
    world: str
    catalog: str
    files: dict[Annotated[str, AfterValidator(_inside)], str]


@dataclass(frozen=True)
class Pack:
    """A world's files.

    Attributes:
        root: Folder the catalogue's paths are relative to.
        digest: 16 hex digits over all file contents the catalogue uses.
        substitutes: Visual path -> collision path, for missing visuals that are rendered as their collision mesh.
    """

    catalog: Catalog
    root: Path
    digest: str
    substitutes: dict[str, str] = field(default_factory=dict)

    def path(self, relative: str) -> Path:
        return self.root / relative

    def visual(self, body: Body) -> Path:
        """Returns the file with which to render `body`."""
        return self.root / self.substitutes.get(body.visual, body.visual)

    @property
    def warnings(self) -> list[str]:
        return [f"{path} is missing: drawn as its collision mesh" for path in sorted(self.substitutes)]


@dataclass(frozen=True)
class PackStatus:
    """The status of a world for `vgb doctor`: `state` is "ready", "absent", "incomplete" or "corrupt"."""

    world: str
    state: str
    root: Path
    detail: str


def cache_dir() -> Path:
    """Returns `$VGB_CACHE`, else `$XDG_CACHE_HOME/vla-gen-bench`, else `~/.cache/vla-gen-bench`."""
    if os.environ.get("VGB_CACHE"):
        return Path(os.environ["VGB_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vla-gen-bench"


def pack_root(world: str) -> Path:
    """Returns the expected folder of the pack of `world`, whether or not it exists."""
    override = os.environ.get(f"VGB_{world.upper()}_DIR")
    if override:
        return Path(override).expanduser()
    catalog = load_catalog(world)
    return cache_dir() / "packs" / f"{world}-{catalog.version}"


@lru_cache(maxsize=None)
def _open(world: str, root: Path) -> Pack:
    catalog = load_catalog(world)
    if world in GENERATED:
        _ensure_generated(catalog, root)
        digest, substitutes = _verify_digests(root), {}
    else:
        substitutes = _check_present(catalog, root)
        digest = _digest_files(root, files_of(catalog, root, substitutes))
    return Pack(catalog, root, digest, substitutes)


def open_pack(world: str) -> Pack:
    """Returns the verified pack of `world`, generating a missing one if this package can.

    Raises:
        UserError: The pack is absent, incomplete or corrupted; the message names the fix.
    """
    return _open(world, pack_root(world).resolve())


def forget_opened() -> None:
    """Makes the next `open_pack` read the disk again, after a pack was replaced."""
    _open.cache_clear()


def pack_status(world: str) -> PackStatus:
    """Returns the state of the pack of `world` without generating or changing anything."""
    root = pack_root(world)
    if not root.is_dir():
        return PackStatus(world, "absent", root, "generated on first use" if world in GENERATED else "not fetched")
    try:
        if world in GENERATED:
            _require_version(load_catalog(world), root)
            _verify_digests(root)
            return PackStatus(world, "ready", root, "verified")
        absent = _check_present(load_catalog(world), root)
        detail = f"{len(absent)} visuals are absent, drawn as collision meshes" if absent else "all files there"
        return PackStatus(world, "ready", root, detail)
    except UserError as error:
        return PackStatus(world, "corrupt" if world in GENERATED else "incomplete", root, str(error))


def files_of(catalog: Catalog, root: Path, substitutes: dict[str, str] | None = None) -> list[str]:
    """Returns every file the catalogue uses, relative to `root`, sorted, including the robot's entire folder."""
    skip = substitutes or {}
    files = [image.image for image in (*catalog.tables, *catalog.textures)]
    for body in (*catalog.objects, *catalog.receptacles):
        files += [body.collision] + ([] if body.visual in skip else [body.visual])
    robot = (root / catalog.robot_urdf).parent
    files += [str(p.relative_to(root)) for p in robot.rglob("*") if p.suffix.lower() in ROBOT_MESH_SUFFIXES]
    return sorted({*files, catalog.robot_urdf})


# ---- generated, verified against the digests written with it -------------------------------------


def _ensure_generated(catalog: Catalog, root: Path) -> None:
    if not (root / PACK_FILE).is_file():
        generate(catalog.world, root)
    _require_version(catalog, root)


def _require_version(catalog: Catalog, root: Path) -> None:
    written = _read_manifest(root).get("catalog")
    if written != catalog.digest():
        raise UserError(
            f"{root}: made by another version of this package (catalogue {shown(written)}, expected "
            f"{catalog.digest()}); "
            "delete the folder to generate it again"
        )


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
        files = {name: _sha256(work / name) for name in files_of(catalog, work)}
        manifest = {"format": 1, "world": world, "catalog": catalog.digest(), "files": files}
        (work / PACK_FILE).write_text(json.dumps(manifest, indent=1, sort_keys=True))
        put_in_place(work, root, (root / PACK_FILE).is_file)
    except OSError as error:
        raise _unwritable(root, world, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _unwritable(root: Path, world: str, error: OSError) -> UserError:
    return UserError(f"{root.parent}: cannot write the assets of world '{world}' ({error.strerror}); set VGB_CACHE")


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


def made_here(world: str, root: Path) -> bool:
    """Returns whether `root` holds a pack of `world` written, and thus replaceable, by this package."""
    try:
        return read_json(root / PACK_FILE, dict[str, Any]).get("world") == world
    except UserError:
        return False


def written_digests(root: Path) -> dict[str, str]:
    """Returns file -> SHA-256 from a generated pack's manifest; raises `UserError` if that cannot be read."""
    return _read_manifest(root)["files"]


def _read_manifest(root: Path) -> Manifest:
    try:
        return read_json(root / PACK_FILE, Manifest)
    except UserError as error:
        raise UserError(f"asset pack {root}: {error}; delete that folder to have it made again") from None


def _verify_digests(root: Path) -> str:
    files = written_digests(root)
    for name, expected in files.items():
        path = root / name
        if not path.is_file() or _sha256(path) != expected:
            what = "damaged" if path.is_file() else "missing"
            raise UserError(f"asset pack {root}: {name} is {what}; delete that folder to generate it again")
    return _combine(files)


# ---- packs that come from elsewhere ------------------------------------------------------------------------


def _check_present(catalog: Catalog, root: Path) -> dict[str, str]:
    """Returns visual -> collision substitutes for absent visuals; raises an error naming any other missing file."""
    if not (root / catalog.robot_urdf).is_file():
        raise UserError(
            f"world '{catalog.world}': no asset pack in {root} ({catalog.robot_urdf} not found); {_fix(catalog.world)}"
        )
    bodies = (*catalog.objects, *catalog.receptacles)
    substitutes = {body.visual: body.collision for body in bodies if not (root / body.visual).is_file()}
    missing = [name for name in files_of(catalog, root, substitutes) if not (root / name).is_file()]
    if missing:
        some = f"{len(missing)} files missing in {root}, first: {missing[0]}"
        raise UserError(f"world '{catalog.world}': {some}; {_fix(catalog.world)}")
    return substitutes


def _fix(world: str) -> str:
    return f"run `vgb assets fetch {world}`, or set VGB_{world.upper()}_DIR to a folder that holds it"


def _digest_files(root: Path, names: list[str]) -> str:
    return _combine({name: _sha256(root / name) for name in names})


def _combine(files: dict[str, str]) -> str:
    lines = "\n".join(f"{name} {digest}" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
