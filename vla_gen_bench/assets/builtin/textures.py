"""The overlay textures: one neutral image and 16 bold patterns to alpha-blend over the camera image.

A pattern is a function of pixel coordinates (column, row), 640x480, that returns RGB [480, 640, 3].
"""

from pathlib import Path

import numpy as np

from vla_gen_bench.assets.builtin import paint

WIDTH, HEIGHT = 640, 480


def zebra(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Black and white stripes bent by slow noise."""
    bend = paint.noise(u, v, 420, 3, "smooth") * 2.6 + (u + 0.3 * v) / 58
    return paint.ramp(paint.step(-0.12, 0.12, np.sin(2 * np.pi * bend)), "141414", "f2f2ee")


def camouflage(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Four flat greens and browns in blotches."""
    palette = np.stack([paint.rgb(code) for code in ("4b5a32", "8a8454", "33382a", "6b4f33")])
    first, second = paint.noise(u, v, 120, 1, "smooth") > 0.52, paint.noise(u, v, 90, 5, "smooth") > 0.56
    return palette[first + 2 * second]


def confetti(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bright paper scraps, each turned its own way, on white."""
    near, _, value = paint.cells(u, v, 26, 2)
    palette = np.stack([paint.rgb(code) for code in ("e8383d", "2f7fd6", "f3c623", "35a853", "a64ac9", "f2711c")])
    scraps = palette[(value * 997).astype(np.int32) % len(palette)]
    return paint.mix(paint.rgb("f4f2ec"), scraps, paint.step(0.36, 0.30, near))


def plasma(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Smooth interfering waves through saturated colours."""
    t = np.sin(u / 37) + np.sin((u * 0.6 + v) / 51) + np.sin(np.hypot(u - 320, v - 140) / 33) + np.sin(v / 44)
    return paint.ramp((t + 4) / 8, "2b0a6b", "d01c8b", "ffb000", "17c3b2", "2b0a6b", "f25f5c")


def brick_wall(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Red bricks with light mortar."""
    joint, tone, _ = paint.bricks(u, v, 84, 34, 6, 1)
    clay = paint.speckle(u, v, ("8a3324", "b5523b", "c97355"), 20, 1) * (0.8 + 0.35 * tone)[..., None]
    return paint.mix(clay, paint.rgb("cfc7ba"), joint)


def zigzag(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Chevrons in four colours."""
    palette = np.stack([paint.rgb(code) for code in ("f4d35e", "ee964b", "f95738", "0d3b66")])
    return palette[((v + paint.edge(u, 80) * 1.1) / 26).astype(np.int32) % 4]


def colour_noise(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Noise at three scales: clouds in each colour channel, 10-pixel squares, and single-pixel grain."""
    clouds = paint.step(0.2, 0.8, np.stack([paint.noise(u, v, 140, seed) for seed in (1, 2, 3)], -1))
    blocks = np.stack([paint.hashed(v // 10, u // 10, seed) for seed in (11, 12, 13)], -1)
    grain = paint.noise(u, v, 9, 2, "grain")[..., None] - 0.5
    return 0.55 * clouds + 0.45 * blocks + 0.4 * grain


def honeycomb(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Amber cells with dark walls."""
    inside, _, _, value = paint.hexagons(u, v, 46)
    comb = paint.ramp(0.3 + 0.5 * value + 0.02 * inside, "a85c00", "f0a818", "ffe08a")
    return paint.mix(paint.rgb("3a2405"), comb, paint.step(1.5, 4, inside))


def moire(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Two families of rings beating against each other."""
    waves = [np.sin(np.hypot(u - x, v - y) / 4.2) for x, y in ((250, 200), (400, 290))]
    return paint.ramp((waves[0] * waves[1] + 1) / 2, "0b132b", "5bc0be", "f7fff7")


def plaid(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Tartan: crossing bands of red, green and dark blue with yellow lines."""
    def bands(t: np.ndarray) -> np.ndarray:
        sett = np.repeat(np.array([0, 1, 0, 2, 0, 3, 0]), (34, 14, 8, 26, 8, 3, 7))
        palette = np.stack([paint.rgb(code) for code in ("b3202a", "1d5c3a", "1b2a57", "f2d13c")])
        return palette[sett[t.astype(np.int32) % len(sett)]]
    twill = ((u + v) // 2 % 2)[..., None]
    return bands(u) * (0.35 + 0.3 * twill) + bands(v) * (0.65 - 0.3 * twill)


def bubbles(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Soap bubbles: bright rims and highlights on deep blue."""
    near, _, value = paint.cells(u, v, 58, 1)
    size = 0.22 + 0.2 * value
    body = paint.ramp(near / size, "2f6db5", "58b4d9", "e6fbff") * paint.step(0, 0.03, size - near)[..., None]
    return paint.mix(paint.rgb("102a5c"), body, paint.step(0, 0.03, size - near))


def circuit(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Green board with copper tracks along a lattice, and round pads at some crossings."""
    i, j = np.round(u / 20), np.round(v / 20)
    du, dv = u - 20 * i, v - 20 * j
    across = (np.abs(dv) < 2.6) & (paint.hashed(np.floor(u / 20), j, 21) < 0.55)
    down = (np.abs(du) < 2.6) & (paint.hashed(i, np.floor(v / 20), 22) < 0.4)
    radius, pad = np.hypot(du, dv), paint.hashed(i, j, 23) < 0.35
    copper = (across | down | (pad & (radius < 7))) & ~(pad & (radius < 2.8))
    return paint.mix(paint.speckle(u, v, ("0b4a2a", "12683b"), 30), paint.rgb("e0b64d"), copper)


def fire(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Flames rising from the bottom edge."""
    lick = paint.noise(u, v * 0.45 + 60 * paint.noise(u, v, 120, 2), 120, 4)
    return paint.ramp(lick * 1.1 + v / 480 - 0.55, "160302", "8f1402", "f0560c", "fdb827", "fff3b0")


def caustics(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Net of light at the bottom of a pool."""
    warp = 40 * (paint.noise(u, v, 110, 3, "smooth") - 0.5)
    nets = [paint.cells(u + warp, v - warp, size, seed)[1] for size, seed in ((64, 1), (90, 2))]
    return paint.ramp(0.75 * np.exp(-7 * nets[0]) + 0.5 * np.exp(-6 * nets[1]), "06679c", "17a3c4", "8fe9ee", "fbffff")


def leopard(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Broken dark rosettes on tawny fur."""
    warp = 22 * (paint.noise(u, v, 60, 4) - 0.5)
    near, _, value = paint.cells(u + warp, v - warp, 46, 3)
    rosette = (np.abs(near - 0.27) < 0.1) & (paint.noise(u, v, 46, 7, "smooth") < 0.6)
    fur = paint.mix(paint.speckle(u, v, ("c98a3c", "e6b871"), 24), paint.rgb("a9662a"), near < 0.2 + 0.05 * value)
    return paint.mix(fur, paint.rgb("24150c"), rosette)


def newsprint(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Columns of blocky glyphs on yellowed paper, with headline rows."""
    line = v // 12
    tall = paint.hashed(line // 6, 0 * line, 31) < 0.25
    size = np.where(tall, 5, 2)
    ink = (paint.hashed(v // size, u // size, 32) < 0.52) & (paint.hashed(line, u // 9, 33) < 0.8)
    gap = (v % 12 < np.where(tall, 1, 4)) | (u % 128 < 12)
    return paint.mix(paint.rgb("e9e2cf"), paint.rgb("1c1a18"), ink & ~gap)


PATTERNS = (zebra, camouflage, confetti, plasma, brick_wall, zigzag, colour_noise, honeycomb, moire, plaid,
            bubbles, circuit, fire, caustics, leopard, newsprint)


def write_textures(root: Path) -> list[dict]:
    """Writes `root/textures/<id>.png` (640x480 RGB) and returns the pack entries: "neutral" (train), then 16 unseen.

    `mix` is 1.0 for a pattern and 0.0 for the neutral image, which must never be blended in.
    """
    u, v = np.meshgrid(np.arange(WIDTH, dtype=np.float32), np.arange(HEIGHT, dtype=np.float32))
    images = {"neutral": np.full((HEIGHT, WIDTH, 3), 0.5)} | {pattern.__name__: pattern(u, v) for pattern in PATTERNS}
    return [_write(Path(root), name, image) for name, image in images.items()]


def _write(root: Path, name: str, image: np.ndarray) -> dict:
    path = f"textures/{name}.png"
    paint.save_png(root / path, image)
    seen = name == "neutral"
    return {"id": name, "name": name.replace("_", " "), "split": "train" if seen else "unseen",
            "mix": 0.0 if seen else 1.0, "image": path}
