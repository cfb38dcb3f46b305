"""Asset packs on disk: locates a world's files, verifies them, and generates them if possible.

A pack is a folder with the files that a catalogue names. `builtin` and `pretrain` are generated into the cache on first
use. `rl4vla` is a copy of the paper's assets in `$VGB_RL4VLA_DIR`, else in the cache, where `vgb assets fetch rl4vla`
puts it (`fetch.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from vla_gen_bench.assets.content import combined, files_of, sha256
from vla_gen_bench.assets.folders import pack_root, readable, variable_of
from vla_gen_bench.assets.generated import GENERATED, KNOWN
from vla_gen_bench.assets.generation import GeneratedPack
from vla_gen_bench.assets.source import audit, load_source
from vla_gen_bench.episodes.catalog import Body, Catalog, load_catalog
from vla_gen_bench.errors import UserError


@dataclass(frozen=True)
class Pack:
    """A world's files.

    Attributes:
        root: Folder the catalogue's paths are relative to.
        digest: 16 hex digits over the contents of all files the catalogue uses.
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


@lru_cache(maxsize=None)
def _open(world: str, root: Path) -> Pack:
    catalog = load_catalog(world)
    with readable(world, root):
        if world not in GENERATED:
            substitutes, digest = _verified(catalog, root)
            return Pack(catalog, root, digest, substitutes)
        pack = GeneratedPack(catalog, root)
        pack.ensure()
        return Pack(catalog, root, pack.verify())


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
    root, catalog = pack_root(world), load_catalog(world)
    try:
        with readable(world, root):
            state, detail = _generated_status(catalog, root) if world in GENERATED else _copied_status(catalog, root)
    except UserError as error:
        state, detail = "corrupt" if world in GENERATED else "incomplete", str(error)
    return PackStatus(world, state, root, detail)


def _generated_status(catalog: Catalog, root: Path) -> tuple[str, str]:
    pack = GeneratedPack(catalog, root)
    if pack.absent():
        return "absent", "generated on first use"
    known = pack.verify() == KNOWN[catalog.world].stated
    return "ready", "verified" if known else "verified, but its meshes or images are not those of the published logs"


def _copied_status(catalog: Catalog, root: Path) -> tuple[str, str]:
    if not root.is_dir():
        return "absent", "not fetched"
    absent, _ = _verified(catalog, root)
    return "ready", f"verified; {len(absent)} visuals are absent, drawn as collision meshes" if absent else "verified"


def _verified(catalog: Catalog, root: Path) -> tuple[dict[str, str], str]:
    """Returns visual -> collision mesh for absent visuals that may be absent, and the digest of the files used.

    Raises:
        UserError: There is no pack from elsewhere in `root`, or a file of it is missing or damaged.
    """
    world, source = catalog.world, load_source(catalog.world)
    assert source is not None, world
    if not (root / catalog.robot_urdf).is_file():
        raise UserError(f"world '{world}': no asset pack in {root} ({catalog.robot_urdf} not found); {_fix(world)}")
    found = audit(root, source.files)
    if found.errors:
        file, problem = next(iter(found.errors.items()))
        wrong = f"{len(found.errors)} of {len(source.files)} files in {root} are wrong, the first: {file}: {problem}"
        raise UserError(f"world '{world}': {wrong}; {_fix(world)}")
    bodies = (*catalog.objects, *catalog.receptacles)
    substitutes = {body.visual: body.collision for body in bodies if body.visual in found.absent}
    known = {name: entry.sha256 for name, entry in source.files.items()}
    used = files_of(catalog, root, substitutes)
    return substitutes, combined({name: known.get(name) or sha256(root / name) for name in used})


def _fix(world: str) -> str:
    return f"run `vgb assets fetch {world}`, or set {variable_of(world)} to a folder that holds it"
