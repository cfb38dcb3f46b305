"""Camera images at the model's size. Imports nothing heavy: worker processes use it too."""

from __future__ import annotations

import numpy as np
from PIL import Image


def squashed(image: np.ndarray, side: int) -> np.ndarray:
    """Returns uint8 [side, side] or [side, side, 3], as `image_resize_strategy` "resize-naive" makes it."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
