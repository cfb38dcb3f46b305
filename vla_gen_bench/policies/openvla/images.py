"""Converts camera images to normalised pixels: three ways to make them square, and two computations.

Strategies (`image_resize_strategy`), as prismatic's image processor has them:

* "resize-naive": resized, the aspect ratio is not kept (all published OpenVLA models);
* "letterbox": padded to a square with the mean colour first;
* "resize-crop": the shorter side is scaled, then the centre is cut out.

Computations (`image_path`):

* "pil": on 8-bit images, with Pillow's bicubic filter, as openvla; results are 8-bit before normalisation.
* "tensor": bicubic with antialiasing on float32 pixels, neither rounded nor clamped, so values may exceed
  0 to 255. "tensor-bf16": the same with bfloat16 before and after, as RL4VLA trained and evaluated.
  It differs from "pil" by up to 0.03 in normalised units.

Checkpoints trained with random crops (openvla's `--image_aug`) are evaluated on the central nine tenths of the square,
resized back to the full size (`center_crop`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vla_gen_bench.errors import UserError
from vla_gen_bench.policies.openvla.config import ImagePath, OpenVLAConfig, ViTConfig

# mean, std of RGB in [0, 1]: ImageNet's for DINOv2, 0.5 for SigLIP (their timm data configs).
PIXEL_RANGES = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


CROPPED_AREA = 0.9  # the smallest random crop of openvla's training


def to_pixels(images: Any, config: OpenVLAConfig, path: ImagePath = "pil", center_crop: bool = False) -> Tensor:
    """Returns [B, 6, image, image]: each tower's normalisation of the same image, the first tower's channels first.

    Args:
        images: uint8 [B, H, W, 3], RGB, any H and W.
        path: See the module. "tensor-bf16" gives bfloat16, the others float32.
        center_crop: See the module; path "pil" only.

    Raises:
        UserError: A wrong dtype or shape; a crop on a path other than "pil".
    """
    check_images(images)
    if path == "pil":
        return torch.from_numpy(np.stack([_pil_pixels(image, config, center_crop) for image in images]))
    if center_crop:
        raise UserError(f"center_crop: made for image_path pil, not {path}")
    return _tensor_pixels(torch.from_numpy(np.ascontiguousarray(images)), config, path)


def check_images(images: Any) -> None:
    """Raises `UserError` unless `images` is uint8 [B, H, W, 3]."""
    expected = "expected a numpy array, uint8 [B, H, W, 3]"
    if not isinstance(images, np.ndarray):
        raise UserError(f"image: got {type(images).__name__}; {expected}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise UserError(f"image: got {images.dtype} {list(images.shape)}; {expected}")


def _pil_pixels(image: np.ndarray, config: OpenVLAConfig, center_crop: bool) -> np.ndarray:
    square = np.asarray(_square(Image.fromarray(image), config))
    if center_crop:
        square = centre_cropped(square)
    square = square.astype(np.float32) / np.float32(255)  # [S, S, 3] in [0, 1]
    channels = [(square - mean) / std for mean, std in map(_range, config.vision)]
    return np.concatenate(channels, axis=2).transpose(2, 0, 1)


def _square(image: Image.Image, config: OpenVLAConfig) -> Image.Image:
    side = config.image
    if config.resize == "resize-naive":
        return image.resize((side, side), Image.Resampling.BICUBIC)
    if config.resize == "letterbox":
        image = _letterbox(image, config)
    width, height = image.size
    short = min(width, height)
    size = tuple(side if length == short else int(side * length / short) for length in (width, height))
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def centre_cropped(square: np.ndarray) -> np.ndarray:
    """Returns the central 0.9 of the area of uint8 [S, S, 3], resized to [S, S, 3].

    As openvla's evaluation: TensorFlow's `crop_and_resize` (bilinear, aligned corners, no antialiasing) and its
    conversion to 8 bits, 255.5 times the value rounded down.
    """
    side = len(square)
    part = np.sqrt(np.float32(CROPPED_AREA))
    begin = (1 - part) / 2 * (side - 1)
    places = begin + np.arange(side, dtype=np.float32) * part  # in pixels of the square
    low = np.floor(places).astype(int)
    high, weight = np.ceil(places).astype(int), (places - low).astype(np.float32)
    values = square.astype(np.float32) / np.float32(255)
    rows = values[low] + (values[high] - values[low]) * weight[:, None, None]
    whole = rows[:, low] + (rows[:, high] - rows[:, low]) * weight[None, :, None]
    return (np.clip(whole, 0, 1) * np.float32(255.5)).astype(np.uint8)


def _letterbox(image: Image.Image, config: OpenVLAConfig) -> Image.Image:
    """Pads both ends of the shorter side; the colour is the last tower's mean, for both towers."""
    width, height = image.size
    longest = max(width, height)
    left, top = (longest - width) // 2, (longest - height) // 2
    fill = tuple(int(mean * 255) for mean in PIXEL_RANGES[config.vision[-1].pixels][0])
    padded = Image.new("RGB", (width + 2 * left, height + 2 * top), fill)
    padded.paste(image, (left, top))
    return padded


def _range(tower: ViTConfig) -> tuple[np.ndarray, np.ndarray]:
    mean, std = PIXEL_RANGES[tower.pixels]
    return np.float32(mean), np.float32(std)


def _tensor_pixels(images: Tensor, config: OpenVLAConfig, path: ImagePath) -> Tensor:
    if config.resize != "resize-naive":
        raise UserError(f"image_path {path}: made for resize-naive, the checkpoint says {config.resize}")
    dtype = torch.bfloat16 if path == "tensor-bf16" else torch.float32
    pixels = images.permute(0, 3, 1, 2).to(dtype)
    side = (config.image, config.image)
    return normalised(F.interpolate(pixels.float(), side, mode="bicubic", antialias=True).to(dtype) / 255, config)


def normalised(square: Tensor, config: OpenVLAConfig) -> Tensor:
    """Returns [B, 6, S, S]: images [B, 3, S, S] in [0, 1] with each tower's mean and std."""
    channels = []
    for tower in config.vision:
        mean, std = (torch.tensor(numbers).to(square)[:, None, None] for numbers in PIXEL_RANGES[tower.pixels])
        channels.append((square - mean) / std)
    return torch.cat(channels, 1)
