"""Image converters, applied equally to every camera before the policy sees the images."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from vla_gen_bench.policies.converters.base import Converter
from vla_gen_bench.protocol import EXTERNAL, Observation

METHODS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class _OfImages(Converter):
    def observe(self, observation: Observation) -> Observation:
        images = {camera: _each(self.change, image) for camera, image in observation.images.items()}
        history = {
            camera: np.stack([_each(self.change, frames[:, n]) for n in range(frames.shape[1])], axis=1)
            for camera, frames in observation.history.items()
        }
        return replace(observation, image=images.pop(EXTERNAL), other_images=images, history=history)

    def change(self, image: np.ndarray) -> np.ndarray:
        """Maps uint8 [H, W, 3] to uint8 [h, w, 3]."""
        raise NotImplementedError


def _each(change: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    return np.stack([change(image) for image in images])


class Resize(_OfImages):
    """Resizes: `resize: {height: 224, width: 224, method: lanczos, pad: true}`.

    Args:
        pad: Keep the aspect ratio, centre and pad with black, as openpi's `resize_with_pad`; otherwise the image is
            stretched to the target's aspect ratio.
    """

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    method: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"
    pad: bool = False

    def change(self, image: np.ndarray) -> np.ndarray:
        if image.shape[:2] == (self.height, self.width):
            return image
        height, width = self.height, self.width
        if self.pad:
            ratio = max(image.shape[1] / width, image.shape[0] / height)
            height, width = int(image.shape[0] / ratio), int(image.shape[1] / ratio)
        small = np.asarray(Image.fromarray(image).resize((width, height), METHODS[self.method]))
        if not self.pad:
            return small
        whole = np.zeros((self.height, self.width, 3), np.uint8)
        top, left = max(0, (self.height - height) // 2), max(0, (self.width - width) // 2)
        whole[top : top + height, left : left + width] = small
        return whole


class Crop(_OfImages):
    """Crops to the centre: `crop: {share: 0.9}` of the area, as OpenVLA's evaluation; sides are rounded to pixels."""

    share: float = Field(gt=0, le=1)

    def change(self, image: np.ndarray) -> np.ndarray:
        height, width = (round(side * self.share**0.5) for side in image.shape[:2])
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        return np.ascontiguousarray(image[top : top + height, left : left + width])


class Jpeg(_OfImages):
    """Encodes and decodes as JPEG, like the training images of Bridge: `jpeg: {quality: 95}`."""

    quality: int = Field(95, ge=1, le=100)

    def change(self, image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=self.quality)
        return np.asarray(Image.open(buffer))
