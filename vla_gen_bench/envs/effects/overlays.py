"""Overlays: a texture blended over robot and objects, or over the whole image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as functional

from vla_gen_bench.envs.compositing import blend, bounding_boxes, load_image

if TYPE_CHECKING:
    from vla_gen_bench.envs.pick_place import PickPlaceEnv


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
    """Blends a texture over robot and objects only; it is squeezed into their bounding box and moves with it.

    The reference resizes the texture to the largest box of the batch and pastes its top left part; with one
    environment both are the same. Here each environment uses its own box, so no image depends on its neighbours.
    """

    def apply(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        overlay = self._stretched(bounding_boxes(foreground), images.shape[1:3])
        return torch.where(foreground[..., None], blend(images, overlay, self.alpha), images)

    def _stretched(self, boxes: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """Returns the textures, float [N, H, W, 3], drawn bilinearly into `boxes`; garbage outside them."""
        top, left, bottom, right = (value.view(-1, 1).float() for value in boxes.T)
        y = torch.arange(size[0], device=boxes.device)[None] + 0.5
        x = torch.arange(size[1], device=boxes.device)[None] + 0.5
        v = 2 * (y - top) / (bottom + 1 - top) - 1  # [N, H], grid_sample's -1..1 with align_corners=False
        u = 2 * (x - left) / (right + 1 - left) - 1
        grid = torch.stack([u[:, None, :].expand(-1, size[0], -1), v[:, :, None].expand(-1, -1, size[1])], dim=-1)
        source = self.textures.permute(0, 3, 1, 2).float()
        drawn = functional.grid_sample(source, grid, padding_mode="border", align_corners=False)
        return drawn.permute(0, 2, 3, 1)


class Noise(_Overlay):
    """Blends a twice enlarged texture over the whole image; the crop follows the foreground box's centre."""

    scale = 2

    def apply(self, images: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[1:3]
        top, left, bottom, right = bounding_boxes(foreground).T
        y = ((top + bottom) // 2).clamp(1, height - 1)
        x = ((left + right) // 2).clamp(1, width - 1)
        rows = y[:, None] + torch.arange(height, device=y.device)  # [N, H]
        columns = x[:, None] + torch.arange(width, device=x.device)
        index = torch.arange(len(images), device=y.device)[:, None, None]
        return blend(images, self.textures[index, rows[:, :, None], columns[:, None, :]], self.alpha)
