"""Grounding scenes on disk: parts of 500, written atomically, decoded on first use into one mapped array per side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_gen_bench.episodes.catalog import load_catalog
from vla_gen_bench.errors import UserError, one_line, shown
from vla_gen_bench.log.guard import check_held, sole_writer
from vla_gen_bench.train.demos import lerobot_format as form
from vla_gen_bench.train.demos.image_cache import cached_images
from vla_gen_bench.train.resize import squashed

OWN_FILE = "scenes.json"
PART_SCENES = 500
DIMENSIONS = {"image": 4, "foreground": 3, "thing": 2, "receptacle": 2, "place": 3, "xy": 3, "visible": 2}
COLUMNS = ("thing", "receptacle", "place", "xy", "visible")


@dataclass(frozen=True)
class SceneRequest:
    """What to render.

    Attributes:
        scenes: Total number, rounded up to full parts of 500.
        out: Folder; an existing one is continued.
        split: "train", or "unseen" for the development pools.
        world: World name.
        side: Side of the stored square images, pixels.
        seed: Scenes are draws 0, 1, 2, ... of this seed.
    """

    scenes: int
    out: Path
    split: str = "train"
    world: str = "pretrain"
    side: int = 128
    seed: int = 0

    @property
    def origin(self) -> dict[str, Any]:
        """What the data depends on; a folder is continued only if this is equal."""
        kept = {key: value for key, value in asdict(self).items() if key not in ("scenes", "out")}
        return {**kept, "catalog": load_catalog(self.world).digest()}


def render_scenes(request: SceneRequest, on_progress: Callable[[int], None] = lambda done: None) -> int:
    """Renders until there are `request.scenes`, and returns the number present.

    Raises:
        UserError: The folder holds other scenes, or cannot be written. Written parts stay, and the same call
            continues after it.
    """
    with sole_writer(request.out):
        _check_origin(request)
        done = len(parts_of(request.out)) * PART_SCENES
        renderer = None
        while done < request.scenes:
            if renderer is None:
                from vla_gen_bench.train.grounding.render import Renderer

                renderer = Renderer(request.world, request.side)
            _write_part(request, renderer, done)
            done += PART_SCENES
            on_progress(done)
    return done


def _check_origin(request: SceneRequest) -> None:
    file = request.out / OWN_FILE
    if not file.is_file():
        form.write_json(file, request.origin)
    before = form.read_json(file)
    for key, value in request.origin.items():
        if before.get(key) != value:
            raise UserError(
                f"{request.out}: was rendered with {key} {before.get(key)!r}, not {value!r}; choose another --out"
            )


def _write_part(request: SceneRequest, renderer: Any, first: int) -> None:
    from vla_gen_bench.train.grounding.scenes import draw_scene

    indices = range(first, first + PART_SCENES)
    shots = [renderer.draw(draw_scene(renderer.pack.catalog, request.split, request.seed, index)) for index in indices]
    arrays = {name: np.stack([getattr(shot, name) for shot in shots]) for name in ("image", "foreground", *COLUMNS)}
    file = request.out / f"part-{first // PART_SCENES:04d}.npz"
    draft = file.with_suffix(".tmp")
    check_held(request.out)
    with draft.open("wb") as opened:
        np.savez_compressed(opened, **arrays)
    draft.replace(file)


def parts_of(folder: Path) -> list[Path]:
    """Returns the parts in order, up to the first missing one."""
    found = sorted(folder.glob("part-*.npz"))
    return [file for number, file in enumerate(found) if file.name == f"part-{number:04d}.npz"]


@dataclass(frozen=True)
class Scenes:
    """N rendered scenes in memory; columns as in `Shot`.

    Attributes:
        images, foreground: uint8 [N, S, S(, 3)].
        object_names, receptacle_names: By index in the catalogue.
    """

    images: np.ndarray
    foreground: np.ndarray
    thing: np.ndarray
    receptacle: np.ndarray
    place: np.ndarray
    xy: np.ndarray
    visible: np.ndarray
    object_names: list[str]
    receptacle_names: list[str]
    world: str
    split: str

    def __len__(self) -> int:
        return len(self.thing)

    def summary(self) -> str:
        """Identifies the scenes in one phrase: their number, and a digest of what lies where."""
        what = hashlib.sha256(self.thing.tobytes() + self.place.tobytes()).hexdigest()
        return f"{len(self):,} scenes ({what[:16]})"

    def name(self, scene: int, row: int) -> str:
        """Returns a thing's name in instructions."""
        names = self.receptacle_names if self.receptacle[scene, row] else self.object_names
        return names[self.thing[scene, row]]


def load_scenes(folder: Path, side: int, count: int | None = None) -> Scenes:
    """Reads the first `count` scenes (None = all), their images resized to `side`.

    Raises:
        UserError: Not a scene folder, or it holds fewer.
    """
    if not (folder / OWN_FILE).is_file():
        raise UserError(f"{folder}: holds no scenes; render some with 'vgb scenes'")
    own, parts = form.read_json(folder / OWN_FILE), parts_of(folder)
    for key in ("world", "split"):
        if not isinstance(own.get(key), str):
            raise UserError(f"{folder / OWN_FILE}: {key}: expected a name, got {shown(own.get(key))}")
    catalog = load_catalog(own["world"])
    if own.get("catalog") != catalog.digest():
        raise UserError(
            f"{folder}: rendered from another catalogue of world '{own['world']}', so the numbers of its objects would "
            "mean others; render scenes into another folder with 'vgb scenes'"
        )
    count = len(parts) * PART_SCENES if count is None else count
    if not 1 <= count <= len(parts) * PART_SCENES:
        raise UserError(f"{folder}: holds {len(parts) * PART_SCENES} scenes, {count} were asked for")
    images = _images(folder, parts, "image", count, (side, side, 3))
    foreground = _images(folder, parts, "foreground", count, (side, side))
    numbers = [_read_part(part, COLUMNS) for part in parts[: -(-count // PART_SCENES)]]
    columns = {name: np.concatenate([part[name] for part in numbers])[:count] for name in COLUMNS}
    return Scenes(
        images=images,
        foreground=foreground,
        **columns,
        object_names=[body.name for body in catalog.objects],
        receptacle_names=[body.name for body in catalog.receptacles],
        world=own["world"],
        split=own["split"],
    )


def _read_part(part: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads columns of a part; raises `UserError` if it is truncated, or not as `_write_part` writes it."""
    try:
        with np.load(part) as opened:
            found = {name: opened[name] for name in names}
        for name, values in found.items():
            if values.ndim != DIMENSIONS[name] or len(values) != PART_SCENES:
                raise ValueError(f"{name}: does not hold {PART_SCENES} scenes")
    except Exception as error:  # zipfile, zlib and NumPy raise many types
        raise UserError(
            f"{part}: cannot be read ({one_line(error)}); remove it and render again with 'vgb scenes'"
        ) from None
    return found


def _images(folder: Path, parts: list[Path], key: str, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the first `count` images of a column, each of `shape`, mapped from FOLDER/cache."""

    def fill(out: np.ndarray) -> None:
        for number, part in enumerate(parts[: -(-count // PART_SCENES)]):
            first = number * PART_SCENES
            for row, image in enumerate(_read_part(part, [key])[key][: count - first]):
                out[first + row] = image if len(image) == shape[0] else squashed(image, shape[0])

    return cached_images(folder, parts, f"{key}-{shape[0]}", (count, *shape), fill)
