"""The 17 receptacles: flat bodies to put objects on. One plate for training, 16 others unseen.

A receptacle is an outline extruded through a few (scale, height) steps and painted from above. Sizes in millimetres.
Actor frame: z up, origin at the plan centre of the bottom. Seen from the benchmark camera +y runs to the right and +x
towards the viewer, so art functions take (r, d): millimetres right (y) and down (x) of the centre.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vla_gen_bench.assets.builtin import meshkit, paint

TEXTURE = 128
"""Side of a receptacle's texture in texels; art is drawn at three times this and averaged."""

Art = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Receptacle:
    """Shape and look of one receptacle; `steps` are (scale of the outline, z in mm), bottom to the resting surface."""

    id: str
    art: Art
    outline: np.ndarray
    steps: tuple[tuple[float, float], ...]
    mass: float
    """Kilograms; heavy for its size, so that a bump does not push it away."""
    tray: bool = False
    """Whether the rim of a rectangular outline also collides."""
    handle: float = 0.0
    """Length in mm of a pan's handle, which points to the viewer's right."""
    roughness: float = 0.8


def disc(diameter: float) -> np.ndarray:
    """Circle of 32 corners."""
    return meshkit.ring(32)[:-1] * diameter / 2


def sheet(right: float, down: float, corner: float = 1.5) -> np.ndarray:
    """Rectangle with rounded corners, counter-clockwise in (x, y); `right` runs along y, `down` along x."""
    angles = np.radians(np.arange(4)[:, None] * 90 + np.array([0, 30, 60, 90]))
    signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])[:, None]
    arcs = signs * (np.array([down, right]) / 2 - corner) + corner * np.stack([np.cos(angles), np.sin(angles)], -1)
    return arcs.reshape(-1, 2)


def slab(height: float, soft: float = 0.02) -> tuple[tuple[float, float], ...]:
    """Steps of a plain sheet with slightly broken edges."""
    return (1 - soft, 0.0), (1.0, height * 0.3), (1.0, height * 0.75), (1 - soft, height)


def plate(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """White china with a blue band and a thin blue line."""
    radius = np.hypot(r, d)
    blue = (np.abs(radius - 50) < 3.6) | (np.abs(radius - 36) < 0.7)
    return paint.mix(paint.rgb("cdcdc8"), paint.rgb("2f56a8"), blue)


def towel(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Folded terry towel: stripes across both ends and the lines of the folds."""
    cloth = paint.speckle(r, d, ("3f8f9a", "6dbcc4"), 3, 1)
    ends = (np.abs(np.abs(r) - 40) < 5) & (np.abs(np.abs(r) - 40) > 1.5)
    folds = paint.step(1.6, 0.4, np.minimum(np.abs(d - 13), np.abs(d + 18)))
    return paint.mix(paint.mix(cloth, paint.rgb("eef0e6"), ends), paint.rgb("27616b"), 0.7 * folds)


def carpet(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Oriental rug: bordered field, lattice of small motifs, diamond medallion, fringe at the short ends."""
    inset = np.minimum(58 - np.abs(r), 41 - np.abs(d))
    field = paint.mix(paint.rgb("9c2430"), paint.rgb("d9a441"), paint.dots(r, d, 9, 1.5))
    image = paint.mix(paint.rgb("1f2f5c"), field, inset > 13)
    motifs = (paint.dots(r, d, 7, 1.8) > 0) & (inset < 10)
    image = paint.mix(image, paint.rgb("e3c68a"), motifs | (np.abs(inset - 11.5) < 1.4))
    diamond = np.abs(r) / 30 + np.abs(d) / 22
    image = paint.mix(image, paint.ramp(1 - diamond, "1f2f5c", "e3c68a", "1f2f5c", "b8323c"), diamond < 1)
    return paint.mix(image, paint.mix(paint.rgb("e8dcc0"), paint.rgb("8a7a60"), d % 3 < 1), np.abs(r) > 54)


_MASTHEAD = ("#...#.#####.#...#..####", "##..#.#.....#...#.#....", "#.#.#.####..#.#.#..###.",
             "#..##.#.....##.##.....#", "#...#.#####.#...#.####.")


def newspaper(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Front page: masthead, headline, a photograph and three columns of text."""
    glyphs = np.array([[mark == "#" for mark in row] for row in _MASTHEAD])
    column, row = np.floor((r + 34.5) / 3).astype(int), np.floor((d + 52) / 3).astype(int)
    title = glyphs[row.clip(0, 4), column.clip(0, 22)] & (column >= 0) & (column < 23) & (row >= 0) & (row < 5)
    words = paint.hashed(np.floor(r / 2.3), np.floor(d / 3.2), 3) < 0.86
    text = (d % 3.2 < 1.5) & words & (d > -21) & (d < 53) & (np.abs(r) < 37) & (np.abs(np.abs(r) - 12.5) > 1.5)
    headline = (np.abs(d + 27.5) < 2.2) & (np.abs(r) < 33) & (paint.hashed(np.floor(r / 4), 0 * d, 5) < 0.88)
    photo = (np.abs(r) < 12) & (d > -17) & (d < 8)
    ink = title | headline | (text & ~photo) | (np.abs(d + 34) < 0.7)
    page = paint.mix(paint.rgb("d8d4c8"), paint.rgb("24221f"), ink)
    return paint.mix(page, paint.ramp(paint.noise(r, d, 14, 2), "3a3936", "a8a59c"), photo)


def metal_tray(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Brushed steel with a bright rim and a dark line around the floor."""
    inset = np.minimum(59 - np.abs(r), 44 - np.abs(d))
    steel = paint.brushed(r, d, ("83888d", "a8adb1", "c3c7ca"), 6, 1)
    return paint.mix(paint.mix(paint.rgb("d2d5d7"), paint.rgb("6a6f74"), inset > 3), steel, inset > 6.5)


def drawing_tablet(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Black tablet: grey drawing area with corner marks and a dot grid, and a column of keys."""
    x, y = np.abs(r - 9), np.abs(d)
    marks = ((x > 34) & (np.abs(y - 28) < 0.9)) | ((y > 22) & (np.abs(x - 40) < 0.9))
    image = paint.mix(paint.rgb("1e2023"), paint.rgb("4b5058"), (x < 44) & (y < 33))
    keys = (np.abs(r + 48) < 4) & (np.abs(paint.edge(d, 11)) < 4) & (y < 27)
    image = paint.mix(image, paint.rgb("c8ccd2"), marks & (x < 41) & (y < 29))
    image = paint.mix(image, paint.rgb("8a9098"), paint.dots(r, d, 10, 0.9) * ((x < 36) & (y < 24)))
    return paint.mix(image, paint.mix(paint.rgb("6a7078"), paint.rgb("3fa9f5"), y < 5), keys)


def _scatter(r: np.ndarray, d: np.ndarray, key: str, count: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest of `count` spread-out points within `reach`, and which point that is."""
    turn = paint.stream(key).uniform(0, 6.28) + np.arange(count) * 2.39996
    far = reach * np.sqrt((np.arange(count) + 0.5) / count)
    distance = np.stack([np.hypot(r - a * np.cos(t), d - a * np.sin(t)) for a, t in zip(far, turn)])
    return distance.min(0), distance.argmin(0)


def pizza(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Baked crust, sauce showing at the edge, mottled cheese, salami, basil and olives."""
    radius = np.hypot(r, d) + 3 * (paint.noise(r, d, 14, 1) - 0.5)
    image = paint.mix(paint.speckle(r, d, ("8a5526", "c98d48", "dfb070"), 8, 1), paint.rgb("b3321c"), radius < 49)
    cheese = paint.ramp(paint.noise(r, d, 12, 2), "d98a2b", "eebb4e", "f0d588")
    image = paint.mix(image, cheese, radius < 46.5)
    salami, _ = _scatter(r, d, "salami", 9, 40)
    image = paint.mix(image, paint.ramp(paint.noise(r, d, 5, 3), "8f1d17", "c23a2a"), salami < 7.6)
    leaf, which = _scatter(r, d, "basil", 13, 43)
    return paint.mix(image, paint.ramp(which % 3 / 2, "2f6b26", "3f8a33", "26221f"), leaf < 2.7)


def flat_bowl(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Glazed stoneware: green wall, cream floor with a spiral, brown lip."""
    radius = np.hypot(r, d)
    spiral = np.abs((radius - 4 * np.arctan2(r, d) / np.pi) % 8 - 4) < 0.9
    glaze = paint.ramp(0.3 * paint.noise(r, d, 16, 3) + (radius - 37) / 26 - 0.1, "1f5546", "3f8a6e", "6fb598")
    image = paint.mix(glaze, paint.mix(paint.rgb("d9cba8"), paint.rgb("8a6a44"), spiral), radius < 37)
    return paint.mix(image, paint.rgb("6e4526"), radius > 56)


def vinyl_record(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Black grooves with gaps between the tracks and two sheens, orange label, spindle hole."""
    radius, angle = np.hypot(r, d), np.arctan2(d, r)
    sheen = 0.5 * np.maximum(np.cos(2 * (angle - 0.7)), 0) ** 8
    groove = 0.10 + 0.06 * (radius % 2.4 < 1.2) - 0.07 * (radius % 11 < 0.9)
    image = np.repeat(((groove + sheen * 0.6) * 0.9)[..., None], 3, -1)
    print_lines = (np.abs(radius - 16) < 1.2) | ((np.abs(d - 8) < 1.2) & (np.abs(r) < 9))
    label = paint.mix(paint.rgb("d9542b"), paint.rgb("f0d9a0"), print_lines)
    return paint.mix(paint.mix(image, label, radius < 20), paint.rgb("101010"), (radius < 2.4) | (np.abs(radius - 21) < 1))


def frying_pan(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Dark coated pan with a steel lip, and a red handle; the pan's centre is left of the origin."""
    radius = np.hypot(r + 18, d)
    coat = paint.ramp(0.5 + 0.25 * np.cos(radius * 1.2) + 0.3 * (paint.noise(r, d, 6, 1, "grain") - 0.5), "232428", "45474d")
    pan = paint.mix(paint.mix(coat, paint.rgb("1a1b1d"), np.abs(radius - 35) < 1.2), paint.rgb("a3a6aa"), radius > 42)
    handle = paint.mix(paint.rgb("b3282a"), paint.rgb("d8d8d8"), (np.hypot(r - 56, d) < 2) | (r < 31))
    return paint.mix(pan, handle, radius > 45.5)


def mouse_pad(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Night sky from blue to violet over two dark mountain ridges, orange stitched edge."""
    inset = np.minimum(56 - np.abs(r), 46 - np.abs(d))
    image = paint.ramp(0.5 - d / 92, "d0567a", "7a3fb0", "24409c", "14205c")
    image = paint.mix(image, paint.rgb("f2d9a0"), np.hypot(r - 22, d + 16) < 9)
    image = paint.mix(image, paint.rgb("2c2f6e"), d > paint.edge(r + 8, 38) * 1.2 - 4)
    image = paint.mix(image, paint.rgb("171a3c"), d > paint.edge(r - 12, 50) * 0.9 + 14)
    return paint.mix(image, paint.mix(paint.rgb("f08a2c"), paint.rgb("1a1a22"), (r + d) % 4 < 1.6), inset < 3)


def cutting_board(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Glued strips of maple and walnut, a juice groove, and a hole to hang it by."""
    inset = np.minimum(61 - np.abs(r), 42 - np.abs(d))
    board = paint.planks(r + 70, d, ("dcb27c", "c08f56", "9c6a38"), 300, 12, 3)
    board = paint.mix(board, paint.wood(r, d, ("8a5a36", "6a4025"), 4, 2), np.abs(np.abs(d) - 30) < 6)
    board = paint.mix(board, paint.rgb("5f3d20"), np.abs(inset - 6.5) < 1.1)
    return paint.mix(board, paint.rgb("2a1a10"), np.hypot(r - 46, d) < 5)


def chess_board(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Eight by eight squares of 12 mm in a walnut frame."""
    squares = paint.mix(paint.rgb("e6cfa4"), paint.rgb("5a3620"), paint.checks(r, d, 12))
    grain = 0.88 + 0.24 * paint.noise(r / 8, d, 4, 2, "grain")
    frame = paint.mix(paint.rgb("7a4a2a"), paint.rgb("c9a060"), np.maximum(np.abs(r), np.abs(d)) < 49.3)
    return paint.mix(frame, squares, np.maximum(np.abs(r), np.abs(d)) < 48) * grain[..., None]


def manhole_cover(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Cast iron: raised checks, rings, spokes and two keyholes."""
    radius, angle = np.hypot(r, d), np.arctan2(d, r)
    bumps = (paint.edge(r + d, 8) > 1.4) & (paint.edge(r - d, 8) > 1.4)
    spokes = (np.abs(np.sin(8 * angle)) * radius > 60 * 0.35) & (radius > 37)
    raised = np.where(radius < 34, bumps, spokes) | (np.abs(radius - 35.5) < 1.6) | (radius > 52)
    iron = paint.mix(paint.rgb("34343a"), paint.rgb("77777c"), raised)
    iron = paint.mix(iron, paint.rgb("8a5a3c"), 0.7 * paint.step(0.55, 0.8, paint.noise(r, d, 24, 2)))
    return paint.mix(iron, paint.rgb("121214"), np.hypot(np.abs(r) - 26, d) < 3.4)


def envelope(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Airmail envelope from behind: striped border, flap lines and a red seal."""
    inset = np.minimum(60 - np.abs(r), 41 - np.abs(d))
    paper = paint.mix(paint.rgb("ddd3bb"), paint.rgb("cdbf9f"), (d < 4 - np.abs(r) * 0.72))
    lines = (np.abs(d - 4 + np.abs(r) * 0.72) < 1.0) | ((np.abs(d - np.abs(r) * 0.6 - 3) < 0.6) & (np.abs(r) > 8))
    image = paint.mix(paper, paint.rgb("7d7054"), lines)
    border = np.stack([paint.rgb(code) for code in ("c8323c", "e8e2d2", "2f4f9a", "e8e2d2")])
    image = np.where((inset < 4.5)[..., None], border[np.floor((r + d) / 5).astype(int) % 4], image)
    return paint.mix(image, paint.ramp(np.hypot(r, d - 2) / 8, "a01c22", "c8343a"), np.hypot(r, d - 2) < 8)


def notepad(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Yellow ruled pad: red margin, dark binding along the top with wire loops."""
    image = paint.mix(paint.rgb("ecd968"), paint.rgb("6f93bd"), (paint.edge(d, 7) < 0.7) & (d > -36))
    image = paint.mix(image, paint.rgb("cf4436"), np.abs(r + 27) < 0.7)
    image = paint.mix(image, paint.rgb("2a3340"), d < -47)
    return paint.mix(image, paint.rgb("c9ced4"), (paint.edge(r, 6) < 1.3) & (d < -42))


def tomato_slice(r: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Skin, flesh, five chambers of jelly with seeds, pale core."""
    radius, angle = np.hypot(r, d), np.arctan2(d, r)
    flesh = paint.ramp(paint.noise(r, d, 14, 2) * 0.6 + radius / 120, "e8785c", "d94a34", "c22f22")
    chamber = (np.abs(radius - 26) < 11 - 6 * np.abs(np.sin(2.5 * angle)) ** 3) & (np.abs(np.sin(2.5 * angle)) < 0.86)
    seeds, _ = _scatter(r, d, "seeds", 60, 38)
    jelly = paint.mix(paint.rgb("c8601e"), paint.rgb("f0d890"), seeds < 1.5)
    image = paint.mix(paint.mix(flesh, jelly, chamber), paint.rgb("efb49a"), radius < 8 + 2 * np.cos(5 * angle))
    return paint.mix(image, paint.rgb("a81a16"), radius > 46.5)


RECEPTACLES = (
    Receptacle("plate", plate, disc(110), ((0.68, 0), (0.85, 1.5), (1.0, 5.2), (0.99, 6), (0.95, 5.7), (0.74, 4)), 0.15),
    Receptacle("towel", towel, sheet(112, 88, 5), slab(9, 0.035), 0.2),
    Receptacle("carpet", carpet, sheet(116, 82), slab(4), 0.2),
    Receptacle("newspaper", newspaper, sheet(84, 116), slab(4), 0.18),
    Receptacle("metal_tray", metal_tray, sheet(118, 88, 8),
               ((0.90, 0), (0.97, 6.2), (1.0, 7), (0.98, 7.2), (0.95, 7), (0.88, 2)), 0.16, tray=True, roughness=0.5),
    Receptacle("drawing_tablet", drawing_tablet, sheet(122, 80, 6), slab(6), 0.22),
    Receptacle("pizza", pizza, disc(116), ((0.94, 0), (1.0, 3), (0.98, 8), (0.92, 8.6), (0.84, 5.5)), 0.2),
    Receptacle("flat_bowl", flat_bowl, disc(118), ((0.52, 0), (0.70, 2), (1.0, 11), (0.97, 12), (0.94, 11.4), (0.62, 5)),
               0.2),
    Receptacle("vinyl_record", vinyl_record, disc(120), slab(3, 0.008), 0.2, roughness=0.5),
    Receptacle("frying_pan", frying_pan, disc(90), ((0.78, 0), (1.0, 9.5), (1.0, 10.5), (0.95, 10.2), (0.82, 4.5)), 0.15,
               handle=36),
    Receptacle("mouse_pad", mouse_pad, sheet(112, 92, 5), slab(3.5, 0.01), 0.2),
    Receptacle("cutting_board", cutting_board, sheet(122, 84, 9), slab(9), 0.24),
    Receptacle("chess_board", chess_board, sheet(108, 108), slab(8, 0.01), 0.24),
    Receptacle("manhole_cover", manhole_cover, disc(112), slab(8), 0.28, roughness=0.6),
    Receptacle("envelope", envelope, sheet(120, 82, 1), slab(2.7, 0.01), 0.15),
    Receptacle("notepad", notepad, sheet(84, 118), slab(7, 0.01), 0.2),
    Receptacle("tomato_slice", tomato_slice, disc(100), slab(9, 0.06), 0.18),
)


def _meshes(item: Receptacle) -> list[meshkit.Mesh]:
    """Body and handle in millimetres, centred, textured by looking down."""
    meshes = [meshkit.extrude(item.outline, item.steps)]
    if item.handle:
        meshes.append(meshkit.box((13, item.handle + 4, 5), 1.5).moved(y=45 - 2 + item.handle / 2, z=7.5))
        meshes = [mesh.moved(y=-item.handle / 2) for mesh in meshes]
    low, high = meshkit.bounds(meshes)
    return [replace(mesh, uv=(mesh.vertices[:, :2] - low[:2]) / (high - low)[:2] * (1, -1) + (0, 1)) for mesh in meshes]


def _texture(item: Receptacle, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Art seen from above, 0..255; columns follow +x and rows -y over the bounding box."""
    side = TEXTURE * 3
    x, y = np.meshgrid(np.linspace(low[0], high[0], side), np.linspace(high[1], low[1], side))
    image = item.art(y.astype(np.float32), x.astype(np.float32))
    return np.clip(image, 0, 0.86).reshape(TEXTURE, 3, TEXTURE, 3, 3).mean((1, 3)) * 255


def _collision(item: Receptacle) -> list[np.ndarray]:
    """Convex pieces in millimetres: the body up to the resting surface, then a tray's rims or a pan's handle."""
    top, widest = item.steps[-1][1], max(scale for scale, _ in item.steps)
    bottom, upper = item.outline * item.steps[0][0], item.outline * (item.steps[-1][0] if item.tray else widest)
    body = np.concatenate([np.insert(bottom, 2, 0, 1), np.insert(upper, 2, top, 1)])
    if item.handle:
        grip = meshkit.box((13, item.handle, 5)).vertices + (0, 45, 7.5)
        return [body - (0, item.handle / 2, 0), grip]
    return [body, *(_rims(item) if item.tray else [])]


def _rims(item: Receptacle) -> list[np.ndarray]:
    """Four bars around a tray, between its floor's edge and its outline."""
    (x, y), height = item.outline.max(0), max(z for _, z in item.steps)
    inner = item.steps[-1][0]
    long = meshkit.box((x * (1 - inner), 2 * y * inner, height)).vertices + (0, 0, height / 2)
    wide = meshkit.box((2 * x * inner, y * (1 - inner), height)).vertices + (0, 0, height / 2)
    return ([long + (sign * x * (1 + inner) / 2, 0, 0) for sign in (-1, 1)]
            + [wide + (0, sign * y * (1 + inner) / 2, 0) for sign in (-1, 1)])


def write_receptacle(root: Path, item: Receptacle, split: str) -> dict:
    """Writes one receptacle and returns its entry, see `write_receptacles`."""
    folder, meshes, atlas = f"receptacles/{item.id}", _meshes(item), meshkit.Atlas(TEXTURE)
    (root / folder).mkdir(parents=True, exist_ok=True)
    region = atlas.add(_texture(item, *meshkit.bounds(meshes)))
    meshkit.write_glb(root / folder / "visual.glb", [mesh.painted(region) for mesh in meshes], atlas, 1e-3, item.roughness)
    volume = meshkit.write_collision(root / folder / "collision.obj", _collision(item), 1e-3)
    low, high = meshkit.bounds(meshes, 1e-3)
    return {"id": item.id, "name": item.id.replace("_", " "), "split": split,
            "density": round(item.mass / volume), "bbox_min": (low.round(5) + 0.0).tolist(),
            "bbox_max": (high.round(5) + 0.0).tolist(), "visual": f"{folder}/visual.glb",
            "collision": f"{folder}/collision.obj"}


def write_receptacles(root: Path) -> list[dict]:
    """Writes `root/receptacles/<id>/{visual.glb, collision.obj}` and returns the pack entries, the train plate first.

    `bbox_min` and `bbox_max` are of the visual in the actor frame, in metres; `density` (kg/m^3)
    gives the mass in `RECEPTACLES`.
    """
    return [write_receptacle(Path(root), item, "unseen" if place else "train") for place, item in enumerate(RECEPTACLES)]
