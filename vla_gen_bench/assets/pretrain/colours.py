"""The ten colours used in names, each in three shades (sRGB hex)."""

from __future__ import annotations

import colorsys

import numpy as np

COLOURS = {
    "red": ("c8202a", "e04438", "a3161f"),
    "orange": ("e8761c", "f29238", "d05f10"),
    "yellow": ("ecc21a", "f7d93f", "d8a80c"),
    "green": ("2f9a3c", "57b54a", "1e7330"),
    "blue": ("1f57c4", "3b82e0", "163f96"),
    "purple": ("7a35b0", "9a58cc", "5c2389"),
    "pink": ("e86fa6", "f293bd", "d4508c"),
    "brown": ("7a4a28", "96603a", "5c3519"),
    "black": ("232326", "37373b", "151517"),
    "white": ("e6e4de", "f4f3ef", "d2cfc6"),
}


def darker(code: str, factor: float) -> str:
    """Returns the hex colour `code` multiplied by `factor`, clipped to white."""
    channels = [min(255, round(int(code[place : place + 2], 16) * factor)) for place in (0, 2, 4)]
    return "".join(f"{channel:02x}" for channel in channels)


def drawn(
    random: np.random.Generator, lightness: tuple[float, float], saturation: tuple[float, float] = (0.05, 0.8)
) -> str:
    """Returns a hex colour of any hue with HLS lightness and saturation in the given ranges."""
    hue, light, colourful = random.random(), random.uniform(*lightness), random.uniform(*saturation)
    return "".join(f"{round(255 * channel):02x}" for channel in colorsys.hls_to_rgb(hue, light, colourful))
