"""Camera images at the model's size. Imports nothing heavy: worker processes use it too."""

from __future__ import annotations

import numpy as np
from PIL import Image


def squashed(image: np.ndarray, side: int) -> np.ndarray:
    """Returns uint8 [side, side] or [side, side, 3], resized like `image_resize_strategy` "resize-naive"."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def shifted(picture: np.ndarray, by: tuple[float, float]) -> np.ndarray:
    """Returns an image [H, W, 3] shifted down and right by whole pixels, repeating the edge.

    Args:
        by: Shifts as fractions of height and width.
    """
    height, width = picture.shape[:2]
    down, right = round(by[0] * height), round(by[1] * width)
    padded = np.pad(picture, ((max(down, 0), max(-down, 0)), (max(right, 0), max(-right, 0)), (0, 0)), mode="edge")
    return padded[max(-down, 0) :, max(-right, 0) :][:height, :width]
