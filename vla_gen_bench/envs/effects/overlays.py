"""Overlays: a texture blended over robot and objects, or over the whole image."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as functional

from vla_gen_bench.envs.compositing import add_overlay, blend, bounding_boxes, load_image

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv


_PIXEL = np.dtype("V3")  # three bytes as one element: numpy picks and writes those in half the time


class _Overlay:
    """Loads one overlay texture and strength per row."""

    kind = "image"
    scale = 1

    def __init__(self, env: PickPlaceEnv, rows: list[int], params: list[dict[str, Any]]) -> None:
        height, width = env.image_size
        pack = env.pack
        files = [pack.path(pack.catalog.get("textures", row["texture"]).image) for row in params]
        images = [load_image(file, width * self.scale, height * self.scale) for file in files]
        self.textures = torch.stack(images).to(env.device)
        self.alpha = torch.tensor([row["alpha"] for row in params], dtype=torch.float32, device=env.device)


class Texture(_Overlay):
    """Blends a texture over robot and objects only; it is resized to their bounding box and moves with it.

    The reference resizes the texture to the largest box of the batch and pastes its top left part, which is the same
    with one environment. Here each environment uses its own box, so no image depends on its neighbours.
    """

    def apply(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        drawn = images.cpu().numpy().copy()
        for row, mask in enumerate(foreground.cpu().numpy()):
            place = np.flatnonzero(mask)
            if len(place):
                pixels = drawn[row].reshape(-1, 3).view(_PIXEL)[:, 0]
                seen = pixels.take(place).view(np.uint8).reshape(-1, 3)
                seen = torch.from_numpy(seen)[None, None].to(images.device)  # [1, 1, pixels, 3]
                overlay = self._stretched(row, *np.divmod(place, mask.shape[1]))
                blended = blend(seen, overlay, self.alpha[row : row + 1])[0, 0].cpu().numpy()
                pixels[place] = np.ascontiguousarray(blended).view(_PIXEL)[:, 0]
        return torch.from_numpy(drawn).to(images.device)

    def _stretched(self, row: int, y: np.ndarray, x: np.ndarray) -> torch.Tensor:
        """Returns float [1, 1, pixels, 3]: a row's texture at pixels (y, x), resized bilinearly to their box."""
        v, u = (_relative(torch.from_numpy(line).to(self.textures.device)) for line in (y, x))
        grid = torch.stack([u, v], dim=-1)[None, None]
        drawn = functional.grid_sample(self._sources[row], grid, padding_mode="border", align_corners=False)
        return drawn.permute(0, 2, 3, 1)

    @cached_property
    def _sources(self) -> list[torch.Tensor]:
        """The textures in the layout of `grid_sample`, float [1, 3, H, W] each."""
        return [texture.permute(2, 0, 1)[None].float() for texture in self.textures]


def _relative(pixels: torch.Tensor) -> torch.Tensor:
    """Returns pixel centres relative to their range, in grid_sample's -1..1 with align_corners=False."""
    low, high = pixels.min().float(), pixels.max().float()
    return 2 * (pixels + 0.5 - low) / (high + 1 - low) - 1


class Noise(_Overlay):
    """Blends a texture enlarged by two over the full image; the crop follows the foreground box's centre."""

    scale = 2

    def apply(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[1:3]
        mixed = torch.empty_like(images)
        for row, (top, left, bottom, right) in enumerate(bounding_boxes(foreground).tolist()):
            y = min(max((top + bottom) // 2, 1), height - 1)
            x = min(max((left + right) // 2, 1), width - 1)
            overlay = self._scaled[row][y : y + height, x : x + width]
            mixed[row] = add_overlay(images[row], 1.0 - self.alpha[row], overlay)  # within 0 to 255: needs no clamp
        return mixed

    @cached_property
    def _scaled(self) -> list[torch.Tensor]:
        """The textures times their strength, as `blend` computes it, float [2 H, 2 W, 3] each."""
        return [alpha * texture.float() for alpha, texture in zip(self.alpha, self.textures, strict=True)]
