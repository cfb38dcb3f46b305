"""The 21 table images: empty tables as the benchmark camera sees them, painted from world coordinates.

Each row of `TABLES` is data (material, outline, surroundings); one renderer turns a row into a 640x480 image by
intersecting every pixel's ray with the table-top plane, so lines on the table have the perspective of rendered objects.
World frame: metres, z up, table top at z = 0.870.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import ImageFilter
from scipy.spatial.transform import Rotation

from vla_gen_bench.assets.builtin import paint

WIDTH, HEIGHT = 640, 480
FOCAL, CENTRE_U, CENTRE_V = 623.588, 319.501, 239.545
"""Pinhole in pixels; pixel column i spans [i, i + 1], as in SAPIEN."""

BASE_POSE = ((0.147, 0.028, 0.870), (0.0, 0.0, 0.0, 1.0))
MOUNT_POSE = ((0.0, -0.16, 0.36), (0.8992917, -0.09263245, 0.35892478, 0.23209205))
"""Robot base in the world, and camera in the robot base: position, quaternion wxyz; camera x forward, y left, z up."""

TOP_Z, FLOOR_Z = 0.870, 0.10
HIDDEN_M = 0.04
"""Distance within the table's outline from which no floor is seen, nor blurred into what is."""
SUBSAMPLES = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))

Material = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Colour [..., 3] at coordinates along the table's own axes, in metres (the world's x and y where `degrees` is 0)."""


@dataclass(frozen=True)
class Table:
    """One table: its top, outline (a rounded rectangle; equal halves and corner make it round) and surroundings."""

    id: str
    material: Material
    edge: str
    floor: Material
    wall: tuple[str, float, float] | None
    """Colour, azimuth in degrees of the direction from the origin to the wall, and its distance (m)."""
    centre: tuple[float, float] = (-0.24, 0.16)
    half: tuple[float, float] = (0.31, 0.38)
    corner: float = 0.01
    degrees: float = 0.0
    thickness: float = 0.025
    gloss: float = 0.1
    rim: float = 0.004
    """Width (m) of the band along the outline painted in the edge colour."""


@dataclass(frozen=True)
class View:
    """A pinhole camera and the size of its image.

    Attributes:
        width, height, focal: Pixels.
        centre: Column and row of the optical axis; pixel column i spans [i, i + 1].
        mount: Position, and quaternion wxyz, in the robot's base.
    """

    width: int = WIDTH
    height: int = HEIGHT
    focal: float = FOCAL
    centre: tuple[float, float] = (CENTRE_U, CENTRE_V)
    mount: tuple[tuple[float, ...], tuple[float, ...]] = MOUNT_POSE

    def scaled(self, width: int) -> View:
        """Returns the same view in an image `width` pixels wide."""
        factor = width / self.width
        u, v = self.centre
        size = {"width": width, "height": round(self.height * factor)}
        return replace(self, focal=self.focal * factor, centre=(u * factor, v * factor), **size)


STANDARD = View()


def camera_pose(view: View = STANDARD) -> tuple[np.ndarray, np.ndarray]:
    """World rotation [3, 3] (columns: forward, left, up) and position [3] of the camera."""
    base, mount = (Rotation.from_quat(q, scalar_first=True) for _, q in (BASE_POSE, view.mount))
    return (base * mount).as_matrix(), np.array(BASE_POSE[0]) + base.apply(view.mount[0])


def project(points: np.ndarray) -> np.ndarray:
    """Pixel coordinates [N, 2] (column, row; continuous) of world points [N, 3]."""
    rotation, position = camera_pose()
    depth, left, up = ((points - position) @ rotation).T
    return np.stack([CENTRE_U - FOCAL * left / depth, CENTRE_V - FOCAL * up / depth], -1)


@lru_cache(maxsize=8)
def _rays(view: View, offset: tuple[float, float]) -> np.ndarray:
    """World ray directions [3, H, W] through the point `offset` of each pixel."""
    across = (view.centre[0] - (np.arange(view.width) + offset[0])) / view.focal
    down = (view.centre[1] - (np.arange(view.height) + offset[1])) / view.focal
    forward, left, up = camera_pose(view)[0].T[..., None, None]  # [3, 1, 1] each
    return ((forward + left * across) + up * down[:, None]).astype(np.float32)


@lru_cache(maxsize=12)
def _plane(view: View, z: float, offset: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """World x and y [H, W] where the pixels' rays meet the horizontal plane at height `z`."""
    return _meet(view, z, _rays(view, offset))


def _meet(view: View, z: float, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World x and y where rays [3, ...] meet the horizontal plane at height `z`."""
    position = camera_pose(view)[1].astype(np.float32)
    reach = (z - position[2]) / ray[2]
    return position[0] + reach * ray[0], position[1] + reach * ray[1]


def distance(table: Table, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (m) from world points of the plane to the table's outline, negative inside."""
    u, v = paint.turn(x - np.float32(table.centre[0]), y - np.float32(table.centre[1]), table.degrees)
    du, dv = np.abs(u) - (table.half[0] - table.corner), np.abs(v) - (table.half[1] - table.corner)
    found, round_corner = np.maximum(du, dv), np.minimum(du, dv) > 0
    found[round_corner] = np.hypot(du[round_corner], dv[round_corner])
    return found - table.corner


def _surroundings(view: View, table: Table, offset: tuple[float, float]) -> np.ndarray:
    """Floor with the table's soft shadow, and wall, slightly out of focus: RGB [H, W, 3]; black where the table hides it.

    Args:
        offset: A subsample, whose rays meet the table's top.
    """
    seen = distance(table, *_plane(view, TOP_Z, offset)) > -HIDDEN_M
    x, y = (axis[seen] for axis in _plane(view, FLOOR_Z, (0.5, 0.5)))
    shadow = 0.45 + 0.55 * paint.step(-0.1, 0.4, distance(table, x, y))
    colours = table.floor(x, y) * shadow[..., None]
    if table.wall is not None:
        _add_wall(view, colours, _rays(view, (0.5, 0.5))[:, seen], x, y, *table.wall)
    image = np.zeros((*seen.shape, 3), colours.dtype)
    image[seen] = colours
    return np.asarray(paint.to_image(image).filter(ImageFilter.BoxBlur(2 * view.width / WIDTH)), np.float32) / 255


def _add_wall(
    view: View, colours: np.ndarray, ray: np.ndarray, x: np.ndarray, y: np.ndarray,
    code: str, azimuth: float, distance: float,
) -> None:  # fmt: skip
    """Paints a vertical wall over `colours` [N, 3] of the floor behind it; rays [3, N] meet the floor at x and y [N]."""
    behind = paint.turn(x, y, azimuth)[0] > distance
    ray, x, y, position = ray[:, behind], x[behind], y[behind], camera_pose(view)[1].astype(np.float32)
    towards, _ = paint.turn(ray[0], ray[1], azimuth)
    reach = (distance - paint.turn(position[0], position[1], azimuth)[0]) / np.where(towards > 1e-6, towards, 1e-6)
    _, along = paint.turn(position[0] + reach * ray[0], position[1] + reach * ray[1], azimuth)
    height = position[2] + reach * ray[2] - FLOOR_Z
    plaster = paint.rgb(code) * (0.95 + 0.1 * paint.noise(along, height, 0.5, 4))[..., None]
    plaster *= (0.62 + 0.38 * paint.step(0, 0.25, height))[..., None]
    skirting = paint.rgb(code) * np.float32(0.55) + np.float32(0.2)
    colours[behind] = np.where((height < 0.07)[..., None], skirting, plaster)


def _table_layer(view: View, table: Table, offset: tuple[float, float], below: np.ndarray) -> np.ndarray:
    """One subsample of the image: top, rim and the visible side of the table over the surroundings."""
    x, y = _plane(view, TOP_Z, offset)
    inside = distance(table, x, y)
    side = inside >= 0
    side[side] = distance(table, *_meet(view, TOP_Z - table.thickness, _rays(view, offset)[:, side])) < 0
    image, top = below.copy(), inside < -table.rim
    pixels, on_top = image.reshape(-1, 3), np.flatnonzero(top)  # indices: faster than masks
    pixels[np.flatnonzero(side)] = paint.rgb(table.edge) * np.float32(0.62)
    pixels[np.flatnonzero((inside < 0) & ~top)] = paint.rgb(table.edge)
    pixels[on_top] = table.material(*paint.turn(x.ravel()[on_top], y.ravel()[on_top], table.degrees))
    return image


def _light(view: View, table: Table, image: np.ndarray) -> np.ndarray:
    """Light falling off across the image, a broad soft reflection, and vignetting; they move with the camera."""
    generator = paint.stream("light", table.id)
    u = np.linspace(-1, 1, view.width, dtype=np.float32)
    v = np.linspace(-1, 1, view.height, dtype=np.float32)[:, None]
    slope, _ = paint.turn(u, v, float(generator.uniform(0, 360)))
    spot = (u - generator.uniform(-0.5, 0.5)) ** 2 + (v - generator.uniform(-0.4, 0.6)) ** 2 * 1.6
    gloss = table.gloss * np.exp(-spot * 2.2)
    shade = (1 + 0.07 * slope) * (1 - 0.09 * (u**2 + v**2))
    return image * shade[..., None] + (gloss.astype(np.float32) * 0.8)[..., None]


def render(
    table: Table, samples: tuple[tuple[float, float], ...] = SUBSAMPLES, view: View = STANDARD
) -> np.ndarray:
    """Returns the image of a table, float RGB [H, W, 3], the mean over `samples` points within each pixel of `view`."""
    below = _surroundings(view, table, samples[0])
    image = _table_layer(view, table, samples[0], below)
    for offset in samples[1:]:
        image += _table_layer(view, table, offset, below)
    return _light(view, table, image / np.float32(len(samples)))


def write_tables(root: Path) -> list[dict]:
    """Writes `root/tables/<id>.png` (640x480 RGB) and returns their pack entries: 16 train, then 5 unseen."""
    entries = []
    for index, table in enumerate(TABLES):
        image = f"tables/{table.id}.png"
        paint.save_png(Path(root) / image, render(table))
        split = "train" if index < TRAIN_COUNT else "unseen"
        entries.append({"id": table.id, "name": table.id.replace("_", " "), "split": split, "image": image})
    forget_rays()
    return entries


def forget_rays() -> None:
    """Frees 50 MB of cached ray tables, which a process needs only once."""
    for cached in (_plane, _rays):
        cached.cache_clear()


def flat(code: str) -> Material:
    """Plastic or paint: one colour with a barely visible texture."""
    return lambda u, v: paint.rgb(code) * (0.95 + 0.05 * paint.noise(u, v, 0.5, 1, "smooth")
                                           + 0.05 * paint.noise(u, v, 0.02, 1, "grain"))[..., None]


def boards(*codes: str, width: float = 0.12, length: float = 0.9, degrees: float = 0.0, seed: int = 0) -> Material:
    """Planks running along the direction `degrees`."""
    return lambda u, v: paint.planks(*paint.turn(u, v, degrees), codes, length, width, seed)


def tablecloth(code: str, other: str, size: float, fold: float = 0.5) -> Material:
    """Checked cloth: full colour where stripes of both directions cross, half where one does."""
    def paint_cloth(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        cover = ((u / size % 1 < fold) + 0.0 + (v / size % 1 < fold)) / 2
        return paint.ramp(cover, other, code) * paint.weave(u, v, 0.004)[..., None]
    return paint_cloth


def stripes(codes: tuple[str, ...], width: float) -> Material:
    """Woven cloth with stripes of the given colours along v."""
    palette = np.stack([paint.rgb(code) for code in codes])
    return lambda u, v: palette[np.floor(u / width).astype(int) % len(codes)] * paint.weave(u, v, 0.004)[..., None]


def cutting_mat(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Green mat with fine lines every 10 mm and bold ones every 50 mm, at the multiples of the axes."""
    felt = paint.speckle(u, v, ("1b6046", "2a7d5c"), 0.01, 2)
    lines = np.maximum(0.30 * paint.grid_lines(u, v, 0.01, 0.0012), 0.85 * paint.grid_lines(u, v, 0.05, 0.0026))
    return paint.mix(felt, paint.rgb("d8e4b0"), lines)


def terracotta(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Hexagonal clay tiles."""
    inside, _, _, value = paint.hexagons(u, v, 0.085)
    clay = paint.speckle(u + value, v, ("9c4a2c", "c8714a"), 0.05, 3) * (0.85 + 0.3 * value)[..., None]
    return paint.mix(paint.rgb("d9c9b2"), clay, paint.step(0.0018, 0.0030, inside))


def floral(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Cream cloth printed with small blossoms."""
    petal, heart, leaf, value = paint.flowers(u, v, 0.062)
    image = paint.mix(paint.rgb("efe4cb"), paint.rgb("5c8a58"), leaf)
    image = paint.mix(image, paint.ramp(value, "c23b5e", "d9628c", "5a62b0"), petal)
    return paint.mix(image, paint.rgb("e8b93c"), heart) * paint.weave(u, v, 0.004)[..., None]


def glass(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Blue-grey frosted glass with the dim mirror image of a bright ceiling."""
    band = paint.step(0.08, 0.1, paint.edge(paint.turn(u, v, 35)[0] - 0.05, 0.62))
    return paint.ramp(0.25 + 0.5 * paint.noise(u, v, 0.8, 5, "smooth") + 0.14 * band, "4d6675", "86a0ac")


def _flagstones(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return paint.tiles(u, v, 0.4, 0.015, paint.speckle(u, v, ("8d8478", "aaa092"), 0.1), "6a6258")


def _style(pattern: Callable, *args, degrees: float = 0.0, **options) -> Material:
    return lambda u, v: pattern(*paint.turn(u, v, degrees), *args, **options)


_PARQUET = boards("b98d5c", "8a5f38", width=0.14, length=1.1, degrees=25, seed=4)
_DARK_FLOOR = boards("6a5140", "3f2f25", width=0.16, length=1.3, degrees=70, seed=5)
_CARPET = _style(paint.speckle, ("5d6068", "868a92"), 0.03)
_SCREED = _style(paint.speckle, ("9a9890", "bcbab2"), 0.12)
_LAWN = _style(paint.grass, ("26461c", "4c7a30", "6f9c48"), 0.06)

TABLES = (
    Table("oak_desk", _style(paint.wood, ("d9b384", "b98a58", "8f6236"), 0.022, degrees=90), "a87b4a", _CARPET,
          ("8f949c", 200, 0.95)),
    Table("blue_plastic_table", flat("4fb4e0"), "3f9cca", _SCREED, ("b9b8ae", 215, 1.25), corner=0.06, gloss=0.16,
          degrees=-4, half=(0.3, 0.34), centre=(-0.23, 0.12)),
    Table("white_laminate_desk", flat("dcdcd8"), "b0a89c", _PARQUET, ("7f98a4", 200, 1.0), degrees=5, gloss=0.08,
          half=(0.25, 0.5), centre=(-0.17, 0.2), thickness=0.035),
    Table("walnut_plank_table", boards("7d5538", "5a3a25", "38231a", width=0.085, degrees=90, seed=2), "3d281c", _SCREED,
          ("d8d2c6", 230, 1.2), degrees=-7, thickness=0.04, half=(0.3, 0.4)),
    Table("marble_table", _style(paint.marble, 0.28, ("d2d0cc", "eceae6"), "6e6e74"), "c9c7c2", _DARK_FLOOR, None,
          centre=(-0.16, 0.0), half=(0.29, 0.29), corner=0.29, gloss=0.12),
    Table("checked_tablecloth", tablecloth("b8262c", "e9e4da", 0.05), "b8262c", _LAWN, None, degrees=12, corner=0.03,
          thickness=0.10, centre=(-0.21, 0.08), half=(0.3, 0.34)),
    Table("cutting_mat_bench", cutting_mat, "1f3d30", _SCREED, ("c4c0b4", 180, 0.9), centre=(-0.19, 0.06),
          half=(0.26, 0.3), corner=0.02, gloss=0.04),
    Table("concrete_bench", _style(paint.speckle, ("7e7d79", "a9a7a1", "bdbbb4"), 0.05, 1), "8f8d88", _DARK_FLOOR,
          ("a8684a", 205, 1.1), thickness=0.06, degrees=3, gloss=0.03,
          half=(0.24, 0.6), centre=(-0.16, 0.3)),
    Table("cork_desk", _style(paint.speckle, ("6f4626", "b98a58", "d8b07e"), 0.007, 2), "a58a6a", _flagstones,
          ("dccfb6", 190, 1.05), degrees=-10, gloss=0.02, half=(0.31, 0.34), centre=(-0.22, 0.1)),
    Table("ceramic_tile_table", lambda u, v: paint.tiles(u, v, 0.075, 0.005, paint.mix(
        paint.rgb("dfe3df"), paint.rgb("3f8f96"), paint.checks(u, v, 0.075)), "8b8f8c"), "5b4a38", _flagstones, None,
          degrees=8, rim=0.022, thickness=0.035, centre=(-0.2, 0.05), half=(0.28, 0.3)),
    Table("striped_cloth_table", stripes(("e8dcc0", "2f5f8a", "e8dcc0", "d08a2e"), 0.03), "2f5f8a", _PARQUET,
          ("cfd6cf", 215, 1.15), degrees=-15, thickness=0.09, half=(0.3, 0.34), centre=(-0.2, 0.06)),
    Table("steel_workbench", _style(paint.brushed, ("868b90", "a9afb4", "c9ced2"), 0.03, degrees=90), "787d82", _CARPET,
          ("4b5661", 200, 1.1), gloss=0.2, thickness=0.045),
    Table("grass_mat_table", _style(paint.grass, ("2f6a20", "57a236", "86c457"), 0.028, 1), "c8a878", _style(
        paint.speckle, ("5a4230", "8a6a4c"), 0.08), None, rim=0.02, thickness=0.04, gloss=0.0, half=(0.29, 0.33),
          centre=(-0.2, 0.1)),
    Table("terrazzo_table", _style(paint.terrazzo, 0.021, "dcd6ca", ("b4553f", "3f5f58", "d8a64a", "6d6a70", "f0ece4")),
          "cfc8ba", _DARK_FLOOR, ("5f7f78", 210, 1.2), centre=(-0.17, 0.0), half=(0.26, 0.26), corner=0.26, gloss=0.1),
    Table("leather_desk", _style(paint.leather, ("3d1d12", "7a4228", "96583a"), 0.0055), "2d1a10", _PARQUET,
          ("3f5a4c", 190, 1.0), rim=0.03, degrees=6, corner=0.03,
          half=(0.28, 0.5), centre=(-0.2, 0.25)),
    Table("pink_laminate_table", flat("e58fa8"), "f0e6e2", _SCREED, ("d8a0b0", 215, 1.1), corner=0.12, gloss=0.12,
          degrees=-6, thickness=0.03, half=(0.28, 0.32), centre=(-0.18, 0.1)),
    Table("glass_table", glass, "9fc4c4", _CARPET, ("4a4c52", 200, 1.15), gloss=0.26, thickness=0.014, degrees=4,
          rim=0.007, half=(0.29, 0.42), centre=(-0.21, 0.2)),
    Table("dotted_fabric_table", lambda u, v: paint.mix(paint.rgb("26345e"), paint.rgb("e8e6dc"), paint.dots(
        u, v, 0.036, 0.0085)) * paint.weave(u, v, 0.004)[..., None], "26345e", _PARQUET, ("c9b48a", 220, 1.2),
          degrees=-12, thickness=0.08, corner=0.04, half=(0.3, 0.34), centre=(-0.2, 0.08)),
    Table("terracotta_table", terracotta, "6a4630", _LAWN, None, rim=0.03, thickness=0.05, degrees=9, gloss=0.05,
          centre=(-0.2, 0.04), half=(0.29, 0.3)),
    Table("slate_table", _style(paint.slate, ("17191c", "33373c", "5a5f66"), 0.16), "202225", _SCREED,
          ("c8c4ba", 205, 1.1), thickness=0.03, gloss=0.07, centre=(-0.17, 0.01), half=(0.31, 0.31), corner=0.31),
    Table("floral_cloth_table", floral, "d9c9a0", _DARK_FLOOR, ("8fa08a", 195, 1.05), degrees=14, thickness=0.09,
          corner=0.05, half=(0.29, 0.33), centre=(-0.2, 0.08)),
)

TRAIN_COUNT = 16


def named(id: str) -> Table:
    """Returns the table with this id."""
    return next(table for table in TABLES if table.id == id)
