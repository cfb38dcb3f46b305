"""Procedural patterns: pure functions of plane coordinates, shared by tables, overlays and receptacle textures.

Coordinates `u, v` are float arrays of one shape, in any one length unit (metres on a table top, pixels in an overlay);
sizes are in that unit. A pattern returns either a mask or field in [0, 1] of that shape, or RGB with a last axis of 3,
float32 in [0, 1], sRGB-encoded (what a PNG stores). Everything is keyed by explicit seeds: no global random state.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import fft
from scipy.spatial import cKDTree

TILE = 512
"""Side of the periodic noise tiles, in texels."""

CYCLES = 4
"""Repeats of the coarsest noise feature along one tile side."""

SPECTRA = {"fbm": (1.6, 128), "smooth": (1.8, 12), "grain": (0.5, 160)}
"""Noise kind -> (power-law exponent of the amplitude, highest frequency in cycles per tile)."""


def stream(*key: object) -> np.random.Generator:
    """Random generator named by what it is for, such as `stream("newspaper", 3)`."""
    return np.random.default_rng(list("/".join(map(str, key)).encode()))


def rgb(code: str) -> np.ndarray:
    """Colour of a hex code like "c08040", as float32 [3]."""
    return np.frombuffer(bytes.fromhex(code), np.uint8).astype(np.float32) / 255


def ramp(t: np.ndarray, *codes: str) -> np.ndarray:
    """Colour gradient through evenly spaced hex codes; `t` is clipped to [0, 1]."""
    knots = np.stack([rgb(code) for code in codes])
    at = np.linspace(0, len(codes) - 1, 256)
    table = np.stack([np.interp(at, np.arange(len(codes)), channel) for channel in knots.T], -1)
    return table.astype(np.float32)[(np.clip(t, 0, 1) * 255).astype(np.uint8)]


def mix(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Blend of colour `a` (t = 0) into colour `b` (t = 1); `t` has no channel axis."""
    return a + (b - a) * np.asarray(t, np.float32)[..., None]


def step(low: float, high: float, t: np.ndarray) -> np.ndarray:
    """Linear edge: 0 where `t <= low`, 1 where `t >= high`; falls instead when `low > high`."""
    return np.clip((t - low) / (high - low), 0, 1)


def save_png(path: Path, image: np.ndarray) -> None:
    """Writes float RGB [H, W, 3] in [0, 1] as an 8-bit PNG, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_image(image).save(path, compress_level=1)


def to_image(image: np.ndarray) -> Image.Image:
    """8-bit Pillow image of float RGB [H, W, 3] in [0, 1]."""
    return Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))


@lru_cache(maxsize=None)
def _noise_tile(kind: str, seed: int) -> np.ndarray:
    """Periodic noise of a power-law spectrum, mean 0.5, deviation 0.18, clipped to [0, 1]."""
    power, top = SPECTRA[kind]
    frequency = np.hypot(*np.meshgrid(fft.rfftfreq(TILE, 1 / TILE), fft.fftfreq(TILE, 1 / TILE)))
    gain = np.where((frequency >= CYCLES) & (frequency <= top), np.maximum(frequency, 1) ** -power, 0)
    white = stream("noise", kind, seed).standard_normal((TILE, TILE), dtype=np.float32)
    field = fft.irfft2(fft.rfft2(white) * gain, s=(TILE, TILE))
    return np.clip(0.5 + 0.18 * field / field.std(), 0, 1).astype(np.float32)


@lru_cache(maxsize=None)
def _cell_tile(cells: int, seed: int) -> np.ndarray:
    """Periodic Voronoi cells, [TILE, TILE, 3]: nearest and second distance (in cells), and a random value per cell."""
    generator = stream("cells", cells, seed)
    grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(-1, 2)
    sites = (grid + generator.uniform(0.1, 0.9, grid.shape)) % cells
    texel = (np.stack(np.meshgrid(np.arange(TILE), np.arange(TILE)), -1) + 0.5) * cells / TILE
    distance, index = cKDTree(sites, boxsize=cells).query(texel.reshape(-1, 2), k=2)
    field = np.column_stack([distance, generator.random(len(sites))[index[:, 0]]])
    return field.reshape(TILE, TILE, 3).astype(np.float32)


def _wrap(t: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """Texel index of coordinate `t` on a periodic tile, with `scale` texels per unit."""
    return (t * np.float32(scale) + np.float32(shift + 4096 * TILE)).astype(np.int32) & (TILE - 1)


def noise(u: np.ndarray, v: np.ndarray, size: float, seed: int = 0, kind: str = "fbm") -> np.ndarray:
    """Noise field in [0, 1], mean 0.5; `size` is the width of its coarsest feature.

    `kind` is "fbm" (rough at every scale), "smooth" (coarse features only) or "grain" (mostly fine).
    """
    scale = TILE / CYCLES / size
    return _noise_tile(kind, seed % 3)[_wrap(v, scale, 131 * seed), _wrap(u, scale, 197 * seed)]


def cells(u: np.ndarray, v: np.ndarray, size: float, seed: int = 0, per_tile: int = 24) -> tuple[np.ndarray, ...]:
    """Voronoi cells of mean width `size`: distance to the centre, gap to the border (in cells), random value per cell."""
    scale = TILE / per_tile / size
    picked = _cell_tile(per_tile, seed % 2)[_wrap(v, scale, 89 * seed), _wrap(u, scale, 57 * seed)]
    return picked[..., 0], picked[..., 1] - picked[..., 0], picked[..., 2]


def turn(u: np.ndarray, v: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along axes turned counter-clockwise by `degrees`."""
    c, s = np.float32(np.cos(np.radians(degrees))), np.float32(np.sin(np.radians(degrees)))
    return c * u + s * v, c * v - s * u


def hashed(i: np.ndarray, j: np.ndarray, seed: int = 0) -> np.ndarray:
    """Random value in [0, 1] for each integer lattice point, without a visible order."""
    picked = stream("hash", seed).random((64, 64), dtype=np.float32)
    return picked[np.asarray(i, np.int32) & 63, np.asarray(j, np.int32) & 63]


def edge(t: np.ndarray, period: float) -> np.ndarray:
    """Distance to the nearest multiple of `period`."""
    return np.abs(t - period * np.round(t / period))


def grid_lines(u: np.ndarray, v: np.ndarray, period: float, width: float) -> np.ndarray:
    """Mask of a square grid of lines through the multiples of `period`."""
    return (np.minimum(edge(u, period), edge(v, period)) < width / 2).astype(np.float32)


def checks(u: np.ndarray, v: np.ndarray, size: float) -> np.ndarray:
    """Chequer mask: 1 on squares whose indices floor(u / size) and floor(v / size) have an odd sum."""
    return ((np.floor(u / size) + np.floor(v / size)) % 2).astype(np.float32)


def hexagons(u: np.ndarray, v: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hexagon tiling of flat-to-flat width `size`: distance inside the border, offsets (u, v) from the centre, id."""
    a, b = np.float32(size), np.float32(size * 3**0.5)
    near = [((u + s) - a * np.round((u + s) / a), (v + t) - b * np.round((v + t) / b)) for s, t in ((0, 0), (a / 2, b / 2))]
    first = near[0][0] ** 2 + near[0][1] ** 2 < near[1][0] ** 2 + near[1][1] ** 2
    du, dv = (np.where(first, near[0][k], near[1][k]) for k in (0, 1))
    reach = np.maximum(np.abs(du), np.abs(du) / 2 + np.abs(dv) * np.float32(3**0.5 / 2))
    identity = hashed(np.round((u - du) / (a / 2)), np.round((v - dv) / (b / 2)), 5)
    return a / 2 - reach, du, dv, identity


def bricks(u: np.ndarray, v: np.ndarray, length: float, width: float, gap: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Rows of `width` along u, each shifted at random: joint mask, random value per brick, and the brick's row index."""
    row = np.floor(v / width)
    along = u / length + hashed(row, 0 * row, seed) * 7
    joint = np.minimum(edge(along, 1) * length, edge(v, width)) < gap / 2
    return joint.astype(np.float32), hashed(np.floor(along), row, seed + 1), row


def wood(u: np.ndarray, v: np.ndarray, codes: tuple[str, ...], ring: float, seed: int = 0) -> np.ndarray:
    """Wood grain running along u, with growth rings about `ring` wide, coloured through `codes` (light to dark)."""
    bend = noise(u / 6, v, ring * 9, seed, "smooth") + 0.25 * noise(u / 12, v, ring * 3, seed + 1, "smooth")
    rings = (v / ring + bend * 9) % 1
    fibre = noise(u / 16, v, ring * 1.2, seed + 2, "grain")
    return ramp(0.12 + 0.42 * rings**2 + 0.62 * (fibre - 0.3) + 0.35 * (bend - 0.6), *codes)


def planks(u: np.ndarray, v: np.ndarray, codes: tuple[str, ...], length: float, width: float, seed: int = 0) -> np.ndarray:
    """Boards of wood grain along u, each of its own tone and figure, with dark joints."""
    joint, tone, _ = bricks(u, v, length, width, width / 28, seed)
    grain = wood(u + 3 * tone, v + 5 * tone, codes, width / 5, seed)
    return grain * (0.84 + 0.3 * tone - 0.45 * joint)[..., None]


def marble(u: np.ndarray, v: np.ndarray, size: float, base: tuple[str, str], vein: str, seed: int = 0) -> np.ndarray:
    """Cloudy stone crossed by thin branching veins."""
    warp = noise(u, v, size, seed + 1) - 0.5
    field = noise(u + 0.5 * size * warp, v - 0.4 * size * warp, size, seed, "smooth")
    branch = noise(u + 0.3 * size * warp, v, size * 0.55, seed + 2, "smooth")
    veins = np.maximum(step(0.035, 0, np.abs(field - 0.5)), 0.6 * step(0.025, 0, np.abs(branch - 0.5)))
    return mix(ramp(noise(u, v, size, seed + 1), *base), rgb(vein), veins * (0.35 + warp * 1.5).clip(0, 0.8))


def weave(u: np.ndarray, v: np.ndarray, thread: float) -> np.ndarray:
    """Brightness (about 1) of a plain weave: bulging threads, over and under."""
    over = checks(u, v, thread)
    bulge = np.where(over > 0.5, edge(v, thread), edge(u, thread)) / thread
    return 0.86 + 0.28 * bulge + 0.06 * over


def speckle(u: np.ndarray, v: np.ndarray, codes: tuple[str, ...], size: float, seed: int = 0) -> np.ndarray:
    """Fine mottled material (concrete, cork, felt): grain over slow clouds."""
    return ramp(0.7 * noise(u, v, size, seed, "grain") + 0.6 * noise(u, v, size * 9, seed + 1) - 0.15, *codes)


def terrazzo(u: np.ndarray, v: np.ndarray, size: float, base: str, chips: tuple[str, ...], seed: int = 0) -> np.ndarray:
    """Stone chips of random colour and size in a plain binder."""
    _, gap, value = cells(u, v, size, seed)
    kept = step(0.28, 0.32, gap + 0.35 * (value - 0.6))
    palette = np.stack([rgb(code) for code in chips])
    return mix(rgb(base), palette[(value * 997).astype(np.int32) % len(chips)], kept)


def tiles(u: np.ndarray, v: np.ndarray, size: float, joint: float, body: np.ndarray, grout: str,
          seed: int = 0) -> np.ndarray:
    """Square tiles of the colours `body`, each a little lighter or darker, between grout lines `joint` wide."""
    tone = 0.92 + 0.14 * hashed(np.floor(u / size), np.floor(v / size), seed)
    return mix(body * tone[..., None], rgb(grout), grid_lines(u, v, size, joint))


def leather(u: np.ndarray, v: np.ndarray, codes: tuple[str, ...], size: float, seed: int = 0) -> np.ndarray:
    """Pebbled hide: cells with darker creases, over slow changes of tone."""
    near, gap, value = cells(u, v, size, seed)
    return ramp(0.25 + 0.45 * step(0, 0.25, gap) - 0.25 * near + 0.15 * value
                + 0.5 * (noise(u, v, size * 30, seed) - 0.4), *codes)


def grass(u: np.ndarray, v: np.ndarray, codes: tuple[str, ...], size: float, seed: int = 0) -> np.ndarray:
    """Short turf: crossing fine streaks of light and dark."""
    streaks = [noise(*_stretched(u, v, angle, 4), size, seed + k, "grain") for k, angle in enumerate((20, 75, 130))]
    return ramp(np.maximum.reduce(streaks) * 1.5 - 0.65 + 0.3 * (noise(u, v, size * 12, seed) - 0.5), *codes)


def brushed(u: np.ndarray, v: np.ndarray, codes: tuple[str, ...], size: float, seed: int = 0) -> np.ndarray:
    """Metal or slate drawn along u: long fine streaks of brightness."""
    return ramp(0.75 * noise(u / 30, v, size, seed, "grain") + 0.25 * noise(u / 4, v, size * 20, seed), *codes)


def slate(u: np.ndarray, v: np.ndarray, codes: tuple[str, ...], size: float, seed: int = 0) -> np.ndarray:
    """Riven stone: stepped layers whose edges catch the light."""
    field = noise(u / 1.6, v, size, seed) * 5 + noise(u, v, size / 5, seed + 1, "grain") * 0.5
    return ramp(0.35 + 0.1 * np.floor(field) - 0.18 * (field % 1) + 0.25 * step(0.12, 0, field % 1), *codes)


def dots(u: np.ndarray, v: np.ndarray, pitch: float, radius: float) -> np.ndarray:
    """Mask of round dots on a staggered lattice."""
    _, du, dv, _ = hexagons(u, v, pitch)
    return (du**2 + dv**2 < radius**2).astype(np.float32)


def flowers(u: np.ndarray, v: np.ndarray, pitch: float, petals: int = 5) -> tuple[np.ndarray, ...]:
    """Blossoms on a staggered lattice, each turned at random: petal mask, heart mask, leaf mask, value per blossom."""
    _, du, dv, value = hexagons(u, v, pitch)
    radius, angle = np.hypot(du, dv) / pitch, np.arctan2(dv, du) + 6 * value
    petal = radius < 0.20 + 0.085 * np.cos(petals * angle)
    leaf = (radius < 0.30 + 0.13 * np.cos(3 * angle + 1)) & (np.abs(np.sin(1.5 * angle + 0.5)) < 0.33)
    return petal.astype(np.float32), (radius < 0.075).astype(np.float32), leaf.astype(np.float32), value


def _stretched(u: np.ndarray, v: np.ndarray, degrees: float, factor: float) -> tuple[np.ndarray, np.ndarray]:
    along, across = turn(u, v, degrees)
    return along / factor, across
