"""Composes the camera image: the table image behind the rendered robot and objects, then image effects."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch

from vla_gen_bench.errors import UserError


@lru_cache(maxsize=64)
def load_image(path: Path, width: int, height: int) -> torch.Tensor:
    """Returns the image as uint8 [height, width, 3] RGB, alpha dropped, resized bilinearly as OpenCV does."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path}: cannot be read as an image; get the pack again (vgb assets list)")
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height))
    return torch.from_numpy(np.ascontiguousarray(image))


def foreground_mask(segmentation: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Returns bool [B, H, W]: True at pixels of any actor or link except `background`, False at empty space (0).

    Args:
        segmentation: [B, H, W, 1] ids.
        background: [B], the id of the table in each sub-scene.
    """
    ids = segmentation[..., 0]
    return (ids != 0) & (ids != background.view(-1, 1, 1))


def composite(render: torch.Tensor, foreground: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """Returns uint8 [B, H, W, 3]: `render` where `foreground`, the table image elsewhere."""
    if render.is_cuda:
        return torch.where(foreground[..., None], render, tables)
    images = tables.clone()  # OpenCV's masked copy takes a tenth of the time of torch's or numpy's
    for source, mask, image in zip(render.numpy(), foreground.numpy(), images.numpy(), strict=True):
        cv2.copyTo(source, mask.view(np.uint8), image)
    return images


def without_alpha(pixels: torch.Tensor) -> torch.Tensor:
    """Returns uint8 [B, H, W, 3] of [B, H, W, 4] on the CPU: a copy, made in a tenth of the time of copying a slice."""
    return torch.from_numpy(stacked([cv2.cvtColor(image, cv2.COLOR_RGBA2RGB) for image in pixels.numpy()]))


def stacked(images: list[np.ndarray]) -> np.ndarray:
    """Returns images [H, W, 3] as one array [B, H, W, 3]; a single one is not copied."""
    return images[0][None] if len(images) == 1 else np.stack(images)


def bounding_boxes(mask: torch.Tensor) -> torch.Tensor:
    """Returns int64 [B, 4] (top, left, bottom, right), inclusive, of the true pixels; all 0 for an empty mask."""
    if not mask.is_cuda:  # OpenCV takes a twentieth of torch's time
        found = (cv2.boundingRect(each.view(np.uint8)) for each in mask.numpy())
        return torch.tensor([(y, x, max(y + high - 1, 0), max(x + wide - 1, 0)) for x, y, wide, high in found])
    rows, columns = mask.any(2), mask.any(1)

    def ends(line: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first = line.to(torch.uint8).argmax(1)
        last = line.shape[1] - 1 - line.flip(1).to(torch.uint8).argmax(1)
        return first, torch.where(line.any(1), last, first)

    top, bottom = ends(rows)
    left, right = ends(columns)
    return torch.stack([top, left, bottom, right], dim=1)


def add_overlay(image: torch.Tensor, share: torch.Tensor, overlay: torch.Tensor) -> torch.Tensor:
    """Returns uint8 [H, W, 3]: `share` * image + overlay, truncated; `blend` of one image with an overlay times alpha.

    Args:
        image: uint8 [H, W, 3].
        share: Scalar, 1 - alpha.
        overlay: float32 [H, W, 3], alpha times the texture.
    """
    if image.is_cuda:
        return (image * share).add_(overlay).to(torch.uint8)
    dimmed = cv2.LUT(image.numpy(), (torch.arange(256, dtype=torch.uint8) * share).numpy())
    return torch.from_numpy(cv2.add(dimmed, overlay.numpy(), dst=dimmed).astype(np.uint8))


def blend(image: torch.Tensor, overlay: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Returns uint8 alpha * overlay + (1 - alpha) * image, clamped and truncated as the reference does."""
    alpha = alpha.view(-1, 1, 1, 1)
    mixed = alpha * overlay.float() + (1.0 - alpha) * image.float()
    return mixed.clamp(0, 255).to(torch.uint8)
